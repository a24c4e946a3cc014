"""Why a token is not trained, told by where the messages of a chat stand in its rendered text.

For people who look at data: it explains the mask that rendering made, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.core.types import PLACE, Chat, Message, Text

__all__ = ["REASONS", "Range", "message_ranges", "reason_at"]

REASONS = {
    "prompt": "a message of the user",
    "system": "the system message",
    "tool": "what a tool returned",
    "history": "an earlier answer that this sample does not train (mask_history, train_turns, or a sample of its own)",
    "given": "an answer that belongs to the prompt of a pair",
    "weight": "an answer whose weight is 0",
    "media": "stands for an image, a video or a sound, which the model gets in place of it",
    "template": "written by the template",
    "cut": "behind cutoff_len",
}
"""Kind -> what it means. A kind is short enough for a column."""


@dataclass(frozen=True, slots=True)
class Range:
    """Characters [start, end) of a rendered text, and why they are not trained where they are not."""

    start: int
    end: int
    why: str


def message_ranges(text: str, content: Text | Chat, label: str = "") -> list[Range]:
    """Where the texts of the messages stand, in their order; what lies between them is the template's.

    A text that the template changes is not found, and counts as the template's. `label`: of a view; in a pair the
    answers of the prompt are given.
    """
    if isinstance(content, Text):
        return []
    ranges: list[Range] = []
    done = 0
    last = len(content.messages) - 1
    for index, message in enumerate(content.messages):
        why = _why(message, is_last=index == last, label=label)
        for wanted in _texts(message):
            start = _find(text, wanted, done)
            if start >= 0:
                done = start + len(wanted)
                ranges.append(Range(start, done, why))
    return ranges


def _find(text: str, wanted: str, start: int) -> int:
    """Where `wanted` stands; if it can, at the beginning of a line or behind what is no letter, as texts of messages
    do: `user` is also the word that a header writes."""
    first = at = text.find(wanted, start)
    while at > 0 and text[at - 1].isalnum():
        at = text.find(wanted, at + 1)
    short = len(wanted) < 12
    if short and at >= 0 and text[at + len(wanted) : at + len(wanted) + 1] == "\n":
        # The name of the role, at the end of a header: the message itself comes next, if it is there.
        again = text.find(wanted, at + len(wanted))
        at = again if 0 <= again <= at + len(wanted) + 4 else at
    return at if at >= 0 else first


def _texts(message: Message) -> Iterator[str]:
    content = message.content or message.written or ""
    for text in (message.reasoning, *(content.split(PLACE) if message.media else [content])):
        if text and text.strip():
            yield text.strip()


def _why(message: Message, *, is_last: bool, label: str) -> str:
    if message.role != "assistant":
        return {"user": "prompt", "system": "system", "tool": "tool"}[message.role]
    if label and message.trained is False:
        return "given"
    if message.trained is False:
        return "weight"
    return "template" if is_last else "history"


def reason_at(ranges: Sequence[Range], start: int, end: int) -> str:
    """The reason for a token of the characters [start, end): of the text that it mostly lies in."""
    best, size = "template", 0
    for one in ranges:
        if one.start >= end:
            break
        overlap = min(end, one.end) - max(start, one.start)
        if overlap > size:
            best, size = one.why, overlap
    return best
