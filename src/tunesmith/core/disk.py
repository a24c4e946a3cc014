"""What a disk says that does not take data, in words for people."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path
from typing import Any

__all__ = ["free_at", "parse_size", "refusal", "size_text"]

_REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EIO: "the disk reports an error",
    errno.EROFS: "the disk can only be read",
    errno.EFBIG: "the file is larger than the system allows",
}
_IN_WORDS = re.compile(r"os error (\d+)")  # safetensors and tokenizers say the number so


def refusal(error: BaseException) -> str | None:
    """What the disk said, where the error is one of the disk; else None."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (found := _IN_WORDS.search(str(error))):
        number = int(found.group(1))
    return None if number is None else _REFUSALS.get(number)


def free_at(where: Any) -> str | None:
    """How much is free where this path is, or would be; None for no path."""
    folder = None if where is None else Path(where).absolute()
    while folder is not None and not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return None if folder is None else f"{size_text(shutil.disk_usage(folder).free)} free"


def size_text(number: float) -> str:
    return f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"


def parse_size(text: str) -> int:
    """`5GB`, `500MB`, `5` (GB) in bytes. Raises ValueError for what is none, or not positive."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)\s*(kb|mb|gb)?", text.strip().lower())
    if match is None or not (size := int(float(match[1]) * {"kb": 1e3, "mb": 1e6, "gb": 1e9}[match[2] or "gb"])):
        raise ValueError(text)
    return size
