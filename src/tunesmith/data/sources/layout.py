"""Which files of a repository or a folder are a subset and a split of its dataset, by the conventions of the hub.

1. `configs:` in the head of README.md: subsets by name, splits with their files or patterns.
2. Else the names: `train`, `test`, `validation` (valid, dev, val), as a folder or as a word of a file's name; a subset
   is a folder. Files whose names tell nothing are the split `train`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tunesmith.core.errors import DataError, MissingInputError, Problem
from tunesmith.core.suggest import did_you_mean
from tunesmith.data.sources.kinds import kind_of

__all__ = ["Wanted", "choose"]

DEFAULT_SPLIT = "train"
# Words that name a split, and the name that is asked for.
_WORDS = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_NOT_DATA = {"dataset_info.json", "dataset_infos.json", "config.json", "license.txt", "requirements.txt"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a repository. `name` is what messages call it."""

    name: str
    subset: str | None = None
    split: str | None = None
    folder: str | None = None
    files: str | None = None
    """A file or pattern that the user named: nothing is to be guessed."""


def choose(paths: Iterable[str], readme: str | None, wanted: Wanted) -> list[str]:
    """The files to read, by name. `paths` are those of the repository, `readme` the text of its README.md.

    Raises MissingInputError where there is no such file; DataError E-DATA-044 where there is no such subset or split,
    E-DATA-043 where the rows are made by a script.
    """
    every = sorted(paths)
    if wanted.files:
        return _named(every, wanted)
    if wanted.folder:
        inside = f"{wanted.folder.strip('/')}/"
        every = [path for path in every if path.startswith(inside)]
        if not every:
            raise MissingInputError(Problem("E-DATA-020", f"no folder {inside}", where=wanted.name))
    configs = _configs(readme)
    if configs and not wanted.folder:
        return _by_configs(every, configs, wanted)
    data = _data_files(every)
    if not data:
        raise DataError(_no_data(every, wanted))
    if wanted.subset is not None:
        data = _of_subset(data, wanted, len(wanted.folder.strip("/")) + 1 if wanted.folder else 0)
    return _of_kind(_of_split(data, wanted))


def _named(paths: Sequence[str], wanted: Wanted) -> list[str]:
    assert wanted.files is not None
    inside = [path for path in paths if path.startswith(f"{wanted.files.strip('/')}/")]
    found = [path for path in paths if path == wanted.files] or _data_files(inside) or _matching(paths, [wanted.files])
    if not found:
        fix = did_you_mean(wanted.files, paths)
        raise MissingInputError(Problem("E-DATA-020", f'no file "{wanted.files}"', where=wanted.name, fix=fix))
    return found


def _configs(readme: str | None) -> list[Mapping[str, Any]]:
    """The `configs:` of a README's head."""
    head = re.match(r"﻿?---\r?\n(.*?)\r?\n---", readme or "", re.DOTALL)
    if head is None:
        return []
    import yaml

    try:
        values = yaml.safe_load(head[1])
    except yaml.YAMLError:
        return []  # the hub shows such a README all the same; the names of the files still tell
    configs = values.get("configs") if isinstance(values, dict) else None
    return [one for one in configs or () if isinstance(one, dict) and (one.get("data_files") or one.get("data_dir"))]


def _by_configs(paths: Sequence[str], configs: Sequence[Mapping[str, Any]], wanted: Wanted) -> list[str]:
    names = [str(one.get("config_name", "default")) for one in configs]
    if wanted.subset is None:
        standard = [index for index, one in enumerate(configs) if one.get("default") is True]
        standard += [index for index, name in enumerate(names) if name == "default"]
        if not standard and len(names) > 1:
            raise DataError(_which("subset", None, names, wanted))
        config = configs[standard[0] if standard else 0]
    elif wanted.subset in names:
        config = configs[names.index(wanted.subset)]
    else:
        raise DataError(_which("subset", wanted.subset, names, wanted))
    if folder := config.get("data_dir"):
        inside = f"{str(folder).strip('/')}/"
        paths = [path for path in paths if path.startswith(inside)]
        if not config.get("data_files"):
            return _of_kind(_of_split(_data_files(paths), wanted))
    splits = _splits(config["data_files"])
    split = wanted.split or (DEFAULT_SPLIT if DEFAULT_SPLIT in splits or len(splits) > 1 else next(iter(splits)))
    if split not in splits:
        raise DataError(_which("split", split, list(splits), wanted))
    prefix = f"{str(folder).strip('/')}/" if folder else ""
    found = _matching(paths, [prefix + pattern for pattern in splits[split]])
    if not found:
        what = f'the files of split "{split}" are not there: {", ".join(splits[split])}'
        raise MissingInputError(Problem("E-DATA-020", what, where=wanted.name))
    return found


def _splits(data_files: Any) -> dict[str, list[str]]:
    """split -> patterns, from the three forms that `data_files` may have."""
    if isinstance(data_files, str):
        return {DEFAULT_SPLIT: [data_files]}
    found: dict[str, list[str]] = {}
    items = data_files if isinstance(data_files, list) else [{"split": k, "path": v} for k, v in data_files.items()]
    for item in items:
        split, paths = (item.get("split"), item.get("path")) if isinstance(item, dict) else (DEFAULT_SPLIT, item)
        found.setdefault(str(split), []).extend([paths] if isinstance(paths, str) else paths or [])
    return found


def _matching(paths: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Paths that one of the patterns stands for: `*` stays within a folder, `**` does not."""
    found: list[str] = []
    for pattern in patterns:
        test = re.compile(_expression(pattern.removeprefix("./")))
        found += [path for path in paths if test.fullmatch(path) and path not in found]
    return found


def _expression(pattern: str) -> str:
    parts = []
    for piece in re.split(r"(\*\*/?|\*|\?|\[[^\]]+\])", pattern):
        if piece.startswith("**"):
            parts.append(r"(?:[^/]+/)*" if piece.endswith("/") else ".*")
        elif piece in ("*", "?"):
            parts.append("[^/]*" if piece == "*" else "[^/]")
        elif piece.startswith("["):
            inner = piece[1:-1].replace("\\", "\\\\")
            parts.append(f"[^{inner[1:]}]" if inner[:1] in ("!", "^") else f"[{inner}]")
        else:
            parts.append(re.escape(piece))
    return "".join(parts)


def _data_files(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if kind_of(path) and _may_hold_rows(path)]


def _may_hold_rows(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return parts[-1].lower() not in _NOT_DATA and not any(part.startswith((".", "__")) for part in parts)


def _of_subset(data: Sequence[str], wanted: Wanted, skipped: int) -> list[str]:
    subset = str(wanted.subset)
    found = [path for path in data if subset in PurePosixPath(path[skipped:]).parts[:-1]]
    if not found and subset != "default":
        folders = sorted({part for path in data for part in PurePosixPath(path[skipped:]).parts[:-1]} - set(_WORDS))
        raise DataError(_which("subset", subset, folders, wanted))
    return found or list(data)


def _of_split(data: Sequence[str], wanted: Wanted) -> list[str]:
    by_split: dict[str, list[str]] = {}
    for path in data:
        by_split.setdefault(_split_of(path), []).append(path)
    split = wanted.split or DEFAULT_SPLIT
    if split not in by_split and wanted.split is None and len(by_split) == 1:
        return next(iter(by_split.values()))
    if found := by_split.get(split) or by_split.get(_WORDS.get(split, split)):
        return found
    # A split of another name, as in data/train_sft-00000-of-00001.parquet.
    if found := [path for path in data if re.search(rf"(?:^|[/_.-]){re.escape(split)}(?=[/_.-]|$)", path)]:
        return found
    raise DataError(_which("split", split, list(by_split), wanted))


def _split_of(path: str) -> str:
    """The split that a path tells: by the last word in it that names one, folders included."""
    sharded = re.search(r"([^/]+?)-\d{5}-of-\d{5}", path)
    if sharded and sharded[1] not in _WORDS:
        return sharded[1] if "/" in path else _split_of(sharded[1])
    words = [word for word in re.split(r"[^a-z]+", path.lower()) if word in _WORDS]
    return _WORDS[words[-1]] if words else DEFAULT_SPLIT


def _of_kind(data: Sequence[str]) -> list[str]:
    """The files of the commonest kind: beside its tables a repository often holds a few others."""
    kinds = Counter(kind_of(path) for path in data)
    commonest = max(kinds, key=lambda kind: (kinds[kind], kind == "parquet"))
    return [path for path in data if kind_of(path) == commonest]


def _which(what: str, asked: str | None, known: Sequence[str], wanted: Wanted) -> Problem:
    listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    if asked is None:
        fix = f"say which {what}: {listed}"
        return Problem("E-DATA-044", f"the dataset has several {what}s", where=wanted.name, fix=fix)
    fix = did_you_mean(asked, known) or (f"{what}s: {listed}" if known else f"leave {what} out")
    return Problem("E-DATA-044", f'no {what} "{asked}"', where=wanted.name, fix=fix)


def _no_data(paths: Sequence[str], wanted: Wanted) -> Problem:
    scripts = [path for path in paths if path.endswith(".py")]
    if scripts:
        return Problem(
            "E-DATA-043",
            f"the rows are made by a script ({scripts[0]}), and foreign code is not run here",
            where=wanted.name,
            fix="revision: refs/convert/parquet, where the hub keeps the rows of most scripts; or run the script "
            "yourself and save its rows",
        )
    return Problem(
        "E-DATA-002",
        "no file of a known type holds rows",
        where=wanted.name,
        got=", ".join(paths[:8]) or "an empty repository",
        fix="name the file with file_name, and its type with file_type",
    )
