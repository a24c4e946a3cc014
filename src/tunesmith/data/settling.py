"""Media of examples: found, fetched and measured before anything is rendered, so that what is wrong has its row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from tunesmith.core import env
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Chat, Example, Feedback, Medium, Message, Preference, Prompt, Text
from tunesmith.data.rows import RowError

if TYPE_CHECKING:
    from tunesmith.data.sources.base import SourceFile
    from tunesmith.media.settle import Settler as MediaSettler

__all__ = ["Settle", "Settler", "settled"]

_TOLD = 5
"""Media of a row that its fault tells."""
_LONGEST = 200
"""Characters of a path or an address that are told."""

Settle: TypeAlias = Callable[[Medium], Medium]
"""A medium as the data has it to a file that was looked at; raises DataError."""


class Settler:
    """Settles the media of one dataset. Relative paths begin at `media_dir`, then at the folder of its first file."""

    def __init__(self, files: Sequence[SourceFile], media_dir: str | None, *, offline: bool = False) -> None:
        first = files[0].blob.path if files else None
        self._places, self._offline = (media_dir, None if first is None else str(first.parent)), offline

    def __call__(self, medium: Medium) -> Medium:
        """Raises DataError."""
        return self._settler.settle(medium)

    @cached_property
    def _settler(self) -> MediaSettler:
        from tunesmith.media.settle import Settler as MediaSettler

        return MediaSettler(*self._places, env.data_cache_dir() / "media", offline=self._offline)


def settled(example: Example, settle: Settle) -> Example:
    """The example with all its media settled. Raises RowError with all that cannot be used, by what is wrong with the
    first."""
    wrong: list[tuple[str, Problem]] = []

    def one(medium: Medium) -> Medium:
        try:
            return settle(medium)
        except DataError as error:
            wrong.append((_name(medium), error.problems[0]))
            return medium

    def own(messages: Sequence[Message]) -> Sequence[Message]:
        if not any(message.media for message in messages):
            return messages
        return [replace(each, media=tuple(map(one, each.media))) if each.media else each for each in messages]

    made = _with(example, own)
    if wrong:
        told = wrong[0][1]
        error = RowError(told.code, told.what, None, "", told.fix)
        error.got = "; ".join(f"{name}: {problem.got}" if problem.got else name for name, problem in wrong[:_TOLD])
        error.media = wrong
        raise error
    return made


def _with(example: Example, own: Callable[[Sequence[Message]], Sequence[Message]]) -> Example:
    match example:
        case Text():
            return example
        case Chat() | Prompt():
            messages = own(example.messages)
            return example if messages is example.messages else replace(example, messages=messages)
        case Preference(prompt, chosen, rejected):
            return replace(example, prompt=own(prompt), chosen=own(chosen), rejected=own(rejected))
        case Feedback(prompt, answer):
            return replace(example, prompt=own(prompt), answer=own(answer))


def _name(medium: Medium) -> str:
    """A medium as the data has it, in a few words."""
    source = medium.source[0] if isinstance(medium.source, tuple) else medium.source
    if isinstance(source, bytes):
        return f"{len(source):,} bytes"
    return source if len(source) <= _LONGEST else f"{source[:_LONGEST]}..."
