"""What must not be printed or kept: values of keys, options and variables whose names say that they are secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["HIDDEN", "is_secret", "redact", "redact_words"]

HIDDEN = "***"
_SECRET = re.compile(r"(^|_)(token|api_key|key|secret|password|sk|webhook_url)$", re.IGNORECASE)


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
