"""What must not be printed or kept: values of keys, options and variables whose names say that they are secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["HIDDEN", "hide_in_addresses", "is_secret", "redact", "redact_words"]

HIDDEN = "***"
_SECRET = re.compile(r"(^|_)(token|api_key|key|secret|password|sk|webhook_url)$", re.IGNORECASE)

_LOGIN = re.compile(r"(?<=://)[^/\s@\"']+@")
_PARAMETER = re.compile(
    r"(?<=[?&])((?:[\w.-]*(?:token|key|secret|password|signature|credential)|sig|sk)=)[^&\s\"'#]+", re.IGNORECASE
)


def hide_in_addresses(text: str) -> str:
    """The same text without logins and secret parameters of addresses: `https://***@host/file?token=***`."""
    if "://" not in text:
        return text
    return _PARAMETER.sub(rf"\1{HIDDEN}", _LOGIN.sub(f"{HIDDEN}@", text))


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
