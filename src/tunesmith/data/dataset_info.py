"""`dataset_info.json`, the table of named datasets in `dataset_dir`, and the names and paths that `dataset:` lists."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.core.errors import DataError, MissingInputError, Problem
from tunesmith.core.suggest import did_you_mean
from tunesmith.data.formats import FORMATS

__all__ = ["INFO_FILE", "DatasetSpec", "resolve"]

INFO_FILE = "dataset_info.json"

COLUMNS = (
    *("prompt", "query", "response", "history", "messages", "system", "tools"),
    *("chosen", "rejected", "kto_tag"),
)
LATER_COLUMNS = ("images", "videos", "audios")
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
NEEDED_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag")
REMOTE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
KEYS = (
    *("file_name", "formatting", "ranking", "subset", "split", "folder", "num_samples", "columns", "tags"),
    *("trusted_markup", "merge_consecutive"),
    *REMOTE,
)


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One dataset to read. `format` is None where it is to be detected (a path that has no entry)."""

    name: str
    path: Path
    format: str | None = None
    columns: Mapping[str, str] | None = None
    tags: Mapping[str, str] | None = None
    num_samples: int | None = None
    trusted_markup: bool = False
    """Control tokens in its texts are meant as such."""
    ranking: bool = False
    """The rows are pairs of a chosen and a rejected answer."""
    merge_consecutive: bool = False
    """Messages of one role in a row become one."""
    notices: tuple[str, ...] = ()

    @property
    def registered(self) -> bool:
        return self.format is not None


def resolve(names: Iterable[str], dataset_dir: str | Path) -> list[DatasetSpec]:
    """The datasets that `dataset:` names, each a name of `dataset_info.json` or a path.

    Raises MissingInputError (E-DATA-020) where one is neither, DataError (E-DATA-021) where its entry is wrong; all
    problems at once.
    """
    folder = Path(dataset_dir).expanduser()
    table = _load_table(folder / INFO_FILE)
    specs: list[DatasetSpec] = []
    problems: list[Problem] = []
    for name in names:
        found = _resolve_one(name, folder, table)
        if isinstance(found, DatasetSpec):
            specs.append(found)
        else:
            problems += found
    if problems:
        missing = all(problem.code == "E-DATA-020" for problem in problems)
        raise MissingInputError(problems) if missing else DataError(problems)
    return specs


def _load_table(path: Path) -> dict[str, Any]:
    """The entries; empty where there is no such file (paths need none)."""
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:  # not JSON, or not UTF-8
        place, what = str(path), str(error)
        if isinstance(error, json.JSONDecodeError):
            place, what = f"{path}:{error.lineno}:{error.colno}", error.msg.lower()
        raise DataError(Problem("E-DATA-003", f"not valid JSON: {what}", where=place)) from error
    if not isinstance(table, dict):
        raise DataError(Problem("E-DATA-021", "it must be an object: name -> entry", where=str(path)))
    return table


def _resolve_one(name: str, folder: Path, table: Mapping[str, Any]) -> DatasetSpec | list[Problem]:
    here, there = Path(name).expanduser(), folder / name
    path = next((path for path in (here, there) if path.exists() or path.is_symlink()), None)
    if name in table:
        spec = _entry(name, table[name], folder)
        if isinstance(spec, DatasetSpec) and path is not None and path.resolve() != spec.path.resolve():
            note = f'"{name}" is an entry of {folder / INFO_FILE} and a path: the entry is used (the path is ./{name})'
            spec = _with_notice(spec, note)
        return spec
    if path is not None:
        if path is here and there.exists() and there.resolve() != here.resolve():
            note = f'"{name}" lies here and in {folder}: the one here is used'
            return DatasetSpec(name, path, notices=(note,))
        return DatasetSpec(name, path)
    return [_unknown(name, folder, table)]


def _with_notice(spec: DatasetSpec, note: str) -> DatasetSpec:
    return replace(spec, notices=(*spec.notices, note))


def _unknown(name: str, folder: Path, table: Mapping[str, Any]) -> Problem:
    known = list(table)
    for place, prefix in ((folder, ""), (Path(name).expanduser().parent, f"{Path(name).parent}/")):
        if place.is_dir():
            known += [
                prefix.removeprefix("./") + file.name for file in place.iterdir() if not file.name.startswith(".")
            ]
    info = folder / INFO_FILE
    fix = did_you_mean(name, known)
    if fix is None and table:
        fix = "entries: " + ", ".join(list(table)[:8]) + (", ..." if len(table) > 8 else "")
    if fix is None:
        fix = f"write the path of a file, or make {info} with an entry for the name"
    return Problem("E-DATA-020", f'no dataset "{name}": neither a path nor an entry of {info}', fix=fix)


def _entry(name: str, entry: Any, folder: Path) -> DatasetSpec | list[Problem]:
    """An entry of the table, checked."""
    where = f'{folder / INFO_FILE}, entry "{name}"'
    if not isinstance(entry, dict):
        return [Problem("E-DATA-021", "the entry is not an object", where=where)]
    problems = [
        Problem("E-DATA-021", what, where=where, fix=fix)
        for what, fix in (*_source_faults(entry), *_layout_faults(entry), *_number_faults(entry))
    ]
    if problems:
        return problems
    notices = []
    if without := [key for key in (*REMOTE, "subset", "folder") if entry.get(key)]:
        notices.append(f"{where}: {' and '.join(without)} mean nothing for a local file")
    return DatasetSpec(
        name,
        folder / entry["file_name"],
        entry.get("formatting") or "alpaca",
        _named(entry.get("columns")),
        _named(entry.get("tags")),
        entry.get("num_samples"),
        bool(entry.get("trusted_markup")),
        bool(entry.get("ranking")),
        bool(entry.get("merge_consecutive")),
        tuple(notices),
    )


def _named(block: Mapping[str, str | None] | None) -> dict[str, str] | None:
    """A block of columns or tags without what is set to null."""
    return None if block is None else {key: value for key, value in block.items() if value is not None}


Fault = tuple[str, str | None]


def _source_faults(entry: Mapping[str, Any]) -> Iterable[Fault]:
    for key in entry:
        if key not in KEYS:
            yield f'unknown key "{key}"', did_you_mean(key, KEYS) or "keys: " + ", ".join(KEYS)
    remote = [key for key in REMOTE if entry.get(key)]
    if remote and not entry.get("file_name"):
        yield f"{remote[0]} is not supported by this version", "get the file and name it with file_name"
    elif not isinstance(entry.get("file_name"), str) or not entry["file_name"]:
        yield "no file_name", 'add "file_name": "the file or folder, relative to the folder of this table"'
    if entry.get("split") not in (None, "train"):
        yield f'split "{entry["split"]}" of a local file', "name the file of that split with file_name"


def _layout_faults(entry: Mapping[str, Any]) -> Iterable[Fault]:
    formatting = entry.get("formatting") or "alpaca"
    if formatting not in FORMATS:
        yield (
            f'unknown formatting "{formatting}"',
            did_you_mean(str(formatting), FORMATS) or "one of: " + ", ".join(FORMATS),
        )
    for block, known, later in (("columns", COLUMNS, LATER_COLUMNS), ("tags", TAGS, ())):
        mapping = entry.get(block)
        if mapping is None:
            continue
        if not isinstance(mapping, dict):
            yield f"{block} is not an object", None
            continue
        for key, value in mapping.items():
            if key in later and value is not None:
                yield f'the column "{key}" is not supported by this version', f"leave {key} out of columns"
            elif key not in known and key not in later:
                yield f'unknown key "{key}" in {block}', did_you_mean(key, known) or "keys: " + ", ".join(known)
            elif not isinstance(value, str | None):
                yield f'"{key}" in {block} is not a name', None
    tags = entry.get("tags")
    if isinstance(tags, dict) and (missing := [tag for tag in NEEDED_TAGS if not tags.get(tag)]):
        yield f"tags lacks {', '.join(missing)} (a tags block replaces all defaults)", "add them, or leave tags out"


def _number_faults(entry: Mapping[str, Any]) -> Iterable[Fault]:
    number = entry.get("num_samples")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
        yield f"num_samples is {number!r}", "a number of 1 or more, or leave it out"
    for key in ("trusted_markup", "ranking", "merge_consecutive"):
        if not isinstance(entry.get(key), bool | None):
            yield f"{key} is {entry[key]!r}", "true or false"
