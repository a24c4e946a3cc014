"""Model text back to a message: thoughts and tool calls split off. At once, or while it is written."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tunesmith.core.types import Message, ToolCall
from tunesmith.render.tools import Dialect, Parsed, get_dialect

__all__ = ["Delta", "ReplyReader", "parse_reply", "read_calls"]

_TOOL_CALL = re.compile(r"\s*<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
_OPENS = ("<tool_call>",)  # of that


def parse_reply(
    text: str,
    thinking: tuple[str, str],
    stops: tuple[str, ...],
    dialect: str | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
) -> Message:
    """An assistant message from what a model wrote. A thought may lack its opening word, where the template's
    prompt has written it already; an unfinished thought is all thought. `dialect`: the form of its tool calls; the
    most common one if it is not known. `tools`: their schemas tell types where a form does not. What is no well-formed
    call stays text."""
    for stop in stops:
        text = text.split(stop, 1)[0]
    reasoning, content = _split_thought(text, *thinking)
    parsed = read_calls(content, dialect, tools)
    return Message("assistant", parsed.content, reasoning=reasoning, tool_calls=parsed.calls)


def read_calls(content: str, dialect: str | None, tools: Sequence[Mapping[str, Any]] = ()) -> Parsed:
    """A reply without its thought, taken apart."""
    if dialect is not None:
        return get_dialect(dialect).parse(content, tools)
    calls: list[ToolCall] = []

    def take(match: re.Match[str]) -> str:
        call = _read_call(match.group(1))
        if call is None:
            return match.group()
        calls.append(call)
        return ""

    return Parsed(_TOOL_CALL.sub(take, content), tuple(calls))


def _split_thought(text: str, opening: str, closing: str) -> tuple[str | None, str]:
    begins = text.lstrip().startswith(opening)
    thought, found, content = text.partition(closing)
    if not found and not begins:
        return None, text
    thought = thought.lstrip().removeprefix(opening).strip("\n")
    return thought or None, content.lstrip("\n")


def _read_call(text: str) -> ToolCall | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    return ToolCall(value["name"], arguments) if isinstance(arguments, dict) else None


class Delta(NamedTuple):
    """What has become certain of a reply."""

    reasoning: str = ""
    content: str = ""


class ReplyReader:
    """A reply taken apart while it is written. All deltas together are the reasoning and the content of the message
    that `parse_reply` makes of the whole, but that `thinks_first` says what it has to guess.

    thinks_first   the reply begins inside a thought, as the prompt has opened one
    reads_calls    look for calls, of `tools`; text is held back from where one may begin, until the reply ends
    """

    def __init__(
        self,
        thinking: tuple[str, str],
        dialect: str | None,
        *,
        thinks_first: bool = False,
        reads_calls: bool = False,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._opening, self._closing = thinking
        self._dialect, self._tools = dialect, tools
        self._reads_calls = reads_calls
        self._opens = _OPENS if dialect is None else _marks(get_dialect(dialect))
        self._state = self._in_thought if thinks_first else self._at_begin
        self._held = ""  # of what was pushed, not yet looked through
        self._fresh = thinks_first  # nothing of the present part has been given out
        self._content = ""  # from its beginning
        self._sent = 0  # characters of it
        self.calls: tuple[ToolCall, ...] = ()
        """Of the whole reply; known when it has ended."""

    def push(self, text: str) -> Delta:
        self._held += text
        return self._state(final=False)

    def finish(self) -> Delta:
        """The reply has ended: what was held back, without its calls."""
        reasoning, said = self._state(final=True)
        if not self._reads_calls:
            return Delta(reasoning, said)
        parsed = read_calls(self._content, self._dialect, self._tools)
        self.calls = parsed.calls
        rest = (parsed.content if parsed.calls else self._content)[self._sent :]
        return Delta(reasoning, said + rest)

    # ---- the parts of a reply ----

    def _at_begin(self, final: bool) -> Delta:
        text = self._held.lstrip()
        if text.startswith(self._opening):
            self._state, self._fresh = self._in_thought, True
        elif self._opening.startswith(text) and not final:
            return Delta()
        else:
            self._state = self._in_content
        return self._state(final)

    def _in_thought(self, final: bool) -> Delta:
        if self._fresh:  # the opening word, and line ends behind it, are no part of the thought
            text = self._held.lstrip()
            if not final and self._opening.startswith(text):
                return Delta()
            self._held = text.removeprefix(self._opening).lstrip("\n")
            self._fresh = not self._held
        thought, found, behind = self._held.partition(self._closing)
        if found:
            self._held, self._state, self._fresh = behind, self._in_content, True
            return Delta(thought.rstrip("\n"), self._in_content(final).content)
        certain = len(thought) if final else _before(thought, (self._closing,))
        certain = len(thought[:certain].rstrip("\n"))
        self._held = thought[certain:]
        return Delta(thought[:certain])

    def _in_content(self, final: bool) -> Delta:
        if self._fresh:
            self._held = self._held.lstrip("\n")
            self._fresh = not self._held
        self._content += self._held
        self._held = ""
        if not self._reads_calls:
            certain = len(self._content)
        elif final or not self._opens:  # some forms may begin with any word
            certain = self._sent
        else:
            certain = max(self._sent, len(self._content[: _before(self._content, self._opens, self._sent)].rstrip()))
        said, self._sent = self._content[self._sent : certain], certain
        return Delta(content=said)


def _marks(dialect: Dialect) -> tuple[str, ...]:
    """What a call, or what sets it off from a content, begins with; blanks are held back anyway."""
    return (*dialect.opens, dialect.gap) if dialect.gap.strip() else dialect.opens


def _before(text: str, marks: Sequence[str], start: int = 0) -> int:
    """Where the first of `marks` begins, or may begin at the end of `text`."""
    found = [position for mark in marks if (position := text.find(mark, start)) >= 0]
    if found:
        return min(found)
    sizes = range(min(len(text) - start, max(map(len, marks)) - 1), 0, -1)
    return len(text) - next((size for size in sizes if any(mark.startswith(text[-size:]) for mark in marks)), 0)
