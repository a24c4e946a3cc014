"""Is a checkpoint whole? A run that was killed, or a disk that was full, while it was written leaves a torn one."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

__all__ = ["STATE", "what_is_torn"]

STATE = "trainer_state.json"
_WEIGHTS = ("adapter_model*", "model*.safetensors", "pytorch_model*")
_LONGEST_HEADER = 100 * 2**20  # the limit of safetensors itself


def what_is_torn(folder: Path) -> str | None:
    """The first file of a checkpoint that is missing or cut off, in words; None for a whole checkpoint.

    Only beginnings and ends of files are looked at, so that this takes no time for a large model.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{STATE} is missing or cut off"
    if not isinstance(state, dict) or not isinstance(state.get("global_step"), int):
        return f"{STATE} tells no step"
    if not any(found for pattern in _WEIGHTS for found in folder.glob(pattern)):
        return "it holds no weights"
    for file in sorted(folder.glob("*.safetensors")):
        if not _whole_safetensors(file):
            return f"{file.name} is cut off"
    for pattern in ("*.pt", "*.pth", "*.bin"):
        for file in sorted(folder.glob(pattern)):
            if not zipfile.is_zipfile(file):  # as torch.save writes them: the table of contents is at the end
                return f"{file.name} is cut off"
    return None


def _whole_safetensors(file: Path) -> bool:
    """True if the file is as long as its header says."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        if length > min(_LONGEST_HEADER, file.stat().st_size):
            return False
        try:
            header = json.loads(handle.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return False
    return file.stat().st_size == 8 + length + max(ends, default=0)
