"""Chats of one shape: the same roles in the same order, with texts that the template treats alike.

What a template writes around such texts, which of it is trained and where control tokens stand is the same for all of
them. So it is found once, by rendering a chat of that shape whose texts are names of places; every other chat of the
shape only puts its texts into the places. Chats with tools or calls, and texts that hold a word which the template
looks for, are rendered one by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from tunesmith.core.types import Chat, Message
from tunesmith.render.encode import Encoder, Run
from tunesmith.render.errors import QuickWayFault, RenderError
from tunesmith.render.jinja_reads import Reads
from tunesmith.render.spans import Span
from tunesmith.render.turns import Statistics

__all__ = ["Constant", "RunShape", "SampleShape", "Shape", "Shapes"]

_PLACE = "Xq7Z{}Z7qX"
_PLACES = re.compile(r"Xq7Z(\d+)Z7qX")
_AUDIT_EVERY = 512  # chats of one shape; before that, the first, the second, the third, the fifth, the ninth ...
_MOST_SHAPES = 4096

Key = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class RunShape:
    """Text between two control tokens: literals, and numbers of texts; for each whether it is trained. `uniform`:
    whether all of it is, None if only a part."""

    pieces: tuple[str | int, ...]
    trained: tuple[bool, ...]
    at_start: bool
    uniform: bool | None

    def fill(self, texts: Sequence[str]) -> Run:
        """The run with these texts in its places."""
        filled = [texts[piece] if type(piece) is int else piece for piece in self.pieces]
        if self.uniform is not None:
            return Run("".join(filled), self.at_start, self.uniform)  # type: ignore[arg-type]  # mypy: texts, by now
        ranges: list[tuple[int, int]] = []
        position = 0
        for text, trained in zip(filled, self.trained, strict=True):
            end = position + len(text)  # type: ignore[arg-type]
            if trained:
                start = ranges.pop()[0] if ranges and ranges[-1][1] == position else position
                ranges.append((start, end))
            position = end
        return Run("".join(filled), self.at_start, ranges)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Constant:
    """Tokens that are the same in all chats of a shape."""

    ids: list[int]
    mask: list[bool]


@dataclass(frozen=True, slots=True)
class SampleShape:
    """One training sample: constant tokens and runs with places, in turn. `parts`: control tokens (id, trained?) and
    runs, before constants were joined."""

    plan: tuple[Constant | RunShape, ...]
    parts: tuple[tuple[int, bool] | Run | RunShape, ...]


@dataclass(slots=True)
class Shape:
    samples: tuple[SampleShape, ...]
    counts: Mapping[str, int]
    """What one chat of this shape adds to the statistics."""
    used: int = 0


class Shapes:
    """The shapes of one template that were met so far. `render`: the template's own way, span by span; with True, up to
    the opening of the next reply."""

    def __init__(
        self,
        reads: Reads,
        encoder: Encoder,
        render: Callable[[Chat, bool], list[list[Span]]],
        statistics: Callable[[], Statistics],
    ) -> None:
        self._reads, self._encoder, self._render, self._statistics = reads, encoder, render, statistics
        self._known: dict[Key, Shape | None] = {}
        self._seen: set[Key] = set()

    def find(self, chat: Chat, open_reply: bool = False) -> tuple[Shape, list[str]] | None:
        """The shape of a chat and its texts; None for one that has to be rendered by itself. Raises QuickWayFault."""
        described = self._describe(chat)
        if described is None:
            return None
        key, texts = (open_reply, chat.replies_only, *described[0]), described[1]
        if key not in self._known:
            if key not in self._seen:  # a shape that comes once is not worth finding
                if len(self._seen) < _MOST_SHAPES:
                    self._seen.add(key)
                return None
            self._known[key] = self._make(chat, open_reply)
        shape = self._known[key]
        if shape is None:
            return None
        if shape.used % _AUDIT_EVERY == 0 or (shape.used < _AUDIT_EVERY and not shape.used & (shape.used - 1)):
            self._audit(chat, open_reply, shape, texts)
        shape.used += 1
        statistics = self._statistics()
        for name, count in shape.counts.items():
            setattr(statistics, name, getattr(statistics, name) + count)
        return shape, texts

    def _describe(self, chat: Chat) -> tuple[Key, list[str]] | None:
        if chat.tools or chat.trusted_markup:
            return None
        alike = self._reads.alike
        key: list[Any] = []
        texts: list[str] = []
        for message in chat.messages:
            if message.tool_calls or message.name is not None or message.role == "tool":
                return None
            text, thought = message.content, message.reasoning
            if not alike(text):
                return None
            key.append((message.role, message.trained, thought is None))
            texts.append(text)
            if thought is not None:
                if not alike(thought):
                    return None
                texts.append(thought)
        return tuple(key), texts

    def _make(self, chat: Chat, open_reply: bool) -> Shape | None:
        before = replace(self._statistics())
        try:
            samples = self._render(_with_places(chat), open_reply)
        except RenderError:
            samples = None
        counts = _difference(self._statistics(), before)
        _set(self._statistics(), before)
        if samples is None:
            return None
        return Shape(tuple(map(self._sample, samples)), counts)

    def _sample(self, spans: Sequence[Span]) -> SampleShape:
        parts = tuple(map(_part, self._encoder.cut(spans).parts))
        self._encoder.encode_runs([part for part in parts if isinstance(part, Run)])
        plan: list[Constant | RunShape] = []
        for part in parts:
            if isinstance(part, RunShape):
                plan.append(part)
                continue
            last = plan[-1] if plan else None
            if not isinstance(last, Constant):
                last = Constant([], [])
                plan.append(last)
            last.ids.extend(part.ids if isinstance(part, Run) else part[:1])
            last.mask.extend(part.mask if isinstance(part, Run) else part[1:])
        return SampleShape(tuple(plan), parts)

    def _audit(self, chat: Chat, open_reply: bool, shape: Shape, texts: Sequence[str]) -> None:
        """Compare with what the template writes for this chat."""
        before = replace(self._statistics())
        samples = self._render(chat, open_reply)
        _set(self._statistics(), before)
        expected = [[_plain(part) for part in self._encoder.cut(spans).parts] for spans in samples]
        if expected != [[_filled(part, texts) for part in sample.parts] for sample in shape.samples]:
            raise QuickWayFault(f"the chat {chat.origin} differs from others of its shape")


def _with_places(chat: Chat) -> Chat:
    number = 0
    messages: list[Message] = []
    for message in chat.messages:
        content, number = _PLACE.format(number), number + 1
        reasoning = None
        if message.reasoning is not None:
            reasoning, number = _PLACE.format(number), number + 1
        messages.append(replace(message, content=content, reasoning=reasoning))
    return replace(chat, messages=messages)


def _part(part: tuple[int, bool] | Run) -> tuple[int, bool] | Run | RunShape:
    if not isinstance(part, Run) or not _PLACES.search(part.text):
        return part
    edges = {0, len(part.text)}
    if not isinstance(part.trained, bool):
        edges |= {edge for pair in part.trained for edge in pair}
    places = {match.start(): match for match in _PLACES.finditer(part.text)}
    edges |= {edge for match in places.values() for edge in match.span()}
    cuts = sorted(edges)
    pieces: list[str | int] = []
    trained: list[bool] = []
    for start, end in pairwise(cuts):
        match = places.get(start)
        pieces.append(int(match[1]) if match else part.text[start:end])
        trained.append(_is_trained(part.trained, start, end))
    uniform = trained[0] if len(set(trained)) == 1 else None
    return RunShape(tuple(pieces), tuple(trained), part.at_start, uniform)


def _is_trained(trained: bool | Sequence[tuple[int, int]], start: int, end: int) -> bool:
    if isinstance(trained, bool):
        return trained
    return any(first <= start and end <= last for first, last in trained)


Plain = tuple[int, bool] | tuple[str, bool, tuple[tuple[int, int], ...]]


def _plain(part: tuple[int, bool] | Run) -> Plain:
    if not isinstance(part, Run):
        return part
    whole = [(0, len(part.text))] if part.trained is True else part.trained or []
    return part.text, part.at_start, tuple(whole)


def _filled(part: tuple[int, bool] | Run | RunShape, texts: Sequence[str]) -> Plain:
    """The part with these texts in its places."""
    return _plain(part.fill(texts) if isinstance(part, RunShape) else part)


def _difference(after: Statistics, before: Statistics) -> dict[str, int]:
    changes = {name: getattr(after, name) - getattr(before, name) for name in Statistics.__slots__}
    return {name: change for name, change in changes.items() if change}


def _set(statistics: Statistics, values: Statistics) -> None:
    for name in Statistics.__slots__:
        setattr(statistics, name, getattr(values, name))
