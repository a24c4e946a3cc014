"""Prompts with one or two continuations: pairs of a better and a worse answer, and answers that were liked or not."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from typing import Any

from tunesmith.core.types import Message, Origin
from tunesmith.data.formats.base import check_text
from tunesmith.data.formats.messages import MessageReader
from tunesmith.data.formats.turns import assistant, check_turns
from tunesmith.data.rows import RowError

__all__ = ["continuation", "label", "margin", "split_pair", "without_prompt"]

_LABELS = {"true": True, "1": True, "false": False, "0": False}  # tables hold nothing but text


def label(value: Any, field: str) -> bool:
    """A label that says whether an answer was liked: true or false, also as 1 or 0 and as text."""
    if value is None:
        raise RowError("E-DATA-013", "the label is null", field)
    found = value if isinstance(value, bool) else _LABELS.get(str(value).strip().lower())
    if found is None or not isinstance(value, bool | int | str):
        raise RowError("E-DATA-061", "the label is neither true nor false", field, value)
    return found


def margin(value: Any, field: str) -> float:
    """By how much an answer is better than another: a number, also as text."""
    try:
        found = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else nan
    except (ValueError, OverflowError):
        found = nan
    if not isfinite(found):
        raise RowError("E-DATA-014", "the margin is not a number", field, value)
    return found


def continuation(value: Any, column: str, reader: MessageReader, origin: Origin) -> list[Message]:
    """An answer as text, as one message, or as a list of messages (which may begin with the prompt)."""
    if isinstance(value, str):
        return [assistant(check_text(value, column))]
    if isinstance(value, dict):
        return [reader.message(value, column, origin)]
    return reader.read(value, column, origin)


def without_prompt(prompt: Sequence[Message], messages: Sequence[Message], column: str) -> list[Message]:
    """What `messages` add to the prompt: all of them, or what follows where they begin with the prompt.

    Raises RowError where they begin with another prompt, or with nothing that the model could have written.
    """
    if not messages:
        raise RowError("E-DATA-016", "no messages", column)
    if messages[0].role == "assistant":
        return list(messages)
    size = len(prompt)
    own, start = _spoken(messages), _spoken(prompt)
    if own[:size] != start and start[:1] and start[0][0] == "system" and own[: size - 1] == start[1:]:
        size -= 1  # the system text has a column of its own
    elif own[:size] != start:
        reason = "the answer begins with a prompt of its own, which differs from that of the row"
        raise RowError("E-DATA-062", reason, column, messages[0].content)
    rest = list(messages[size:])
    if not rest or rest[0].role != "assistant":
        raise RowError("E-DATA-016", "no answer follows the prompt", column)
    return rest


def split_pair(
    prompt: Sequence[Message] | None,
    chosen: Sequence[Message],
    rejected: Sequence[Message],
    fields: tuple[str, str],
) -> tuple[list[Message], list[Message], list[Message]]:
    """(prompt, chosen, rejected) with the prompt in neither answer. `prompt` None: it is what both have in common.

    Raises RowError where the answers are equal (E-DATA-060) or belong to different prompts (E-DATA-062).
    """
    if prompt is None:
        prompt, chosen, rejected = _common_prompt(chosen, rejected, fields)
    else:
        chosen = without_prompt(prompt, chosen, fields[0])
        rejected = without_prompt(prompt, rejected, fields[1])
    for answer, field in ((chosen, fields[0]), (rejected, fields[1])):
        check_turns([*prompt, *answer], field)
    if _meant(chosen) == _meant(rejected):
        reason = f"chosen and rejected are the same ({fields[0]}, {fields[1]})"
        raise RowError("E-DATA-060", reason, None, chosen[-1].content)
    return list(prompt), list(chosen), list(rejected)


def _common_prompt(
    chosen: Sequence[Message], rejected: Sequence[Message], fields: tuple[str, str]
) -> tuple[Sequence[Message], Sequence[Message], Sequence[Message]]:
    """Two whole conversations, parted at the first answer in which they differ."""
    ours, theirs = _meant(chosen), _meant(rejected)
    least = min(len(ours), len(theirs))
    same = next((index for index in range(least) if ours[index] != theirs[index]), least)
    if same == len(ours) == len(theirs) and same:
        raise RowError("E-DATA-060", f"chosen and rejected are the same ({fields[0]}, {fields[1]})")
    speakers = [{left.role, right.role} for left, right in zip(chosen, rejected, strict=False)]
    if same < least and speakers[same] & {"system", "user"}:
        reason = "chosen and rejected do not begin with the same prompt"
        raise RowError("E-DATA-062", reason, fields[0], chosen[same].content).at(f"message {same + 1}")
    # Results of tools may differ: the answers then begin with the call before them.
    at = next((at for at in range(min(same, least - 1), -1, -1) if speakers[at] == {"assistant"}), None)
    if not at:
        raise RowError("E-DATA-016", "an answer without a prompt" if at == 0 else "no assistant message", fields[0])
    return chosen[:at], chosen[at:], rejected[at:]


def _spoken(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content.strip()) for message in messages]


def _meant(messages: Sequence[Message]) -> list[tuple[Any, ...]]:
    """What messages say, without what only training asks for."""
    return [(one.role, one.content, one.reasoning, tuple(one.tool_calls), one.name, one.media) for one in messages]
