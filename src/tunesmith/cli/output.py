"""Printing: JSON for scripts, and whether a stream is a terminal with colours."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from tunesmith.core import env
from tunesmith.core.errors import OutputError, Problem

__all__ = [
    "file_size",
    "has_colour",
    "is_terminal",
    "print_json",
    "table_lines",
    "write_page",
]


def print_json(value: Any) -> None:
    """One indented JSON document on standard output; what JSON does not know is written as text."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, default=str)
    sys.stdout.write("\n")


def write_page(file: str, page: str) -> None:
    """Write a page and say where on standard error. Raises OutputError where that cannot be."""
    path = Path(file).expanduser()
    try:
        path.write_text(page, encoding="utf-8", errors="replace", newline="\n")
    except OSError as error:
        what = f"the page cannot be written: {error.strerror}"
        raise OutputError(Problem("E-CLI-006", what, str(path), fix="name a file in a folder that exists")) from error
    print(f"written: {path}", file=sys.stderr)


def is_terminal(stream: TextIO) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())


def has_colour(stream: TextIO) -> bool:
    """A terminal whose user has not asked for no colour (https://no-color.org)."""
    return is_terminal(stream) and not env.get("NO_COLOR")


def table_lines(rows: Mapping[str, Any], indent: str = "") -> list[str]:
    """`name   value` lines with the values in one column."""
    width = max((len(name) for name in rows), default=0)
    return [f"{indent}{name:<{width}}  {value}".rstrip() for name, value in rows.items()]


def file_size(number: float) -> str:
    """Bytes for people: `1.5 kB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
