"""What trained tokens count in the loss: by message, and by rules on the text of replies.

A rule is a pattern and a factor. Where a pattern matches in trained text, its first group (else the whole match) counts
so many times; 0 leaves it untrained. This is ms-swift's idea of a loss scale.

    - {pattern: "<think>\\s*</think>\\s*", weight: 0}      an empty thought is not learnt
    - {pattern: '"name": "([^"]+)"', weight: 2}            the name of a called function counts twice
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import yaml

from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.core.types import Chat
from tunesmith.render.spans import Span, join_text, merge

__all__ = ["Levels", "Rule", "Weigher", "read_rules"]

Floats = npt.NDArray[np.float64]
Levels: TypeAlias = list[tuple[float, list[Span]]]
"""One sample at ascending weights: at each, the spans with those characters trained that count so much or more."""

_LONGEST_PATTERN = 1000


@dataclass(frozen=True, slots=True)
class Rule:
    pattern: re.Pattern[str]
    weight: float


def read_rules(file: str) -> tuple[Rule, ...]:
    """The rules of a YAML file. Raises UsageError with all that is wrong, MissingInputError."""
    path = Path(file).expanduser()
    if not path.is_file():
        raise MissingInputError(Problem("E-RENDER-030", "no such file of weights", where=f"loss_weights: {file}"))
    try:
        raw = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        fix = "a list of {pattern: ..., weight: ...}"
        raise UsageError(Problem("E-RENDER-031", "the weights are not valid YAML", file, str(error), fix)) from error
    if not isinstance(raw, list) or not raw:
        fix = "a list of {pattern: ..., weight: ...}"
        raise UsageError(Problem("E-RENDER-031", "the weights are not a list of rules", where=file, fix=fix))
    found = [_rule(item, f"{file}, rule {number}") for number, item in enumerate(raw, 1)]
    if problems := [one for one in found if isinstance(one, Problem)]:
        raise UsageError(problems)
    return tuple(one for one in found if isinstance(one, Rule))


def _rule(item: Any, where: str) -> Rule | Problem:
    if not isinstance(item, Mapping) or set(item) != {"pattern", "weight"}:
        return Problem("E-RENDER-031", "a rule has a pattern and a weight, and nothing else", where, repr(item))
    pattern, weight = item["pattern"], item["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < 1e6:
        return Problem("E-RENDER-031", "a weight is a number of 0 or more", where, repr(weight))
    if not isinstance(pattern, str) or not pattern or len(pattern) > _LONGEST_PATTERN:
        return Problem("E-RENDER-031", f"a pattern is a text of 1 to {_LONGEST_PATTERN} characters", where)
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        return Problem("E-RENDER-031", f"not a pattern of Python's re: {error}", where, pattern)
    if compiled.match(""):
        return Problem("E-RENDER-031", "the pattern matches the empty text", where, pattern, "let it match something")
    return Rule(compiled, float(weight))


class Weigher:
    """Weights for the chats that need them. `render`: a chat's samples, as spans."""

    def __init__(self, rules: Sequence[Rule], render: Callable[[Chat], list[list[Span]]]) -> None:
        self._rules, self._render = rules, render

    def needed(self, chat: Chat) -> bool:
        return bool(self._rules) or any(message.weight not in (None, 0, 1) for message in chat.messages)

    def samples(self, chat: Chat) -> list[Levels]:
        samples = self._render(chat)
        weights = self._of_messages(chat, samples)
        return [_levels(spans, self._ruled(spans, weight)) for spans, weight in zip(samples, weights, strict=True)]

    def _of_messages(self, chat: Chat, samples: list[list[Span]]) -> list[Floats]:
        """For each sample, the weight of each of its characters, before the rules; 0 where it is not trained.

        Which text is a reply's own is found by rendering the chat without training that reply.
        """
        weights = [_trained(spans).astype(np.float64) for spans in samples]
        for index, message in enumerate(chat.messages):
            if message.weight in (None, 0, 1):
                continue
            assert message.weight is not None, "by the line above"
            messages = [
                replace(other, trained=False, weight=None) if place == index else other
                for place, other in enumerate(chat.messages)
            ]
            others = {join_text(spans): _trained(spans) for spans in self._render(replace(chat, messages=messages))}
            for spans, weight in zip(samples, weights, strict=True):
                text, trained = join_text(spans), _trained(spans)
                # A sample that is not there without the reply is the reply's own (a chat that is split by replies).
                weight[trained & ~others[text] if text in others else trained] = message.weight
        return weights

    def _ruled(self, spans: Sequence[Span], weights: Floats) -> Floats:
        text = join_text(spans)
        factors = np.ones(len(text))
        for start, end in _ranges(weights > 0):
            for rule in self._rules:
                for match in rule.pattern.finditer(text, start, end):
                    first, last = match.span(1 if match.re.groups and match.start(1) >= 0 else 0)
                    factors[first:last] *= rule.weight
        return weights * factors


def _trained(spans: Sequence[Span]) -> npt.NDArray[np.bool_]:
    if not spans:
        return np.zeros(0, np.bool_)
    return np.repeat([span.trained for span in spans], [len(span.text) for span in spans])


def _ranges(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(flags.astype(np.int8), prepend=0, append=0))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _levels(spans: Sequence[Span], weights: Floats) -> Levels:
    values = [float(value) for value in np.unique(weights) if value > 0] or [1.0]
    return [(value, _at_least(spans, weights >= value)) for value in values]


def _at_least(spans: Sequence[Span], wanted: npt.NDArray[np.bool_]) -> list[Span]:
    """The spans with exactly these characters trained."""
    cut: list[Span] = []
    at = 0
    for span in spans:
        end = at + len(span.text)
        edges = [at, *(int(edge) for edge in np.flatnonzero(np.diff(wanted[at:end])) + at + 1), end]
        for first, last in pairwise(edges):
            if first < last:
                cut.append(Span(span.text[first - at : last - at], bool(wanted[first]), span.trusted))
        at = end
    return merge(cut)
