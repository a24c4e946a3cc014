"""The kinds of files: which reader gives their rows, and by which endings of names they are known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import TYPE_CHECKING, TypeAlias

from tunesmith.core.registry import Registry
from tunesmith.data.rows import Row

if TYPE_CHECKING:
    from tunesmith.data.sources.base import Blob

__all__ = ["SOURCES", "Reader", "kind_of"]

Reader: TypeAlias = "Callable[[Blob], Iterator[Row]]"

SOURCES: Registry[Reader] = Registry("file type", code="E-DATA-006")
SOURCES.add("json", "tunesmith.data.sources.json_files:read_json")
SOURCES.add("jsonl", "tunesmith.data.sources.json_files:read_jsonl")
SOURCES.add("csv", "tunesmith.data.sources.tables:read_csv")
SOURCES.add("tsv", "tunesmith.data.sources.tables:read_tsv")
SOURCES.add("parquet", "tunesmith.data.sources.tables:read_parquet")
SOURCES.add("arrow", "tunesmith.data.sources.tables:read_arrow")
SOURCES.add("txt", "tunesmith.data.sources.text_files:read_txt")

_OTHER_ENDINGS = {".ndjson": "jsonl", ".text": "txt", ".feather": "arrow"}
# Endings that say that a file is packed; whether it is, its content says.
_PACKED_ENDINGS = {".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".lz4", ".zip"}


def kind_of(name: str) -> str | None:
    """The kind that the ending of a file's name tells (of `x.csv.gz`: csv), None where it tells none."""
    file, _, member = name.partition("!")
    if member and (kind := kind_of(member)):
        return kind
    path = PurePath(file)
    ending = (PurePath(path.stem) if path.suffix.lower() in _PACKED_ENDINGS else path).suffix.lower()
    kind = _OTHER_ENDINGS.get(ending, ending.lstrip("."))
    return kind if kind in SOURCES else None
