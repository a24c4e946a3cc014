"""What is printed when the fault is ours: a short block, and a traceback in a file that can be sent."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tunesmith._version import __version__
from tunesmith.core import env
from tunesmith.core.errors import BUG
from tunesmith.core.secrets import redact_words

__all__ = ["BUG_CODE", "report_bug"]

BUG_CODE = "E-CLI-070"


def report_bug(error: BaseException, words: Sequence[str], debug: bool) -> int:
    """Say that this is a bug in Tunesmith, with the traceback in a file (or here with `debug`). Returns 70."""
    text = "".join(traceback.format_exception(error))
    path = None if debug else _write(text, words)
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if path is None:
        print(text, file=sys.stderr, end="")
    print(f"error[{BUG_CODE}]: this is a bug in Tunesmith", file=sys.stderr)
    print(f"  got:   {type(error).__name__}{': ' + first[:200] if first else ''}", file=sys.stderr)
    if path is not None:
        print(f"  trace: {path}", file=sys.stderr)
    print("  fix:   report it with the traceback and the output of `tunesmith env`", file=sys.stderr)
    print(f"more:  tunesmith explain {BUG_CODE}", file=sys.stderr)
    return BUG


def _write(text: str, words: Sequence[str]) -> Path | None:
    """The traceback with what was run, in the cache folder or else the folder for temporary files."""
    command = " ".join(["tunesmith", *redact_words(words)])
    head = f"tunesmith {__version__}, Python {platform.python_version()}, {platform.platform()}\n$ {command}\n\n"
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    for folder in (env.cache_dir() / "crashes", Path(tempfile.gettempdir())):
        path = folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(head + text, encoding="utf-8")
        except OSError:
            continue
        return path
    return None
