"""Printing: JSON for scripts, secrets blacked out, and whether a stream is a terminal with colours."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from tunesmith.core import env
from tunesmith.core.errors import OutputError, Problem

__all__ = [
    "has_colour",
    "is_secret",
    "is_terminal",
    "print_json",
    "redact",
    "redact_words",
    "table_lines",
    "write_page",
]

HIDDEN = "***"
_SECRET = re.compile(r"(^|_)(token|api_key|key|secret|password|sk|webhook_url)$", re.IGNORECASE)


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


def is_secret(key: str) -> bool:
    """Whether a key or variable of this name holds something that must not be printed."""
    return _SECRET.search(key) is not None


def redact(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same mapping with the values of secret keys hidden, at any depth."""
    return {
        key: HIDDEN if value and is_secret(key) else redact(value) if isinstance(value, Mapping) else value
        for key, value in values.items()
    }


def redact_words(words: Sequence[str]) -> list[str]:
    """The words of a command line with the values of secret keys hidden: `key=value` and `--key value`."""
    safe: list[str] = []
    hide_next = False
    for word in words:
        key, equals, _ = word.partition("=")
        secret = is_secret(key.lstrip("-").replace("-", "_"))
        safe.append(HIDDEN if hide_next else f"{key}={HIDDEN}" if equals and secret else word)
        hide_next = secret and not equals and word.startswith("--")
    return safe


def is_terminal(stream: TextIO) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())


def has_colour(stream: TextIO) -> bool:
    """A terminal whose user has not asked for no colour (https://no-color.org)."""
    return is_terminal(stream) and not env.get("NO_COLOR")


def table_lines(rows: Mapping[str, Any], indent: str = "") -> list[str]:
    """`name   value` lines with the values in one column."""
    width = max((len(name) for name in rows), default=0)
    return [f"{indent}{name:<{width}}  {value}".rstrip() for name, value in rows.items()]
