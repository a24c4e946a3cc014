"""Packed files, told by their first bytes and not by their names: gzip, zstd, bzip2, xz, lz4, and zip with its members.

Nothing is unpacked to disk and no member's name is used as a path. What swells like a bomb is refused.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.sources.base import Blob
from tunesmith.data.sources.decode import BLOCK

__all__ = ["MAGIC_LENGTH", "unpacked"]

MAGIC_LENGTH = 8
UNSUSPICIOUS = 100_000_000
"""Bytes that may come out of any file, however small it is."""
MOST_TIMES = 200
"""How many times its own size a packed file may hold beyond that. Text packs to a third or a twentieth; a bomb swells
a thousandfold and more."""
MOST_MEMBERS = 10_000


def unpacked(blob: Blob, head: bytes) -> Sequence[Blob]:
    """The blob itself, or the blobs in it where its first bytes (`head`) say that it is packed.

    Raises DataError E-DATA-005 where it cannot be unpacked.
    """
    if head.startswith(b"PK\x03\x04"):
        return _members(blob)
    if head.startswith(b"PK\x05\x06"):
        raise DataError(Problem("E-DATA-002", "the zip file holds no files", blob.name))
    if any(head.startswith(magic) for magic in _OPENERS):
        return [Packed(blob, next(magic for magic in _OPENERS if head.startswith(magic)))]
    return [blob]


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packed file holds. `magic` is a key of the table of methods."""

    inner: Blob
    magic: bytes

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def path(self) -> Path | None:
        return None

    def open(self) -> BinaryIO:
        inner = self.inner.open()
        method, opener = _OPENERS[self.magic]
        size = _size(inner)
        try:
            stream = opener(inner)
        except _DAMAGE as error:
            inner.close()
            raise DataError(_damaged(self.name, method, error)) from error
        return _guarded(stream, inner, self.name, method, size)

    def digest(self) -> str:
        return self.inner.digest()


@dataclass(frozen=True, slots=True)
class ZipMember:
    inner: Blob
    member: str

    @property
    def name(self) -> str:
        return f"{self.inner.name}!{''.join(sign if sign.isprintable() else '?' for sign in self.member)}"

    @property
    def path(self) -> Path | None:
        return None

    def open(self) -> BinaryIO:
        inner = self.inner.open()
        try:
            archive = zipfile.ZipFile(inner)
            info = archive.getinfo(self.member)
            stream = cast(BinaryIO, archive.open(info))
        except _DAMAGE as error:
            inner.close()
            raise DataError(_damaged(self.name, "zip", error)) from error
        return _guarded(stream, inner, self.name, "zip", info.compress_size)

    def digest(self) -> str:
        return f"{self.inner.digest()}!{self.member}"


def _members(blob: Blob) -> list[Blob]:
    """The files in a zip, without folders and hidden ones, by name."""
    inner = blob.open()
    try:
        with inner, zipfile.ZipFile(inner) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir() and not _hidden(info.filename)]
    except _DAMAGE as error:
        raise DataError(_damaged(blob.name, "zip", error)) from error
    if not infos:
        raise DataError(Problem("E-DATA-002", "the zip file holds no files", blob.name))
    if len(infos) > MOST_MEMBERS:
        what = f"the zip file holds {len(infos):,} files; {MOST_MEMBERS:,} are read at most"
        raise DataError(Problem("E-DATA-005", what, blob.name, fix="unpack it into a folder first"))
    if any(info.flag_bits & 1 for info in infos):
        raise DataError(Problem("E-DATA-005", "the zip file is encrypted", blob.name, fix="unpack it first"))
    names = [info.filename for info in infos]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise DataError(Problem("E-DATA-005", "the zip file holds two files of one name", blob.name, got=twice))
    return [ZipMember(blob, name) for name in sorted(names)]


def _hidden(name: str) -> bool:
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith(".")


def _standard(reader: Callable[[BinaryIO], Any]) -> Callable[[BinaryIO], BinaryIO]:
    return lambda stream: cast(BinaryIO, reader(stream))


def _arrow(method: str) -> Callable[[BinaryIO], BinaryIO]:
    def opener(stream: BinaryIO) -> BinaryIO:
        import pyarrow

        return cast(BinaryIO, pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, "r"), method))

    return opener


# First bytes -> (what messages call the method, what opens it).
_OPENERS: dict[bytes, tuple[str, Callable[[BinaryIO], BinaryIO]]] = {
    b"\x1f\x8b": ("gzip", lambda stream: cast(BinaryIO, gzip.GzipFile(fileobj=stream))),
    b"\x28\xb5\x2f\xfd": ("zstd", _arrow("zstd")),
    b"BZh": ("bzip2", _standard(bz2.BZ2File)),
    b"\xfd7zXZ\x00": ("xz", _standard(lzma.LZMAFile)),
    b"\x04\x22\x4d\x18": ("lz4", _arrow("lz4")),
}
# What the libraries raise for damaged files; pyarrow's own are OSError and ValueError. RuntimeError: a password.
_DAMAGE = (OSError, EOFError, ValueError, KeyError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


def _size(stream: BinaryIO) -> int | None:
    if not stream.seekable():
        return None
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    return size


def _damaged(name: str, method: str, error: Exception) -> Problem:
    got = str(error) or type(error).__name__
    return Problem("E-DATA-005", f"cannot be unpacked ({method})", where=name, got=got, fix="get the file again")


def _guarded(stream: BinaryIO, inner: BinaryIO, name: str, method: str, size: int | None) -> BinaryIO:
    return cast(BinaryIO, io.BufferedReader(_Guard(stream, inner, name, method, size), BLOCK))


class _Guard(io.RawIOBase):
    """Passes on what is unpacked, turns what goes wrong into problems, and counts."""

    def __init__(self, stream: BinaryIO, inner: BinaryIO, name: str, method: str, size: int | None) -> None:
        super().__init__()
        self._stream, self._inner = stream, inner
        self._name, self._method = name, method
        self._size, self._out = size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(len(buffer))
        except _DAMAGE as error:
            raise DataError(_damaged(self._name, self._method, error)) from error
        self._out += len(data)
        if self._size is not None and self._out > max(UNSUSPICIOUS, MOST_TIMES * self._size):
            what = f"{self._size:,} packed bytes swell to more than {self._out:,}: refused, it may be a bomb"
            raise DataError(Problem("E-DATA-005", what, where=self._name, fix="if it is meant, unpack it first"))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
            self._inner.close()
        super().close()
