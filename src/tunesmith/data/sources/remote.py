"""Files at addresses: http(s) by the standard library, s3, gs and all others by fsspec.

A file is copied into the cache once and read from there; with `streaming` it is read where it lies, in parts.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlsplit

from tunesmith.core import env
from tunesmith.core.errors import (
    DataError,
    MachineError,
    MissingInputError,
    Problem,
    TunesmithError,
    UnavailableError,
)
from tunesmith.core.suggest import did_you_mean
from tunesmith.data.sources import http
from tunesmith.data.sources.base import Blob, LocalFile, SourceFile
from tunesmith.data.sources.decode import BLOCK
from tunesmith.data.sources.digests import write_whole
from tunesmith.data.sources.fetch import fetch
from tunesmith.data.sources.local import as_sources, is_pattern
from tunesmith.data.sources.packed import MAGIC_LENGTH, unpacked

if TYPE_CHECKING:
    from tunesmith.data.spec import DatasetSpec

__all__ = ["RemoteFile", "open_addresses"]

T = TypeVar("T")
# Scheme -> (what anonymous access is called there, the package that fsspec needs, our extra that has it).
_CLOUDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "s3": ({"anon": True}, "s3fs", "s3"),
    "s3a": ({"anon": True}, "s3fs", "s3"),
    "gs": ({"token": "anon"}, "gcsfs", "gcs"),
    "gcs": ({"token": "anon"}, "gcsfs", "gcs"),
}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file that is read where it lies. `version` changes when the file does; None where nothing tells."""

    name: str
    version: str | None
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def path(self) -> Path | None:
        return None

    def open(self) -> BinaryIO:
        if _is_http(self.name):
            return http.open_address(self.name)
        system, path = _system(self.name, dict(self.options))
        return cast(BinaryIO, _told(self.name, lambda: system.open(path, "rb", block_size=BLOCK)))

    def digest(self) -> str:
        return f"{self.name}@{self.version or time.time_ns()}"


def open_addresses(spec: DatasetSpec, *, offline: bool, streaming: bool) -> list[SourceFile]:
    """The files at the address of a dataset: itself, what matches its pattern, or what lies in the folder.

    Raises MissingInputError (E-DATA-020; E-DATA-041 offline), UnavailableError (E-DATA-040), MachineError (E-DATA-042).
    """
    if offline:
        found: Sequence[Blob] = _remembered(spec.location)
    else:
        remote = _list(spec.location)
        found = remote if streaming else [_kept(file) for file in remote]
        if not streaming:
            _remember(spec.location, remote)
    blobs: list[Blob] = []
    for blob in found:
        with blob.open() as stream:
            blobs += unpacked(blob, stream.read(MAGIC_LENGTH))
    return as_sources(blobs, spec.location, spec.file_type, path_of=_path_of)


def _is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


def _path_of(url: str) -> str:
    """The path of an address, without what follows a `?`: its ending tells the kind of the file."""
    return unquote(urlsplit(url).path) if _is_http(url) else url


def _list(url: str) -> list[RemoteFile]:
    if _is_http(url):
        return [RemoteFile(url, http.info(url)["version"])]
    scheme = url.split("://", 1)[0]
    tried = [_CLOUDS[scheme][0], {}] if scheme in _CLOUDS else [{}]
    problems: list[TunesmithError] = []
    for options in tried:  # anonymous first: a public file needs no account, and a wrong one would be refused
        try:
            system, path = _system(url, options)
            return _told(url, lambda: _files(system, path, url, options))  # noqa: B023 - called at once
        except (UnavailableError, MissingInputError) as error:
            problems.append(error)
    raise problems[-1]


def _files(system: Any, path: str, url: str, options: dict[str, Any]) -> list[RemoteFile]:
    if is_pattern(path) and not system.exists(path):
        paths = sorted(one for one in system.glob(path) if not system.isdir(one))
        what = "no file matches the pattern"
    elif system.isdir(path):
        paths = sorted(one for one in system.ls(path, detail=False) if not system.isdir(one))
        paths = [one for one in paths if not one.rsplit("/", 1)[-1].startswith(".")]
        what = "the folder holds no files"
    else:
        paths, what = [path], ""
    if not paths:
        raise MissingInputError(Problem("E-DATA-020", what, where=url))
    return [
        RemoteFile(url if one == path else system.unstrip_protocol(one), str(system.ukey(one)), tuple(options.items()))
        for one in paths
    ]


def _system(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """(file system of fsspec, path in it). Raises MachineError where a package is missing."""
    import fsspec

    scheme = url.split("://", 1)[0]
    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url, **options))
    except ImportError as error:
        package, extra = _CLOUDS[scheme][1:] if scheme in _CLOUDS else (str(error), "")
        fix = f"pip install {package}" + (f", or tunesmith[{extra}]" if extra else "")
        what = f"{scheme}:// needs the package {package}"
        raise MachineError(Problem("E-DATA-042", what, where=url, fix=fix)) from error
    except ValueError as error:
        known = ["http", "https", *fsspec.available_protocols()]
        fix = did_you_mean(scheme, known) or "s3://, gs://, https:// and other places that fsspec knows"
        raise DataError(Problem("E-DATA-021", f'no place is called "{scheme}://"', where=url, fix=fix)) from error
    except Exception as error:
        raise _explained(url, error) from error


def _told(url: str, work: Callable[[], T]) -> T:
    """`work` with the errors of a cloud's library, which are of many kinds, as problems."""
    try:
        return work()
    except Exception as error:
        raise _explained(url, error) from error


def _explained(url: str, error: Exception) -> TunesmithError:
    if isinstance(error, TunesmithError):
        return error
    if isinstance(error, FileNotFoundError):
        return MissingInputError(Problem("E-DATA-020", "there is no such file", where=url))
    got = str(error).strip() or type(error).__name__
    fix = "check the address, the network and your access"
    return UnavailableError(Problem("E-DATA-040", "the file cannot be read", url, got, fix))


# --- copies in the cache: data/files/<address>/<version>/<name>, and what each location stood for ---


def _kept(file: RemoteFile) -> Blob:
    """The copy of a remote file, fetched unless this version of it is there."""
    target = _target(file.name, file.version)

    def read(stream: BinaryIO, most: int) -> bytes:
        return _told(file.name, lambda: stream.read(most))

    if file.version is None or not target.is_file():
        fetch(file.name, file.open, read, target, again=file.version is None)
    return LocalFile(target, file.name)


def _remember(location: str, files: Sequence[RemoteFile]) -> None:
    write_whole(_listing(location), json.dumps([[file.name, file.version] for file in files]))


def _remembered(location: str) -> list[Blob]:
    """The copies of what a location stood for when it was last asked. Raises MissingInputError (E-DATA-041)."""
    listing = _listing(location)
    names = json.loads(listing.read_text("utf-8")) if listing.is_file() else []
    found = [LocalFile(_target(name, version), name) for name, version in names]
    missing = [file.name for file in found if not file.path.is_file()] if found else [location]
    if missing:
        fix = "run once without offline, or get the file by hand and name it"
        what = "offline, and this file was not fetched before"
        raise MissingInputError([Problem("E-DATA-041", what, where=name, fix=fix) for name in missing])
    return list(found)


def _target(name: str, version: str | None) -> Path:
    return _files_folder() / _hash(name) / _hash(version or "") / _safe_name(name)


def _listing(location: str) -> Path:
    return _files_folder() / "listings" / f"{_hash(location)}.json"


def _files_folder() -> Path:
    return env.data_cache_dir() / "files"


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _safe_name(url: str) -> str:
    """The last part of an address as the name of a file, for people who look into the cache."""
    return re.sub(r"[^\w.-]", "_", _path_of(url).rsplit("/", 1)[-1]).lstrip(".")[-80:] or "file"
