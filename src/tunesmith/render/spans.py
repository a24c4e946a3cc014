"""Pieces of rendered text that know whether they are trained and who wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Span", "cut_at", "join_text", "merge"]


@dataclass(frozen=True, slots=True)
class Span:
    """`trained`: the model learns to write it. `trusted`: the template wrote it, so it may hold control tokens;
    text of users, tools and data is not trusted. Ordinary content in which nothing needs guarding may be marked
    trusted where a template mixed it with its own literals."""

    text: str
    trained: bool = False
    trusted: bool = True


def join_text(spans: Iterable[Span]) -> str:
    return "".join([span.text for span in spans])


def merge(spans: Iterable[Span]) -> list[Span]:
    """Drop empty spans and join neighbours of one kind."""
    merged: list[Span] = []
    for span in spans:
        if not span.text:
            continue
        if merged and merged[-1].trained == span.trained and merged[-1].trusted == span.trusted:
            merged[-1] = Span(merged[-1].text + span.text, span.trained, span.trusted)
        else:
            merged.append(span)
    return merged


def cut_at(text: str, trained: Sequence[tuple[int, int]], untrusted: Sequence[tuple[int, int]] = ()) -> list[Span]:
    """Spans of `text` from ranges [start, end) of trained and of untrusted characters (each sorted, disjoint)."""
    edges = sorted({0, len(text), *(edge for ranges in (trained, untrusted) for pair in ranges for edge in pair)})
    spans = []
    for start, end in pairwise(edges):
        is_trained = any(first <= start and end <= last for first, last in trained)
        is_untrusted = any(first <= start and end <= last for first, last in untrusted)
        spans.append(Span(text[start:end], is_trained, not is_untrusted))
    return merge(spans)
