"""Files that a run has saved, known by their sizes and SHA-256."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.checkpoints.store import entry_of

__all__ = ["difference", "final_files"]

_FINAL = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json", "generation_config.json")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def final_files(folder: Path) -> dict[str, dict[str, Any]]:
    """The weights that a run ends with, and what is needed to use them, by name."""
    found = {file for pattern in (*_FINAL, *_TOKENIZER) for file in folder.glob(pattern)}
    return {file.name: entry_of(file) for file in sorted(found)}


def difference(file: Path, entry: Mapping[str, Any]) -> str | None:
    """How a file differs from its entry, in words; None where it is the same."""
    try:
        now = entry_of(file) if file.stat().st_size == entry["size"] else {"size": file.stat().st_size}
    except FileNotFoundError:
        return "is missing"
    if now["size"] != entry["size"]:
        return f"has {now['size']:,} bytes, not {entry['size']:,}"
    return None if now["sha256"] == entry["sha256"] else "has other bytes than were saved"
