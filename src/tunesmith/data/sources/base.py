"""A file of a dataset: bytes that can be opened, wherever they lie, and the rows in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from tunesmith.data.rows import Row
from tunesmith.data.sources.digests import digest_of_file
from tunesmith.data.sources.kinds import SOURCES

__all__ = ["Blob", "LocalFile", "SourceFile"]


class Blob(Protocol):
    """Bytes that can be opened any number of times. Implementations are frozen and can be sent to other processes."""

    @property
    def name(self) -> str:
        """What messages call it: the user's path or address; for a member of an archive `a.zip!b.jsonl`."""

    @property
    def path(self) -> Path | None:
        """The file that holds exactly these bytes, if there is one on this machine."""

    def open(self) -> BinaryIO: ...

    def digest(self) -> str:
        """The same text for the same bytes, another for others."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    path: Path
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", str(self.path))

    def open(self) -> BinaryIO:
        return self.path.open("rb")

    def digest(self) -> str:
        return digest_of_file(self.path)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a dataset. `kind` is a name of SOURCES. `field`: its rows lie under this key of one JSON object."""

    blob: Blob
    kind: str
    field: str | None = None

    @property
    def name(self) -> str:
        return self.blob.name

    def digest(self) -> str:
        """A fingerprint of the rows: of the file's bytes and of how they are read."""
        return ":".join([self.kind, *([self.field] if self.field else []), self.blob.digest()])

    def rows(self) -> Iterator[Row]:
        """All rows, read while they are asked for.

        Raises DataError where the file as a whole cannot be read on; a row that is faulty by itself is `Broken`, or is
        told by `parse`.
        """
        if self.field is None:
            return SOURCES.get(self.kind)(self.blob)
        from tunesmith.data.sources.json_files import read_json

        return read_json(self.blob, self.field)
