"""Replies that have to be JSON of a schema, or calls of tools: llguidance says at each token which ones may come."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, MachineError, Problem
from tunesmith.serve.errors import invalid
from tunesmith.serve.tokens import TokenTexts

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Grammar", "GrammarConstraint", "Grammars", "as_json"]

_SPACES = {"whitespace_pattern": r"[ \n]{0,20}"}
"""Some, but not for ever: a model that is not sure what comes next likes blanks."""

_KEPT = 64
"""Grammars that are not made anew."""


def as_json(schema: Mapping[str, Any]) -> str:
    """A value of a JSON schema, in the notation of Lark grammars. OpenAI's own promise is about `strict`; here every
    schema is obeyed."""
    return f"%json {json.dumps({**schema, 'x-guidance': _SPACES})}"


class Grammar:
    """A Lark grammar that llguidance has accepted.

    trigger   the text behind which it holds; None: from the beginning
    demanded  the reply may not end without it; otherwise it holds each time that the trigger has come
    """

    def __init__(self, text: str, matcher: Any, trigger: str | None = None, demanded: bool = True) -> None:
        self.text, self._matcher, self.trigger, self.demanded = text, matcher, trigger, demanded

    def begin(self) -> Any:
        """A matcher at the beginning of the grammar, for one reply."""
        return self._matcher.deep_copy()


class Grammars:
    """Of one tokenizer. What is slow is made when the first grammar is wanted."""

    def __init__(self, tokenizer: Any, stop_ids: Sequence[int], seconds: float) -> None:
        self.stop_ids = list(stop_ids)
        self.token_bytes = TokenTexts(tokenizer)
        self._tokenizer, self._seconds = tokenizer, seconds
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(2, "grammar")
        self._known: dict[str, Future[Any]] = {}

    @cached_property
    def tokens(self) -> Any:
        """llguidance's view of the vocabulary."""
        try:
            from llguidance.hf import from_tokenizer
        except ImportError as error:
            what = "response_format and demanded calls need the package llguidance"
            fix = "pip install 'tunesmith[serve]'"
            raise MachineError(Problem("E-SERVE-005", what, fix=fix)) from error
        return from_tokenizer(self._tokenizer, eos_token=self.stop_ids)

    def check(self, text: str) -> str | None:
        """What is wrong with a grammar, which may be that it takes longer than it may to find out."""
        try:
            made = self._compiled(text)
        except TimeoutError:
            return f"making a grammar of it takes longer than {self._seconds:g} s"
        return (made.get_error() or "it is no grammar") if made.is_error() else None

    def _compiled(self, text: str) -> Any:
        """A matcher at its beginning. Many requests come with one schema, so the latest are kept."""
        with self._lock:
            tokens = self.tokens
            if (known := self._known.pop(text, None)) is None:
                known = self._pool.submit(_compile, tokens, text)
            self._known[text] = known
            if len(self._known) > _KEPT:
                del self._known[next(iter(self._known))]
        return known.result(self._seconds)

    def made(self, text: str, param: str, *, trigger: str | None = None, demanded: bool = True) -> Grammar:
        """Raises ApiError (400) with `param` for a grammar that cannot be made."""
        if wrong := self.check(text):
            raise invalid(f"no grammar can be made of this schema: {wrong.splitlines()[0]}", param, "invalid_schema")
        return Grammar(text, self._compiled(text), trigger, demanded)

    def constraint(self, grammar: Grammar) -> GrammarConstraint:
        return GrammarConstraint(self, grammar)

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _compile(tokens: Any, text: str) -> Any:
    from llguidance import LLMatcher

    return LLMatcher(tokens, LLMatcher.grammar_from_lark(text), log_level=0)


class GrammarConstraint:
    """A grammar along one reply (`engines.base.Constraint`)."""

    def __init__(self, grammars: Grammars, grammar: Grammar) -> None:
        self._grammars, self._grammar = grammars, grammar
        self._trigger = None if grammar.trigger is None else grammar.trigger.encode()
        self._seen = b""  # behind the last grammar, where a trigger is waited for
        self._matcher: Any = grammar.begin() if self._trigger is None else None

    @property
    def lark(self) -> str | None:
        """The grammar, where it is all that there is to say about the reply."""
        return self._grammar.text if self._grammar.demanded and self._trigger is None else None

    @property
    def finished(self) -> bool:
        return self._grammar.demanded and self._matcher is not None and bool(self._matcher.is_stopped())

    def restrict(self, scores: Tensor) -> None:
        import numpy as np
        import torch

        stops = self._grammars.stop_ids
        if self._matcher is None:
            if self._grammar.demanded:
                scores[stops] = float("-inf")
            return
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = torch.zeros(scores.shape[-1], dtype=torch.bool)
        found = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: len(allowed)].astype(bool))
        allowed[: len(found)] = found
        allowed[stops] = self._matcher.is_accepting()
        scores.masked_fill_(~allowed.to(scores.device), float("-inf"))

    def accept(self, token: int) -> None:
        """Raises DataError for a token that was not allowed."""
        if token in self._grammars.stop_ids:
            return
        if self._matcher is None:
            self._wait(self._grammars.token_bytes(token))
        else:
            self._feed([token])

    def _wait(self, data: bytes) -> None:
        assert self._trigger is not None
        self._seen += data
        _, found, behind = self._seen.partition(self._trigger)
        if not found:
            self._seen = self._seen[-len(self._trigger) :]
            return
        self._seen = b""
        self._matcher = self._grammar.begin()
        if behind:
            self._feed(self._grammars.tokens.tokenize_bytes(behind))

    def _feed(self, tokens: list[int]) -> None:
        assert self._matcher is not None
        if not self._matcher.consume_tokens(tokens):
            what = "the reply left the form that was asked for"
            raise DataError(Problem("E-SERVE-006", what, got=self._matcher.get_error() or None))
        if not self._grammar.demanded and self._matcher.is_accepting():
            self._matcher = None
