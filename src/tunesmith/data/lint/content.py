"""Checks of what texts hold: control tokens, keys and addresses, characters that are broken or not what they seem."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from tunesmith.data.lint.base import Context, Hit, LintRow
from tunesmith.data.lint.redact import find_addresses, find_secrets
from tunesmith.data.lint.texts import excerpt

__all__ = ["addresses", "control_characters", "control_tokens", "not_composed", "replacement_characters", "secrets"]

# What a terminal or a reader of files takes for a command; tab, line feed and carriage return are text.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
# UTF-8 that was read as Latin-1 or Windows-1252: é has become Ã©, ’ has become â€™.
_MOJIBAKE = re.compile(r"Ã[\x80-\xbf€‚ƒ„…†‡ˆ‰‹‘’“”•–—™š›œž]|Â[\x80-\x9f\xa0-\xbf]|â€[\x80-\xbf™œ˜“”¦]|ï»¿")


def control_tokens(row: LintRow, context: Context) -> Iterator[Hit]:
    assert context.control is not None, "a check that needs tokens"
    if row.example.trusted_markup:
        return
    for text in row.texts:
        for start, _end, token in context.control.find(text):
            yield Hit(excerpt(text, start), token.content)


def secrets(row: LintRow, context: Context) -> Iterator[Hit]:
    for text in row.texts:
        for secret in find_secrets(text):
            yield Hit(excerpt(text, secret.start), secret.kind)


def addresses(row: LintRow, context: Context) -> Iterator[Hit]:
    for text in row.texts:
        for address in find_addresses(text):
            yield Hit(excerpt(text, address.start))


def control_characters(row: LintRow, context: Context) -> Iterator[Hit]:
    for text in row.texts:
        for match in _CONTROL.finditer(text):
            name = "NUL" if match.group() == "\0" else f"U+{ord(match.group()):04X}"
            yield Hit(excerpt(text, match.start()), name)


def not_composed(row: LintRow, context: Context) -> Iterator[Hit]:
    for text in row.texts:
        if not text.isascii() and not unicodedata.is_normalized("NFC", text):
            composed = unicodedata.normalize("NFC", text)
            at = next((i for i, (a, b) in enumerate(zip(text, composed, strict=False)) if a != b), 0)
            yield Hit(excerpt(text, at))


def replacement_characters(row: LintRow, context: Context) -> Iterator[Hit]:
    for text in row.texts:
        if text.isascii():
            continue
        if (at := text.find("\ufffd")) >= 0:
            yield Hit(excerpt(text, at), "replacement character U+FFFD")
        if match := _MOJIBAKE.search(text):
            yield Hit(excerpt(text, match.start()), "UTF-8 read as Latin-1")
