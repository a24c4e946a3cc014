"""Reading a folder of torch.distributed.checkpoint without letting it run anything.

Its `.metadata` is a pickle, and torch's reader loads it as one: whoever wrote the folder could run any program. Here it
may only name the classes that such metadata consists of. The tensors themselves torch reads with `weights_only`.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader, Metadata

__all__ = ["MetadataRefused", "SafeReader", "read_metadata"]

_METADATA = "torch.distributed.checkpoint.metadata"
# Module -> names. None of them does more, called or restored from a state, than to hold values.
_ALLOWED: dict[str, frozenset[str]] = {
    _METADATA: frozenset(
        {
            "BytesStorageMetadata",
            "ChunkStorageMetadata",
            "Metadata",
            "MetadataIndex",
            "StorageMeta",
            "TensorProperties",
            "TensorStorageMetadata",
            "_MEM_FORMAT_ENCODING",
        }
    ),
    "torch.distributed.checkpoint.filesystem": frozenset({"_StorageInfo"}),
    "torch": frozenset({"Size", *(name for name in dir(torch) if isinstance(getattr(torch, name), torch.dtype))}),
    "torch.serialization": frozenset({"_get_layout"}),  # torch.layout, by name
    "collections": frozenset({"OrderedDict", "defaultdict"}),
    **dict.fromkeys(("pathlib", "pathlib._local"), frozenset({"Path", "PosixPath", "PurePosixPath"})),  # since 3.13
}


class MetadataRefused(Exception):
    """The metadata names something that it must not, or is no metadata."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _ALLOWED.get(module, ()):
            raise MetadataRefused(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_metadata(folder: Path) -> Metadata:
    """What a checkpoint folder holds. Raises MetadataRefused, OSError where it cannot be read."""
    with (folder / ".metadata").open("rb") as file:
        try:
            found = _Unpickler(file).load()
        except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise MetadataRefused(f"it cannot be read: {error}") from error
    if not isinstance(found, Metadata) or not isinstance(found.state_dict_metadata, dict):
        raise MetadataRefused(f"it holds a {type(found).__name__}")
    for place in (found.storage_data or {}).values():
        path = Path(str(place.relative_path))
        if path.is_absolute() or ".." in path.parts:
            raise MetadataRefused(f"it points out of the folder: {path}")
    return found


class SafeReader(FileSystemReader):
    """torch's reader of such folders, with the metadata that `read_metadata` gave."""

    def __init__(self, folder: Path, metadata: Metadata) -> None:
        super().__init__(folder)
        self._known = metadata

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._known
