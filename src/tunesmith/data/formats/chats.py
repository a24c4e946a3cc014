"""What all formats of chats share: tools, system texts, pairs of answers and labels beside a prompt."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tunesmith.core.types import Chat, Feedback, Message, Origin, Preference, Prompt
from tunesmith.data.formats.base import WITH_MARGINS, Format, Row, is_blank, missing, text_field
from tunesmith.data.formats.markup import structured
from tunesmith.data.formats.media import COLUMNS, beside, fill
from tunesmith.data.formats.messages import MessageReader
from tunesmith.data.formats.pairs import continuation, label, margin, split_pair
from tunesmith.data.formats.turns import check_turns, merge_turns, parse_tools

__all__ = ["ChatFormat", "Tools"]

Tools = Sequence[Mapping[str, Any]]


class ChatFormat(Format, ABC):
    """A prompt, and for most stages what follows it. Formats say where the prompt stands and where the answer."""

    prompt_columns: ClassVar[tuple[str, ...]] = ()
    """The meanings that a prompt is made of, the one that errors name first; the others go along with a `Prompt`."""
    say_from: ClassVar = False
    """Errors speak of `from` and `value` in place of `role` and `content`."""

    def __init__(
        self,
        stage: str,
        columns: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        merge_consecutive: bool = False,
    ) -> None:
        super().__init__(stage, columns, tags, merge_consecutive=merge_consecutive)
        self.reader = MessageReader(self.notes, tags, say_from=self.say_from)

    @abstractmethod
    def opening(self, row: Row, origin: Origin, tools: Tools) -> list[Message] | None:
        """The messages before the answers; None where each answer holds them itself."""

    @abstractmethod
    def whole(self, row: Row, origin: Origin, tools: Tools) -> tuple[list[Message], list[Message]]:
        """(prompt, answer)"""

    def chat(self, row: Row, origin: Origin) -> Chat:
        tools = self.tools(row)
        prompt, answer = self.whole(row, origin, tools)
        messages = self.filled(row, [*prompt, *answer])
        check_turns(messages, self.field)
        return Chat(messages, tools, origin)

    def feedback(self, row: Row, origin: Origin) -> Feedback:
        tools = self.tools(row)
        prompt, answer = self.whole(row, origin, tools)
        messages = self.filled(row, [*prompt, *answer])
        check_turns(messages, self.field)
        prompt, answer = messages[: len(prompt)], messages[len(prompt) :]
        column = self.columns["kto_tag"]
        if row.get(column) is None:
            missing(row, column)
        liked = label(row[column], column)
        self.notes.tallies["liked" if liked else "disliked"] += 1
        return Feedback(prompt, answer, liked, tools, origin)

    def preference(self, row: Row, origin: Origin) -> Preference:
        tools = self.tools(row)
        prompt = self.opening(row, origin, tools)
        if prompt is not None:
            check_turns(prompt, self.field, open_end=True)
        fields = self.columns["chosen"], self.columns["rejected"]
        chosen, rejected = (self.messages(row, field, origin, tools) for field in fields)
        opening, *answers = split_pair(prompt, chosen, rejected, fields)
        better, worse = (self.filled(row, [*opening, *answer]) for answer in answers)
        size = len(opening)
        margin = self.margin(row) if self.stage == WITH_MARGINS else None
        return Preference(better[:size], better[size:], worse[size:], tools, origin, margin=margin)

    def margin(self, row: Row) -> float:
        """0 where the row has none."""
        value = self.get(row, "margin")
        return 0.0 if value is None else margin(value, self.columns["margin"])

    def prompt(self, row: Row, origin: Origin) -> Prompt:
        tools = self.tools(row)
        messages = self.filled(row, self.opening(row, origin, tools) or [])
        check_turns(messages, self.field, open_end=True)
        return Prompt(messages, tools, self.extra(row, *self.prompt_columns, *COLUMNS), origin)

    @property
    def field(self) -> str | None:
        return self.columns.get(self.prompt_columns[0])

    def messages(self, row: Row, column: str, origin: Origin, tools: Tools) -> list[Message]:
        """The messages of a column: a list of them, one, or the text of an answer."""
        value = row.get(column)
        if value is None:
            missing(row, column)
        messages = continuation(value, column, self.reader, origin)
        if self.merge_consecutive:
            messages = merge_turns(messages, column)
        return structured(messages, tools)

    def filled(self, row: Row, messages: Sequence[Message]) -> list[Message]:
        """The messages with the media of the row in their places."""
        return fill(messages, beside(row, self.columns, named=self._chosen_columns))

    def tools(self, row: Row) -> Tools:
        return parse_tools(self.get(row, "tools"), self.columns.get("tools"))

    def with_system(self, messages: list[Message], row: Row) -> list[Message]:
        """The messages led by the text of the system column, unless they bring their own; an empty one is left out."""
        system = text_field(row, self.columns.get("system"), optional=True)
        own = bool(messages) and messages[0].role == "system"
        if not is_blank(system) and not own:
            return [Message("system", system), *messages]
        return messages[1:] if own and is_blank(messages[0].content) else messages
