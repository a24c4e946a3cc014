"""Where rows come from: one file per kind of file, one line in SOURCES, and `local` to list and read paths.

A source is a function from a path to an iterator of `Row`s. It knows nothing of what the columns mean.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from tunesmith.core.registry import Registry
from tunesmith.data.rows import Row

__all__ = ["SOURCES", "Reader"]

Reader = Callable[[Path], Iterator[Row]]

SOURCES: Registry[Reader] = Registry("file type", code="E-DATA-006")
SOURCES.add("json", "tunesmith.data.sources.json_files:read_json")
SOURCES.add("jsonl", "tunesmith.data.sources.json_files:read_jsonl")
SOURCES.add("csv", "tunesmith.data.sources.tables:read_csv")
SOURCES.add("tsv", "tunesmith.data.sources.tables:read_tsv")
SOURCES.add("parquet", "tunesmith.data.sources.tables:read_parquet")
SOURCES.add("arrow", "tunesmith.data.sources.tables:read_arrow")
SOURCES.add("txt", "tunesmith.data.sources.text_files:read_txt")
