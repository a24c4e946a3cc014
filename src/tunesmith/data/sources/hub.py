"""Datasets of the hubs. Of a repository of the Hugging Face hub only the files of the subset and split are fetched, at
one commit; a repository of ModelScope or openMind is fetched whole."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from tunesmith.core import env
from tunesmith.core.errors import MissingInputError, Problem, TunesmithError, UnavailableError
from tunesmith.core.log import get_logger
from tunesmith.data.sources.base import Blob, LocalFile, SourceFile
from tunesmith.data.sources.decode import BLOCK
from tunesmith.data.sources.digests import write_whole
from tunesmith.data.sources.layout import Wanted, choose
from tunesmith.data.sources.local import as_sources
from tunesmith.data.sources.packed import MAGIC_LENGTH, unpacked
from tunesmith.hubs import HUB_NAMES, download

if TYPE_CHECKING:
    from tunesmith.data.spec import DatasetSpec

__all__ = ["fetch_file", "folder_sources", "open_files", "open_other_hub", "open_repository"]

README = "README.md"


@dataclass(frozen=True, slots=True)
class _Commit:
    """The files of a repository at one commit."""

    repository: str
    sha: str
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of the Hugging Face hub at a commit: copied into the hub's cache (`path`), or read where it lies."""

    repository: str
    sha: str
    file: str
    path: Path | None = None

    @property
    def name(self) -> str:
        return f"hf://datasets/{self.repository}/{self.file}"

    def open(self) -> BinaryIO:
        if self.path is not None:
            return self.path.open("rb")
        from huggingface_hub import HfFileSystem

        system = HfFileSystem(endpoint=_endpoint())
        place = f"datasets/{self.repository}@{self.sha}/{self.file}"
        try:
            return cast(BinaryIO, system.open(place, "rb", block_size=BLOCK))
        except Exception as error:
            raise _explained(self.repository, error) from error

    def digest(self) -> str:
        return f"{self.name}@{self.sha}"


def open_repository(spec: DatasetSpec, *, offline: bool, streaming: bool) -> list[SourceFile]:
    """The files of a dataset of the Hugging Face hub.

    Raises MissingInputError (E-DATA-020; E-DATA-041 offline), DataError (E-DATA-043, E-DATA-044), UnavailableError
    (E-DATA-040).
    """
    offline = offline or env.get_bool("HF_HUB_OFFLINE")
    commit = _commit(spec.location, spec.revision, offline)
    wanted = Wanted(f"hf://datasets/{spec.location}", spec.subset, spec.split, spec.folder, spec.files)
    readme = _fetch(commit, [README], offline)[0].read_text("utf-8", "replace") if README in commit.files else None
    names = choose(commit.files, readme, wanted)
    paths: Sequence[Path | None] = [None] * len(names) if streaming and not offline else _fetch(commit, names, offline)
    blobs: list[Blob] = []
    for name, path in zip(names, paths, strict=True):
        blob = HubFile(commit.repository, commit.sha, name, path)
        with blob.open() as stream:
            blobs += unpacked(blob, stream.read(MAGIC_LENGTH))
    return as_sources(blobs, wanted.name, spec.file_type)


def open_other_hub(spec: DatasetSpec, *, offline: bool) -> list[SourceFile]:
    """The files of a dataset of ModelScope or openMind."""
    if offline:
        what = f"offline, and whether {HUB_NAMES[spec.place]} has changed the dataset cannot be asked"
        fix = "name the folder in its cache: path/to/the/dataset"
        raise MissingInputError(Problem("E-DATA-041", what, where=spec.location, fix=fix))
    folder = download(spec.place, spec.location, spec.revision or "main", None, kind="dataset")
    return folder_sources(Path(folder), spec, spec.location)


def folder_sources(folder: Path, spec: DatasetSpec, name: str) -> list[SourceFile]:
    """The files of a subset and split in a folder that is laid out like a repository."""
    paths = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    readme = folder / README
    text = readme.read_text("utf-8", "replace") if readme.is_file() else None
    names = choose(paths, text, Wanted(name, spec.subset, spec.split, spec.folder, spec.files))
    blobs: list[Blob] = []
    for one in names:
        blob = LocalFile(folder / one, f"{name}/{one}")
        with blob.open() as stream:
            blobs += unpacked(blob, stream.read(MAGIC_LENGTH))
    return as_sources(blobs, name, spec.file_type)


def fetch_file(repository: str, file: str, *, offline: bool, revision: str | None = None) -> Path:
    """One file of a dataset of the Hugging Face hub, as a file on this machine."""
    offline = offline or env.get_bool("HF_HUB_OFFLINE")
    commit = _commit(repository, revision, offline)
    if file not in commit.files:
        raise MissingInputError(Problem("E-DATA-020", f'no file "{file}"', where=f"hf://datasets/{repository}"))
    return _fetch(commit, [file], offline)[0]


def open_files(
    repository: str, choose: Callable[[Sequence[str]], Sequence[str]], *, offline: bool, again: bool = False
) -> list[Blob]:
    """Files of a dataset of the Hugging Face hub, by a choice among their names; of archives, what is in them.
    `again`: fetched also where the cache holds them. Raises what `open_repository` raises."""
    offline = offline or env.get_bool("HF_HUB_OFFLINE")
    commit = _commit(repository, None, offline)
    names = choose(commit.files)
    blobs: list[Blob] = []
    for name, path in zip(names, _fetch(commit, names, offline, again=again), strict=True):
        blob = HubFile(commit.repository, commit.sha, name, path)
        with blob.open() as stream:
            blobs += unpacked(blob, stream.read(MAGIC_LENGTH))
    return blobs


def _endpoint() -> str | None:
    return env.get("HF_ENDPOINT") or None


# --- which commit ---


def _commit(repository: str, revision: str | None, offline: bool) -> _Commit:
    """The commit that a revision is now; offline, or where the hub does not answer, the one that it was last."""
    if offline:
        return _last_commit(repository, revision)
    from huggingface_hub import HfApi

    try:
        found = HfApi(endpoint=_endpoint()).dataset_info(repository, revision=revision, timeout=30)
    except Exception as error:
        problem = _explained(repository, error)
        if isinstance(problem, UnavailableError):
            try:
                commit = _last_commit(repository, revision)
            except TunesmithError:
                raise problem from error
            get_logger().warning("the hub does not answer: %s is read as it was fetched last", repository)
            return commit
        raise problem from error
    commit = _Commit(repository, str(found.sha), tuple(sorted(one.rfilename for one in found.siblings or ())))
    write_whole(_memo(repository, revision), json.dumps({"sha": commit.sha, "files": commit.files}))
    return commit


def _memo(repository: str, revision: str | None) -> Path:
    name = f"{repository}@{revision or 'main'}".replace("/", "--")
    return env.data_cache_dir() / "hub" / f"{name}.json"


def _last_commit(repository: str, revision: str | None) -> _Commit:
    """What is known without asking: what the hub said last, or a copy fetched with the hub's own tools."""
    memo = _memo(repository, revision)
    if memo.is_file():
        known = json.loads(memo.read_text("utf-8"))
        return _Commit(repository, known["sha"], tuple(known["files"]))
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, repo_type="dataset", revision=revision, local_files_only=True))
    except Exception as error:
        raise MissingInputError(_not_fetched(repository, revision, ())) from error
    files = tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()))
    return _Commit(repository, folder.name, files)


def _fetch(commit: _Commit, files: Sequence[str], offline: bool, *, again: bool = False) -> list[Path]:
    """The files of a commit in the hub's cache, fetched where they are not there, or are asked for `again`."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    paths: dict[str, Path] = {}
    for file in files:
        known: Any = try_to_load_from_cache(commit.repository, file, revision=commit.sha, repo_type="dataset")
        if isinstance(known, str):
            paths[file] = Path(known)
    missing = [file for file in files if file not in paths or (again and not offline)]
    if missing and offline:
        raise MissingInputError(_not_fetched(commit.repository, commit.sha, missing))
    for file in missing:
        try:
            path = hf_hub_download(
                commit.repository,
                file,
                repo_type="dataset",
                revision=commit.sha,
                endpoint=_endpoint(),
                force_download=again,
            )
        except Exception as error:
            raise _explained(commit.repository, error) from error
        paths[file] = Path(path)
    return [paths[file] for file in files]


def _not_fetched(repository: str, revision: str | None, files: Sequence[str]) -> Problem:
    listed = " ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    what = "offline, and the dataset was not fetched before" if not files else f"offline, and not fetched: {listed}"
    at = f" --revision {revision}" if revision else ""
    names = "".join(f" {file}" for file in files[:3])
    fix = f"where there is a network: hf download {repository}{names} --repo-type dataset{at}"
    return Problem("E-DATA-041", what, where=f"hf://datasets/{repository}", fix=fix)


def _explained(repository: str, error: Exception) -> TunesmithError:
    """The error of the hub's library as ours; all of its many kinds, and those of the network."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, TunesmithError):
        return error
    where, got = f"hf://datasets/{repository}", (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, GatedRepoError):
        fix = "ask for access on its page, and set HF_TOKEN"
        return UnavailableError(Problem("E-DATA-040", "the owner gives this dataset on request only", where, got, fix))
    if isinstance(error, RevisionNotFoundError):
        return MissingInputError(Problem("E-DATA-020", "there is no such revision", where=where, got=got))
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        fix = "check the name; a private dataset needs HF_TOKEN; a local file is named by its path"
        what = "neither a path nor a dataset of the hub"
        return MissingInputError(Problem("E-DATA-020", what, where=where, got=got, fix=fix))
    fix = "check the network, or set offline: true to use what was fetched before"
    return UnavailableError(Problem("E-DATA-040", "the hub does not give this dataset", where, got, fix))
