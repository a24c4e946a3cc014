"""From a dataset's specification to its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.sources.base import SourceFile
from tunesmith.data.sources.local import local_files

if TYPE_CHECKING:
    from tunesmith.data.spec import DatasetSpec

__all__ = ["open_source"]


def open_source(spec: DatasetSpec, *, offline: bool = False, streaming: bool = False) -> Sequence[SourceFile]:
    """The files of a dataset in the order in which they are read.

    What is remote is fetched into a cache once; with `streaming` it is read where it lies, while rows are asked for
    (a dataset of ModelScope or openMind is fetched all the same). `offline` touches no network.

    Raises MissingInputError (E-DATA-020 no such file, E-DATA-041 offline and not fetched), UnavailableError
    (E-DATA-040), MachineError (E-DATA-042), else DataError; all problems at once.
    """
    files = _open(spec, offline, streaming)
    if spec.field is not None:
        if unfit := [file.name for file in files if file.kind != "json"]:
            fix = "leave field out, or say file_type: json"
            what = "`field` names a key of a .json file that holds one object"
            raise DataError(Problem("E-DATA-007", what, where=unfit[0], fix=fix))
        files = [SourceFile(file.blob, file.kind, spec.field) for file in files]
    return files


def _open(spec: DatasetSpec, offline: bool, streaming: bool) -> list[SourceFile]:
    if spec.place == "file":
        return _local(spec)
    # Modules for remote places are imported where they are needed: most runs read local files.
    if spec.place == "url":
        from tunesmith.data.sources.remote import open_addresses

        return open_addresses(spec, offline=offline, streaming=streaming)
    from tunesmith.data.sources.hub import open_other_hub, open_repository

    if spec.place == "hf":
        return open_repository(spec, offline=offline, streaming=streaming)
    return open_other_hub(spec, offline=offline)


def _local(spec: DatasetSpec) -> list[SourceFile]:
    path = spec.path.expanduser()
    if path.is_dir() and (spec.subset or spec.split or spec.folder):
        from tunesmith.data.sources.hub import folder_sources

        return folder_sources(path, spec, spec.location)
    files = local_files(path, spec.file_type)
    if spec.split not in (None, "train"):
        fix = "name the file of that split"
        raise DataError(Problem("E-DATA-044", f'split "{spec.split}" of a single file', where=spec.location, fix=fix))
    return files
