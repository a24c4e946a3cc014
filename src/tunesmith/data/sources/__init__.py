"""Where rows come from: `open_source` lists the files of a dataset, a reader for each kind of file gives their rows.

A reader is a function from a `Blob` (bytes that can be opened) to an iterator of `Row`s; it holds a bounded part of
the file and knows nothing of what the columns mean. One module per family of kinds, one line in SOURCES.
"""

from tunesmith.data.sources.base import Blob, SourceFile
from tunesmith.data.sources.kinds import SOURCES
from tunesmith.data.sources.opening import open_source

__all__ = ["SOURCES", "Blob", "SourceFile", "open_source"]
