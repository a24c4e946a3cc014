"""Where the replies of a long chat begin and end, from few renders.

In one render of the whole chat every reply stands between the text that opens a reply and the text that ends one, and
both hold a control token, which no content can:

    <user>Hi<end><assistant>Hello!<end><user>Bye<end><assistant>See you!<end>
                            ^^^^^^^^^^^                          ^^^^^^^^^^^^^

Opening and end are taken from the last reply. Whether a template writes a reply differently once others follow it is
then asked of one reply of each kind (with a thought, with calls, with blanks around it, between which roles...): it is
rendered as the last of its chat, and must come out as it stands in the whole. If anything is not as expected, the
answer is None, and every reply is rendered by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tunesmith.core.types import Message
from tunesmith.render.control import ControlTokens, Guard

__all__ = ["Region", "ReplyFinder", "quick_regions", "reply_end", "with_stops"]

Region = tuple[int, int]
_FEWEST = 3  # replies; fewer are found as cheaply one by one


class ReplyFinder(Protocol):
    """What is needed of a chat under a template."""

    guard: Guard

    @property
    def messages(self) -> Sequence[Message]: ...

    @property
    def control(self) -> ControlTokens: ...

    @property
    def stops(self) -> tuple[str, ...]: ...

    def render(self, count: int, open_reply: bool = False, reply: int | None = None) -> str:
        """The first `count` messages; `reply`: the one whose thinking decides."""

    def region(self, full: str, turn: int) -> Region:
        """Where the reply `turn`, the last message of the text `full`, begins and ends."""


def quick_regions(chat: ReplyFinder, whole: str, turns: Sequence[int]) -> dict[int, Region] | None:
    """Regions of all replies in the text of the whole chat; None where they have to be found one by one."""
    if len(turns) < _FEWEST or turns[0] == 0:
        return None
    last = turns[-1]
    full = whole if last == len(chat.messages) - 1 else chat.render(last + 1, reply=last)
    start, end = chat.region(full, last)
    closed, opened = chat.render(last, reply=last), chat.render(last, open_reply=True, reply=last)
    opening = opened[len(closed) :] if opened.startswith(closed) else ""
    stop = next((first for first, _, token in chat.control.find(full, start, end) if token.content in chat.stops), None)
    if not opening or start != len(opened) or stop is None or next(chat.control.find(opening), None) is None:
        return None
    found = _between(whole, opening, full[stop:end], turns)
    if found is None or found[last] != (start, end) or not _hold_their_texts(chat, whole, found):
        return None
    for turn in _one_of_each_kind(chat.messages, turns[:-1]):
        alone = chat.render(turn + 1, reply=turn)
        region = chat.region(alone, turn)
        if region != found[turn] or not whole.startswith(alone[: region[1]]):
            return None
    return found


def _between(whole: str, opening: str, ending: str, turns: Sequence[int]) -> dict[int, Region] | None:
    """Each reply between an opening and the next ending; None unless there are as many openings as replies."""
    starts = []
    at = whole.find(opening)
    while at >= 0:
        starts.append(at + len(opening))
        at = whole.find(opening, at + len(opening))
    if len(starts) != len(turns):
        return None
    found = {}
    for turn, start, limit in zip(turns, starts, [*starts[1:], len(whole)], strict=True):
        end = whole.find(ending, start, limit)
        if end < 0:
            return None
        found[turn] = start, end + len(ending)
    return found


def _hold_their_texts(chat: ReplyFinder, whole: str, found: Mapping[int, Region]) -> bool:
    for turn, (start, end) in found.items():
        message = chat.messages[turn]
        for text in (message.content, message.reasoning or "", *(call.name for call in message.tool_calls)):
            if chat.guard.disarm(text).strip() not in whole[start:end]:
                return False
    return True


def _one_of_each_kind(messages: Sequence[Message], turns: Sequence[int]) -> list[int]:
    """The first reply of every kind that a template may treat in its own way."""
    kinds: dict[tuple[object, ...], int] = {}
    for turn in turns:
        message = messages[turn]
        text, thought = message.content, message.reasoning
        kind = (
            bool(text.strip()),
            text == text.strip(),
            None if thought is None else (bool(thought.strip()), thought == thought.strip()),
            len(message.tool_calls),
            messages[turn - 1].role,
            messages[turn + 1].role,
        )
        kinds.setdefault(kind, turn)
    return sorted(kinds.values())


def with_stops(
    text: str, regions: Sequence[Region], control: ControlTokens, stops: Sequence[str], closing: str
) -> tuple[str, list[Region], int]:
    """Regions that take in their stop token where the template writes it as the beginning of the next turn, and the
    text with one where a reply ends it without (GLM 4). `closing`: what follows a reply when a question comes after
    it, up to the stop token. Also how many replies stay without one."""
    widened: list[Region] = []
    without = 0
    for start, end in regions:
        if not any(token.content in stops for _, _, token in control.find(text, start, end)):
            if closing and not text[end:].strip():
                text = text[:end] + closing
                end = len(text)
            elif closing and text.startswith(closing, end):
                end += len(closing)
            else:
                without += 1
        widened.append((start, end))
    return text, widened, without


def reply_end(full: str, start: int, control: ControlTokens, stops: tuple[str, ...]) -> int:
    """Where the last reply of the rendered text `full` ends that begins at `start`: one past the stop token, and past
    others that follow it at once; blanks and what is behind them belong to the template, and so does the opening of
    another reply. Without a stop token all the rest ends the reply."""
    trailing: list[tuple[int, int, bool]] = []
    full = full[: _next_opening(full, start, control, stops)]
    last = len(full)
    for first, end, token in reversed(list(control.find(full, start))):
        if full[end:last].strip():
            break
        trailing.insert(0, (first, end, token.content in stops))
        last = first
    stop = next((index for index, (_, _, is_stop) in enumerate(trailing) if is_stop), None)
    if stop is None:
        return len(full)
    end = trailing[stop][1]
    for first, following, _ in trailing[stop + 1 :]:
        if first != end:
            break
        end = following
    return end


def _next_opening(full: str, start: int, control: ControlTokens, stops: tuple[str, ...]) -> int:
    """Where a template opens another reply though none is asked for: what ends the text as it ends before this one,
    from a control token on, behind a stop token. Else the length of the text."""
    before, reply = full[:start], full[start:]
    shared = 0
    while shared < min(len(before), len(reply)) and before[-1 - shared] == reply[-1 - shared]:
        shared += 1
    tokens = control.find(full, len(full) - shared) if shared else ()
    behind_stops = (first for first, _, _ in tokens if full[start:first].rstrip().endswith(stops))
    return next(behind_stops, len(full))
