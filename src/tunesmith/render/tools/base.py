"""What a tool dialect is: how one family of models is told about tools, writes its calls, and is read back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeAlias

from tunesmith.core.errors import Problem
from tunesmith.core.types import ToolCall
from tunesmith.render.errors import RenderError
from tunesmith.render.tools.schemas import Schemas, same_value

__all__ = ["Dialect", "DialectRefusal", "Found", "Parsed", "Piece", "Tool", "join_pieces"]

Piece: TypeAlias = tuple[str, bool]
"""Text, and whether the dialect wrote it (trusted). Names, arguments, schemas and contents are not trusted."""

Tool: TypeAlias = Mapping[str, Any]
Found: TypeAlias = tuple[list[ToolCall], int]
"""Calls that were read, and the position behind them."""

_UNREADABLE = (ValueError, SyntaxError, RecursionError, MemoryError)


class DialectRefusal(RenderError):
    """A dialect cannot write these calls so that they could be read back as they are."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """A reply taken apart. Without calls, all text is `content_before`."""

    content_before: str
    calls: tuple[ToolCall, ...] = ()
    content_after: str = ""

    @property
    def content(self) -> str:
        return self.content_before + self.content_after


class Dialect(ABC):
    """One way to write tools and calls. A subclass gives the texts; reading and checking are here.

    The text of a reply is taken to be

        content  gap  call  call ...  text behind

    without the words that open and close the turn: those belong to the template. `write_calls` returns all of it,
    content included, because a dialect may set a content off or leave no room for it. A content is written as it is
    given: trimming is the template's business.
    """

    name: ClassVar[str]
    refuses: ClassVar[tuple[str, ...]]
    """Shapes that it cannot carry, in words."""
    opens: ClassVar[tuple[str, ...]]
    """Each call, or list of calls, begins with one of these."""
    set_off: ClassVar[str] = "\n\n"
    """Text between a system text and the tools, where the template has no place of its own for them."""
    gap: ClassVar[str] = ""
    """Text between a content and the first call."""
    gap_always: ClassVar[bool] = False
    """The gap stands there even if there is no content."""
    takes_content: ClassVar[bool] = True
    """A reply with calls can have text as well."""
    max_calls: ClassVar[int | None] = None
    patience: ClassVar[int] = 100
    """So many beginnings that are no call, and no more are looked for: a model that repeats itself must cost no more
    than time in proportion to its text."""
    in_content: ClassVar[bool] = True
    """Its calls are told apart from prose without doubt, so that they may be looked for in any text."""

    # What a dialect gives.

    @abstractmethod
    def write_tools(self, tools: Sequence[Tool]) -> list[Piece]:
        """What the prompt says about the tools (schemas in OpenAI's form), from its first word to its last; the
        blank lines that set it off are the template's."""

    @abstractmethod
    def _write(self, calls: Sequence[ToolCall], earlier: int) -> list[Piece]:
        """The calls of one turn, at least one. `earlier`: how many calls the chat has had before."""

    @abstractmethod
    def _read(self, text: str, start: int, schemas: Schemas) -> Found | None:
        """The calls that begin at `start`, where one of `opens` stands. None if it is no call after all."""

    # What all have.

    def write_calls(
        self, calls: Sequence[ToolCall], content: str = "", tools: Sequence[Tool] = (), earlier: int = 0
    ) -> list[Piece]:
        """A reply with calls. `tools`: the chat's tools, whose schemas tell types where the text does not. `earlier`:
        how many calls the chat has had before this turn; some dialects number them.

        Raises DialectRefusal, naming what cannot be carried, if `parse` would not give back what was written.
        """
        if not calls:
            return [(content, False)] if content else []
        if not self.takes_content and content.strip():
            raise self._refusal("text beside a call", content)
        if self.max_calls is not None and len(calls) > self.max_calls:
            raise self._refusal("more than one call in a turn", ", ".join(call.name for call in calls))
        kept = content if self.takes_content else ""
        pieces = [piece for piece in self._arrange(self._write(calls, earlier), kept) if piece[0]]
        self._check(join_pieces(pieces), calls, kept, tools)
        return pieces

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> Parsed:
        """A reply's text taken apart. Never raises: what is not a well-formed call stays text."""
        try:
            return self._parse(text, Schemas(tools))
        except _UNREADABLE:
            return Parsed(text)

    def tools_text(self, tools: Sequence[Tool], thinking: bool) -> list[Piece]:
        """What the prompt says about the tools to a model that is asked to think first, or not to."""
        return self.write_tools(tools)

    def call_id(self, call: ToolCall, position: int) -> str | None:
        """The id that this dialect writes for a call, and hence for its result. `position`: 0-based among the chat's
        calls. None: ids are not written."""
        return None

    # Parts that a few override.

    def _arrange(self, calls: list[Piece], content: str) -> list[Piece]:
        gap = self.gap if content or self.gap_always else ""
        return [(content, False), (gap, True), *calls]

    def _parse(self, text: str, schemas: Schemas) -> Parsed:
        calls: list[ToolCall] = []
        before, behind, end, failed = text, "", 0, 0
        for start in self._starts(text):
            if start < end:
                continue
            try:
                found = self._read(text, start, schemas)
            except (ValueError, SyntaxError):
                found = None
            if not found or not found[0]:
                failed += 1
                if failed > self.patience:
                    break
                continue
            between = text[end:start]
            if not calls:
                before = self._strip_gap(between)
            elif between.strip():
                behind += between
            calls += found[0]
            end = found[1]
        if not calls:
            return Parsed(text)
        return Parsed(before, tuple(calls), behind + text[end:])

    def _starts(self, text: str) -> Iterator[int]:
        """Positions at which one of `opens` stands, in order."""
        nexts = {word: text.find(word) for word in self.opens}
        while True:
            start = min((position for position in nexts.values() if position >= 0), default=-1)
            if start < 0:
                return
            yield start
            for word, position in nexts.items():
                if position == start:
                    nexts[word] = text.find(word, start + 1)

    def _strip_gap(self, text: str) -> str:
        return text.removesuffix(self.gap) if self.gap else text

    def _check(self, text: str, calls: Sequence[ToolCall], content: str, tools: Sequence[Tool]) -> None:
        parsed = self.parse(text, tools)
        if parsed.content == content and len(parsed.calls) == len(calls):
            pairs = list(zip(calls, parsed.calls, strict=True))
            if all(_same_call(call, read) for call, read in pairs):
                return
            # Say which argument it is, if that is all.
            for call, read in pairs:
                if call.name != read.name or set(call.arguments) != set(read.arguments):
                    continue
                for key, value in call.arguments.items():
                    if not same_value(value, read.arguments[key]):
                        raise self._refusal(_argument(call.name, key, value, read.arguments[key]), repr(value))
        self._blame(calls, content, tools)

    def _blame(self, calls: Sequence[ToolCall], content: str, tools: Sequence[Tool]) -> None:
        """Find the part that does not come back, and name it."""

        def comes_back(calls: Sequence[ToolCall], content: str) -> bool:
            parsed = self.parse(join_pieces(self._arrange(self._write(calls, 0), content)), tools)
            return (
                parsed.content == content
                and len(parsed.calls) == len(calls)
                and all(map(_same_call, calls, parsed.calls))
            )

        for call in calls:
            if comes_back([call], ""):
                continue
            if not comes_back([replace(call, arguments={})], ""):
                raise self._refusal("this name of a function", call.name)
            for key, value in call.arguments.items():
                if not comes_back([replace(call, arguments={key: ""})], ""):
                    raise self._refusal(f"this name of an argument of {call.name}", key)
                if not comes_back([replace(call, arguments={key: value})], ""):
                    raise self._refusal(
                        f'the argument "{key}" of {call.name}: its text is the dialect\'s own markup', repr(value)
                    )
        if content and not comes_back(calls[:1], content):
            raise self._refusal(
                "this text beside a call: it ends as a call begins, or holds the dialect's markup", content
            )
        raise self._refusal("these calls together", ", ".join(call.name for call in calls))

    def _refusal(self, what: str, got: str) -> DialectRefusal:
        return DialectRefusal(
            Problem(
                "E-RENDER-021",
                f'the tool form "{self.name}" cannot carry {what}',
                got=got,
                fix="change the row, or leave it out; what a form cannot carry is listed in docs/tools.md",
            )
        )


def join_pieces(pieces: Sequence[Piece]) -> str:
    return "".join([text for text, _ in pieces])


def _same_call(one: ToolCall, other: ToolCall) -> bool:
    return one.name == other.name and same_value(dict(one.arguments), dict(other.arguments))


def _argument(function: str, key: str, value: object, read: object) -> str:
    kinds = {
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
        dict: "an object",
        list: "a list",
    }
    was, came = kinds.get(type(value), "nothing"), kinds.get(type(read), "nothing")
    if was == came:
        return f'the argument "{key}" of {function}: it would be read as {read!r}'
    return f'the argument "{key}" of {function}: {was} here, which by its form and the tool\'s schema is {came}'
