"""What all formats share: the mapping of columns, and reading one field of a row with a reason where it is unfit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, ClassVar, NoReturn

from tunesmith.core.types import Example, Feedback, Message, Origin, Preference, Text
from tunesmith.data.doubled_keys import DoubledKeys
from tunesmith.data.notes import Notes
from tunesmith.data.rows import RowError

__all__ = [
    "KINDS",
    "WITH_MARGINS",
    "Format",
    "check_json",
    "check_text",
    "is_blank",
    "kind_of",
    "missing",
    "stages",
    "text_field",
]

Row = Mapping[str, Any]
Needs = Mapping[str, tuple[str, ...]]

KINDS = {
    "pt": "document",
    "sft": "chat",
    "rm": "preference",
    "dpo": "preference",
    "kto": "feedback",
    "ppo": "prompt",
    "prompt": "prompt",
}
"""Stage -> the kind of example that it reads; a kind is also the name of the method of a format that makes it. Stage
`prompt` is any use that only generates."""

WITH_MARGINS = "rm"
"""The stage whose pairs may have a margin."""

SAFE_INTEGER = 2**53  # what a JSON number keeps exactly where it is read as a double, as most readers do
DEEPEST = 100  # levels of lists and objects
_NUL = "a text holds the character NUL"


def stages(**needs: tuple[str, ...]) -> Needs:
    """Per stage what the kind of example that it reads needs, from the same per kind."""
    return {stage: needs[kind] for stage, kind in KINDS.items() if kind in needs}


class Format:
    """Turns rows into examples of one stage.

    `columns` maps what a column means (`prompt`, `messages`, ...) to its name. None stands for `default_columns`; a
    mapping replaces them all, as everywhere in this field: what it does not list is not read. `tags` likewise.
    `merge_consecutive`: messages of one role in a row become one.
    """

    default_columns: ClassVar[Mapping[str, str]] = {}
    needed: ClassVar[Needs] = {}
    """Per stage, the meanings without which a row is nothing. The format does not serve a stage that is not listed."""

    def __init__(
        self,
        stage: str,
        columns: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        *,
        merge_consecutive: bool = False,
    ) -> None:
        assert stage in self.needed, f"{type(self).__name__} has no examples for stage {stage}"
        self.stage = stage
        self.columns = dict(self.default_columns if columns is None else columns)
        self.tags = tags
        self.merge_consecutive = merge_consecutive
        self.notes = Notes()
        self._chosen_columns = columns is not None
        self.stage_kind = KINDS[stage]
        self._build: Callable[[Row, Origin], Example] = getattr(self, self.stage_kind)

    def expected(self) -> list[tuple[str, str]]:
        """(meaning, column) of the columns that the file must have: the needed ones and those that the user named."""
        named = self.columns if self._chosen_columns else self.needed[self.stage]
        return [(meaning, self.columns[meaning]) for meaning in named if meaning in self.columns]

    def unmapped(self) -> list[str]:
        """The needed meanings that the mapping leaves out."""
        return [meaning for meaning in self.needed[self.stage] if meaning not in self.columns]

    def example(self, row: Row, origin: Origin) -> Example:
        """Raises RowError where the row cannot be used."""
        if type(row) is DoubledKeys:
            self.notes.add(f'the key "{row.key}" stands twice in one object, the last one is read', origin)
        example = self._build(row, origin)
        if _holds_nul(example):
            self.notes.add(_NUL, origin)
        return example

    def get(self, row: Row, meaning: str) -> Any:
        """The value of a column, None where it is not mapped or not there."""
        column = self.columns.get(meaning)
        return None if column is None else row.get(column)

    def extra(self, row: Row, *read: str) -> dict[str, Any]:
        """The columns of a row but for those of the meanings `read`."""
        names = {self.columns[meaning] for meaning in read if meaning in self.columns}
        return {name: value for name, value in row.items() if name not in names}


def _holds_nul(example: Example) -> bool:
    if isinstance(example, Text):
        return "\0" in example.text
    groups: tuple[Sequence[Message], ...]
    if isinstance(example, Preference):
        groups = (example.prompt, example.chosen, example.rejected)
    elif isinstance(example, Feedback):
        groups = (example.prompt, example.answer)
    else:
        groups = (example.messages,)
    for messages in groups:
        for message in messages:
            if "\0" in message.content or (message.reasoning and "\0" in message.reasoning):
                return True
    return False


def text_field(row: Row, column: str | None, *, optional: bool = False) -> str:
    """A text of the row. An optional one may be absent or null, and is then empty."""
    value = None if column is None else row.get(column)
    if value is None:
        if optional:
            return ""
        missing(row, column)
    return check_text(value, column)


def missing(row: Row, column: str | None) -> NoReturn:
    """Raises the RowError for a field that has no value."""
    if column not in row:
        raise RowError("E-DATA-011", "the column is missing", column)
    raise RowError("E-DATA-013", "the field is null", column)


def check_text(value: Any, field: str | None) -> str:
    """`value` if it is a text that a tokenizer can read."""
    if value is None:
        raise RowError("E-DATA-013", "the field is null", field)
    if not isinstance(value, str):
        raise RowError("E-DATA-014", f"the field is {kind_of(value)} where text is needed", field, value)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            got = value.encode("utf-8", "backslashreplace").decode()
            raise RowError("E-DATA-004", "the text holds half a character (a lone surrogate)", field, got) from None
    return value


def check_json(value: Any, field: str | None, depth: int = 0) -> None:
    """Raises RowError unless every text and number of a parsed JSON value is one that is written and read again the
    same everywhere."""
    if depth > DEEPEST:
        raise RowError("E-DATA-003", f"JSON nested more than {DEEPEST} levels deep", field)
    if isinstance(value, str):
        check_text(value, field)
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_text(key, field)
            check_json(inner, field, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            check_json(inner, field, depth + 1)
    elif isinstance(value, float):
        if not isfinite(value):
            raise RowError("E-DATA-003", "NaN or Infinity, which JSON has not", field, str(value))
    elif isinstance(value, int):
        if abs(value) > SAFE_INTEGER:
            reason = "a number beyond 2^53, which JSON readers do not keep exactly: write it as text"
            raise RowError("E-DATA-003", reason, field, str(value))
    elif value is not None:  # dates and bytes of a Parquet file
        raise RowError("E-DATA-014", f"{kind_of(value)} has no form in JSON", field, value)


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def kind_of(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
