"""What single tokens say, and OpenAI's lists of their log probabilities."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from tunesmith.engines.base import Token

__all__ = ["TokenTexts", "chat_logprobs", "completion_logprobs"]

_LEAST = -9999.0
"""In place of minus infinity, which JSON has no word for."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenTexts:
    """The bytes of single tokens: a token may be a part of a character, which no text can show."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bytes] = {}

    def __call__(self, token: int) -> bytes:
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def _find(self, token: int) -> bytes:
        if (added := self._added.get(token)) is not None:
            return added.encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):  # the model's table is longer than the vocabulary
            return b""
        if self._byte_level is not None:
            return bytes(self._byte_level.get(char, 63) for char in piece)
        if match := _BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("\u2581", " ").encode()

    @cached_property
    def _added(self) -> dict[int, str]:
        return {number: str(token) for number, token in self._tokenizer.added_tokens_decoder.items()}

    @cached_property
    def _byte_level(self) -> dict[str, int] | None:
        """Which byte a character stands for, in vocabularies that write every byte as one."""
        spec = json.loads(self._tokenizer.backend_tokenizer.to_str())
        return _byte_characters() if '"ByteLevel"' in json.dumps(spec["decoder"]) else None


def _byte_characters() -> dict[str, int]:
    """GPT-2's: bytes that can be printed stand for themselves, the others for characters from U+0100 on, in order."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + index): byte for index, byte in enumerate(others)}


def _entry(texts: TokenTexts, token: int, logprob: float | None) -> dict[str, Any]:
    data = texts(token)
    return {"token": data.decode(errors="replace"), "logprob": _finite(logprob), "bytes": list(data)}


def _finite(logprob: float | None) -> float:
    return _LEAST if logprob is None else max(logprob, _LEAST)


def chat_logprobs(texts: TokenTexts, tokens: Sequence[Token], most: int) -> list[dict[str, Any]]:
    """`most`: how many of the likeliest tokens stand beside each."""
    return [
        {
            **_entry(texts, token.id, token.logprob),
            "top_logprobs": [_entry(texts, other, logprob) for other, logprob in token.top[:most]],
        }
        for token in tokens
    ]


def completion_logprobs(texts: TokenTexts, tokens: Sequence[Token], most: int, offset: int) -> dict[str, Any]:
    """The older form. `offset`: characters of text before the first token."""
    offsets, shown, data = [], [], b""
    for token in tokens:
        offsets.append(offset + len(data.decode(errors="ignore")))
        data += texts(token.id)
        shown.append(texts(token.id).decode(errors="replace"))
    return {
        "tokens": shown,
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [
            {texts(other).decode(errors="replace"): _finite(logprob) for other, logprob in token.top[:most]}
            for token in tokens
        ],
        "text_offset": offsets,
    }
