"""`dataset_info.json`, the table of named datasets, and what the items of `dataset:` stand for.

    alpaca_en                     an entry of the table
    data/rows.jsonl, data/*.csv   a path or a pattern, from here or from `dataset_dir`
    s3://bucket/rows.jsonl        an address
    owner/name                    a repository of the hub
    {path: ..., columns: ...}     any of these with the keys of an entry

Behind a name, a repository or an address `:subset` and `#number` say which part and how many rows of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from tunesmith.core.errors import DataError, MissingInputError, Problem
from tunesmith.core.suggest import did_you_mean
from tunesmith.data.sources.kinds import kind_of
from tunesmith.data.sources.local import is_pattern, matches
from tunesmith.data.spec import INLINE_KEYS, DatasetSpec, Place, Where, from_entry
from tunesmith.hubs import chosen_hub

__all__ = ["INFO_FILE", "DatasetSpec", "resolve"]

INFO_FILE = "dataset_info.json"
ONLINE = "ONLINE"
REMOTE = "REMOTE:"

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_SUBSET = re.compile(r"[\w.+-]+")


@dataclass(frozen=True, slots=True)
class _Table:
    """`dataset_dir`: entries by name, and where their files and those of plain paths lie."""

    entries: Mapping[str, Any]
    source: str
    """What messages call it."""
    folder: Path = Path()
    repository: str | None = None
    """The repository that the table came from: its entries name files in it."""
    online: bool = False
    """Every name is a repository."""

    def place(self, file_name: str) -> Where:
        """Where a `file_name` of an entry is."""
        return ("hf", self.repository) if self.repository else ("file", str(self.folder / file_name))


def resolve(
    names: Iterable[str | Mapping[str, Any]], dataset_dir: str | Path | Mapping[str, Any], *, offline: bool = False
) -> list[DatasetSpec]:
    """The datasets that the items of `dataset:` stand for. `dataset_dir` is the folder of the table; a mapping is the
    table itself; `ONLINE` makes every name a repository; `REMOTE:owner/name` takes the table of that repository.

    Raises MissingInputError (E-DATA-020) where an item stands for nothing, DataError (E-DATA-021) where an entry is
    wrong; all problems at once.
    """
    table = _load(dataset_dir, offline)
    specs: list[DatasetSpec] = []
    problems: list[Problem] = []
    for item in names:
        found = _inline(item, table) if isinstance(item, Mapping) else _item(item, table)
        if isinstance(found, DatasetSpec):
            specs.append(found)
        else:
            problems += found
    if problems:
        missing = all(problem.code == "E-DATA-020" for problem in problems)
        raise MissingInputError(problems) if missing else DataError(problems)
    return specs


def _load(dataset_dir: str | Path | Mapping[str, Any], offline: bool) -> _Table:
    if isinstance(dataset_dir, Mapping):
        return _Table(dataset_dir, "dataset_dir")
    if dataset_dir == ONLINE:
        return _Table({}, ONLINE, online=True)
    if isinstance(dataset_dir, str) and dataset_dir.startswith(REMOTE):
        from tunesmith.data.sources.hub import fetch_file

        repository = dataset_dir.removeprefix(REMOTE).strip("/")
        path = fetch_file(repository, INFO_FILE, offline=offline)
        return _Table(_parse(path, f"{repository}/{INFO_FILE}"), f"{repository}/{INFO_FILE}", repository=repository)
    folder = Path(dataset_dir).expanduser()
    path = folder / INFO_FILE
    return _Table(_parse(path, str(path)) if path.is_file() else {}, str(path), folder)


def _parse(path: Path, name: str) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text("utf-8-sig"))
    except ValueError as error:  # not JSON, or not UTF-8
        place, what = name, str(error)
        if isinstance(error, json.JSONDecodeError):
            place, what = f"{name}:{error.lineno}:{error.colno}", error.msg.lower()
        raise DataError(Problem("E-DATA-003", f"not valid JSON: {what}", where=place)) from error
    if not isinstance(table, dict):
        raise DataError(Problem("E-DATA-021", "it must be an object: name -> entry", where=name))
    return table


Found = DatasetSpec | list[Problem]


def _inline(item: Mapping[str, Any], table: _Table) -> Found:
    """A mapping in `dataset:`: its `path` is an item by itself, its other keys are those of an entry."""
    path = item.get("path")
    name = str(item.get("name") or path or next((item[key] for key in item if str(key).endswith("_url")), "dataset"))
    where = f'dataset, "{name}"'
    if path is None:
        found = table.place(item["file_name"]) if isinstance(item.get("file_name"), str) else None
        return from_entry(name, item, where, found, keys=INLINE_KEYS)
    spec = from_entry(name, item, where, keys=INLINE_KEYS)
    if not isinstance(spec, DatasetSpec):
        return spec
    target = _item(str(path), replace(table, entries={}))
    if not isinstance(target, DatasetSpec):
        return target
    kept = {key: getattr(spec, key) or getattr(target, key) for key in ("subset", "num_samples")}
    notices = (*target.notices, *spec.notices)
    return replace(spec, location=target.location, place=target.place, notices=notices, **kept)


def _item(name: str, table: _Table) -> Found:
    """A text in `dataset:`. What it is as a whole wins over what it is with `:subset` or `#number` behind it."""
    forms = list(_short_forms(name))
    for base, subset, number in forms:
        if (found := _known(base, table)) is not None:
            return _narrowed(found, name, subset, number)
    for base, subset, number in reversed(forms):  # of `owner/name#5` the repository is `owner/name`
        if (place := _remote(base, subset, table)) is not None:
            return _narrowed(DatasetSpec(base, base, place), name, subset, number)
    return [_unknown(name, table)]


def _short_forms(name: str) -> Iterator[tuple[str, str | None, int | None]]:
    """(name, subset, number of rows): as it stands first, then with less and less of it taken as the name."""
    yield name, None, None
    base, number = name, None
    head, sign, digits = name.rpartition("#")
    if sign and head and digits.isascii() and digits.isdigit() and int(digits) > 0:
        base, number = head, int(digits)
        yield base, None, number
    head, sign, subset = base.rpartition(":")
    if sign and len(head) > 1 and _SUBSET.fullmatch(subset):  # a single letter is a drive: C:rows.jsonl
        yield head, subset, number


def _narrowed(found: Found, name: str, subset: str | None, number: int | None) -> Found:
    if not isinstance(found, DatasetSpec):
        return found
    if subset is not None and found.place == "file" and not found.path.is_dir():
        what = f'"{name}" asks for a subset of a single file'
        return [Problem("E-DATA-044", what, where=found.location, fix="name the file alone, or with #number")]
    return replace(found, subset=subset or found.subset, num_samples=number or found.num_samples)


def _known(name: str, table: _Table) -> Found | None:
    """What a name is by the table or on this machine."""
    path, note = _local(name, table)
    if name in table.entries:
        entry = table.entries[name]
        file_name = entry.get("file_name") if isinstance(entry, Mapping) else None
        found = table.place(file_name) if isinstance(file_name, str) else None
        spec = from_entry(name, entry, f'{table.source}, entry "{name}"', found)
        if isinstance(spec, DatasetSpec) and path is not None and path.resolve() != spec.path.resolve():
            said = f'"{name}" is an entry of {table.source} and a path: the entry is used (the path is ./{name})'
            spec = replace(spec, notices=(*spec.notices, said))
        return spec
    if path is not None:
        return DatasetSpec(name, str(path), notices=(note,) if note else ())
    return None


def _local(name: str, table: _Table) -> tuple[Path | None, str | None]:
    """(the path or pattern that a name is, what to say about it)"""
    if table.online or _ADDRESS.match(name):
        return None, None
    here, there = Path(name).expanduser(), table.folder / name
    found = [path for path in (here, there) if path.exists() or path.is_symlink()]
    if not found and is_pattern(name):
        found = [path for path in (here, there) if matches(path)]
    if not found:
        return None, None
    if len(found) == 2 and there.resolve() != here.resolve():
        return here, f'"{name}" lies here and in {table.folder}: the one here is used'
    return found[0], None


def _remote(name: str, subset: str | None, table: _Table) -> Place | None:
    """The kind of place that a name is by its form."""
    if _ADDRESS.match(name):
        return "url" if subset is None else None
    if table.online:
        return cast(Place, chosen_hub())
    # A name that ends like a file is a file that is missing, and so is one below a folder that is there.
    is_id = _REPOSITORY.fullmatch(name) and kind_of(name) is None and not Path(name).parent.is_dir()
    return cast(Place, chosen_hub()) if is_id else None


def _unknown(name: str, table: _Table) -> Problem:
    known = list(table.entries)
    for place, prefix in ((table.folder, ""), (Path(name).expanduser().parent, f"{Path(name).parent}/")):
        if place.is_dir():
            known += [
                prefix.removeprefix("./") + file.name for file in place.iterdir() if not file.name.startswith(".")
            ]
    fix = did_you_mean(name, known)
    if fix is None and table.entries:
        fix = "entries: " + ", ".join(list(table.entries)[:8]) + (", ..." if len(table.entries) > 8 else "")
    if fix is None:
        fix = f"write the path of a file, or make {table.source} with an entry for the name"
    if is_pattern(name):
        return Problem("E-DATA-020", f'no file matches the pattern "{name}"', fix=fix)
    return Problem("E-DATA-020", f'no dataset "{name}": neither a path nor an entry of {table.source}', fix=fix)
