"""Token ids to text, one id at a time, without breaking characters or losing the space between words."""

from __future__ import annotations

from typing import Any

__all__ = ["Detokenizer"]

_WINDOW = 8
"""Tokens that are decoded together, so that most of them are decoded once and not as a beginning as well."""
_UNFINISHED = "\ufffd"  # what a decoder writes for bytes that are not yet a character


class Detokenizer:
    """`push(id)` returns the text that became certain. Concatenated with `flush()` it is the decoded whole.

    Decoders look at neighbours (a SentencePiece decoder strips the first blank, bytes join to characters), so each
    new text is the difference of two decodings that begin at the same earlier token.
    """

    def __init__(self, tokenizer: Any, *, skip_special_tokens: bool = True) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids: list[int] = []
        self._begin = 0  # first token of the window that is decoded
        self._read = 0  # tokens whose text was returned
        self._before = ""  # what the window gives up to there

    def push(self, token: int) -> str:
        self._ids.append(token)
        return self._take(final=False)

    def flush(self) -> str:
        """What was held back because it might still have changed."""
        return self._take(final=True)

    def _take(self, final: bool) -> str:
        text = self._decode(self._ids[self._begin :])
        if len(text) <= len(self._before) or (text.endswith(_UNFINISHED) and not final):
            return ""
        new = text[len(self._before) :]
        if len(self._ids) - self._begin < _WINDOW:
            self._read, self._before = len(self._ids), text
        else:
            self._begin, self._read = self._read, len(self._ids)
            self._before = self._decode(self._ids[self._begin :])
        return new

    def _decode(self, ids: list[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False)
        return text
