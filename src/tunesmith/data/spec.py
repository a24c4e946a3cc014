"""One dataset as the user describes it: an entry of dataset_info.json, or a mapping in `dataset:`; checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tunesmith.core.errors import Problem
from tunesmith.core.suggest import did_you_mean
from tunesmith.data.formats import FORMATS
from tunesmith.data.sources.kinds import SOURCES
from tunesmith.hubs import chosen_hub

__all__ = ["INLINE_KEYS", "DatasetSpec", "Place", "Where", "from_entry"]

Place: TypeAlias = Literal["file", "url", "hf", "modelscope", "openmind"]
Where: TypeAlias = tuple[Place, str]
"""(kind of place, path or address or repository)"""

COLUMNS = (
    *("prompt", "query", "response", "history", "messages", "system", "tools"),
    *("chosen", "rejected", "kto_tag"),
    *("images", "videos", "audios"),
)
TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
NEEDED_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag")
HUB_KEYS: dict[str, Place] = {"hf_hub_url": "hf", "ms_hub_url": "modelscope", "om_hub_url": "openmind"}
SOURCE_KEYS = (*HUB_KEYS, "script_url", "cloud_file_name", "file_name")
KEYS = (
    *SOURCE_KEYS,
    *("subset", "split", "folder", "revision", "file_type", "field", "num_samples", "weight"),
    *("formatting", "format", "columns", "tags", "ranking", "merge_consecutive", "trusted_markup"),
)
INLINE_KEYS = ("path", "name", *KEYS)
_PASSED_ON = ("subset", "split", "folder", "revision", "file_type", "field")
_TEXTS = (*_PASSED_ON, "path", "name", *SOURCE_KEYS)
_FLAGS = ("trusted_markup", "ranking", "merge_consecutive")


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """One dataset to read. `format` is None where it is to be detected (a path that has no entry).

    `location` is a path or pattern, an address, or a repository, as `place` says.
    """

    name: str
    location: str
    place: Place = "file"
    files: str | None = None
    """A file or pattern in the repository, where the user names one."""
    subset: str | None = None
    split: str | None = None
    folder: str | None = None
    revision: str | None = None
    file_type: str | None = None
    field: str | None = None
    """The rows lie under this key of one object that is the whole file."""
    format: str | None = None
    columns: Mapping[str, str] | None = None
    tags: Mapping[str, str] | None = None
    num_samples: int | None = None
    weight: float = 1.0
    """What each trained token counts in the loss."""
    ranking: bool = False
    """The rows are pairs of a chosen and a rejected answer."""
    merge_consecutive: bool = False
    """Messages of one role in a row become one."""
    trusted_markup: bool = False
    """Control tokens in its texts are meant as such."""
    notices: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """`location` as a path; for messages use `location`."""
        return Path(self.location)

    @property
    def registered(self) -> bool:
        return self.format is not None


def from_entry(
    name: str, entry: Any, where: str, found: Where | None = None, *, keys: Iterable[str] = KEYS
) -> DatasetSpec | list[Problem]:
    """The spec of an entry, or what is wrong with it. `found` is where its `file_name` or `path` points to; `keys` are
    those that it may have."""
    if not isinstance(entry, Mapping):
        return [Problem("E-DATA-021", "the entry is not an object", where=where)]
    faults = [
        *_key_faults(entry, tuple(keys)),
        *_source_faults(entry),
        *_layout_faults(entry),
        *_value_faults(entry),
    ]
    if faults:
        return [Problem(code, what, where=where, fix=fix) for code, what, fix in faults]
    by_key = _source(entry)
    place, location = by_key or found or ("file", "")
    inline = "path" in entry
    formatting = entry.get("formatting") or entry.get("format")
    if formatting is None and not (inline and not entry.get("columns") and not entry.get("tags")):
        formatting = "alpaca"
    texts: dict[str, Any] = {key: entry.get(key) for key in _PASSED_ON}
    flags: dict[str, Any] = {key: bool(entry.get(key)) for key in _FLAGS}
    return DatasetSpec(
        name,
        location,
        place,
        files=entry.get("file_name") if by_key is None and place == "hf" else None,
        **texts,
        format=formatting,
        columns=_named(entry.get("columns")),
        tags=_named(entry.get("tags")),
        num_samples=entry.get("num_samples"),
        weight=1.0 if entry.get("weight") is None else float(entry["weight"]),
        **flags,
        notices=tuple(_notices(entry, where, place, location)),
    )


def _named(block: Mapping[str, str | None] | None) -> dict[str, str] | None:
    """A block of columns or tags without what is set to null."""
    return None if block is None else {key: value for key, value in block.items() if value is not None}


def _source(entry: Mapping[str, Any]) -> Where | None:
    """Where the rows are by the keys for hubs and clouds, which win over `file_name` as everywhere in this field."""
    hubs = {hub: entry[key] for key, hub in HUB_KEYS.items() if entry.get(key)}
    if hubs:
        hub = chosen_hub() if chosen_hub() in hubs else next(iter(hubs))
        return hub, hubs[hub]  # type: ignore[index,return-value]  # names of hubs are places
    if entry.get("cloud_file_name"):
        return "url", entry["cloud_file_name"]
    return None


def _notices(entry: Mapping[str, Any], where: str, place: Place, location: str) -> Iterable[str]:
    without = [key for key in ("subset", "folder", "revision") if entry.get(key)]
    if without and place == "file" and location and not Path(location).is_dir():
        yield f"{where}: {' and '.join(without)} mean nothing for a local file"
    given = [key for key in (*SOURCE_KEYS, "path") if entry.get(key)]
    if len(given) > 1 and any(key not in HUB_KEYS for key in given):
        used = next((key for key, hub in HUB_KEYS.items() if hub == place and key in given), given[0])
        yield f"{where}: {' and '.join(given)} all say where the rows are: {used} is used"


Fault: TypeAlias = tuple[str, str, str | None]
"""(code, what, fix)"""
_CODE = "E-DATA-021"


def _key_faults(entry: Mapping[str, Any], keys: tuple[str, ...]) -> Iterable[Fault]:
    for key in entry:
        if key not in keys:
            yield _CODE, f'unknown key "{key}"', did_you_mean(str(key), keys) or "keys: " + ", ".join(keys)
    if entry.get("formatting") and entry.get("format"):
        yield _CODE, "formatting and format are two names of one key", "keep one of them"


def _source_faults(entry: Mapping[str, Any]) -> Iterable[Fault]:
    given = [key for key in (*SOURCE_KEYS, "path") if entry.get(key)]
    if not given:
        yield (
            _CODE,
            "nothing says where the rows are",
            'add "file_name": "the file or folder", or hf_hub_url, ms_hub_url, om_hub_url or cloud_file_name',
        )
    elif given[0] == "script_url":
        yield (
            "E-DATA-043",
            "script_url names Python code that would have to run to make the rows",
            "run it yourself and save its rows as .jsonl or .parquet, then name that file with file_name; many "
            "scripts of the hub have their rows at hf_hub_url with revision: refs/convert/parquet",
        )


def _layout_faults(entry: Mapping[str, Any]) -> Iterable[Fault]:
    for key, known in (("formatting", FORMATS), ("format", FORMATS), ("file_type", SOURCES)):
        value = entry.get(key)
        if value and value not in known:
            fix = " ".join(filter(None, [did_you_mean(str(value), known), f"one of: {', '.join(known)}"]))
            if key == "format" and value in SOURCES:
                fix = f"format is the layout of the rows; the kind of file is file_type: {value}"
            yield _CODE, f'unknown {key} "{value}"', fix
    for block, names in (("columns", COLUMNS), ("tags", TAGS)):
        mapping = entry.get(block)
        if mapping is None:
            continue
        if not isinstance(mapping, Mapping):
            yield _CODE, f"{block} is not an object", None
            continue
        for key, value in mapping.items():
            if key not in names:
                fix = did_you_mean(str(key), names) or "keys: " + ", ".join(names)
                yield _CODE, f'unknown key "{key}" in {block}', fix
            elif not isinstance(value, str | None):
                yield _CODE, f'"{key}" in {block} is not a name', None
    tags = entry.get("tags")
    if isinstance(tags, Mapping) and (missing := [tag for tag in NEEDED_TAGS if not tags.get(tag)]):
        what = f"tags lacks {', '.join(missing)} (a tags block replaces all defaults)"
        yield _CODE, what, "add them, or leave tags out"


def _value_faults(entry: Mapping[str, Any]) -> Iterable[Fault]:
    number = entry.get("num_samples")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < 1):
        yield _CODE, f"num_samples is {number!r}", "a number of 1 or more, or leave it out"
    weight = entry.get("weight")
    if weight is not None and (not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < 1e6):
        yield _CODE, f"weight is {weight!r}", "a number above 0; 1 is that of other datasets"
    for key in _TEXTS:
        if key in entry and not isinstance(entry[key], str | None):
            yield _CODE, f"{key} is {entry[key]!r}", "a text"
    for key in _FLAGS:
        if not isinstance(entry.get(key), bool | None):
            yield _CODE, f"{key} is {entry[key]!r}", "true or false"
