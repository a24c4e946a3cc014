"""From a dataset's specification to its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.sources.base import SourceFile
from tunesmith.data.sources.local import local_files

if TYPE_CHECKING:
    from tunesmith.data.dataset_info import DatasetSpec

__all__ = ["open_source"]


def open_source(spec: DatasetSpec, *, offline: bool = False) -> Sequence[SourceFile]:
    """The files of a dataset in the order in which they are read.

    Raises MissingInputError (E-DATA-020) where there is no such file, else DataError, with all problems at once.
    """
    return local_files(spec.path)
