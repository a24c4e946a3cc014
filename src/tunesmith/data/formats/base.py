"""What all formats share: the mapping of columns, and reading one field of a row with a reason where it is unfit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from tunesmith.core.types import Example, Origin
from tunesmith.data.rows import RowError

__all__ = ["Format", "check_text", "is_blank", "text_field"]

Row = Mapping[str, Any]


class Format:
    """Turns rows into examples of one stage.

    `columns` maps what a column means (`prompt`, `messages`, ...) to its name. None stands for `default_columns`; a
    mapping replaces them all, as everywhere in this field: what it does not list is not read. `tags` likewise.
    """

    default_columns: ClassVar[Mapping[str, str]] = {}
    needed: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Per stage, the meanings without which a row is nothing. The format does not serve a stage that is not listed."""

    def __init__(
        self, stage: str, columns: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        assert stage in self.needed, f"{type(self).__name__} has no examples for stage {stage}"
        self.stage = stage
        self.columns = dict(self.default_columns if columns is None else columns)
        self.tags = tags
        self._chosen_columns = columns is not None
        self._build: Callable[[Row, Origin], Example] = getattr(self, stage)

    def expected(self) -> list[tuple[str, str]]:
        """(meaning, column) of the columns that the file must have: the needed ones and those that the user named."""
        named = self.columns if self._chosen_columns else self.needed[self.stage]
        return [(meaning, self.columns[meaning]) for meaning in named if meaning in self.columns]

    def unmapped(self) -> list[str]:
        """The needed meanings that the mapping leaves out."""
        return [meaning for meaning in self.needed[self.stage] if meaning not in self.columns]

    def example(self, row: Row, origin: Origin) -> Example:
        """Raises RowError where the row cannot be used."""
        return self._build(row, origin)

    def get(self, row: Row, meaning: str) -> Any:
        """The value of a column, None where it is not mapped or not there."""
        column = self.columns.get(meaning)
        return None if column is None else row.get(column)


def text_field(row: Row, column: str | None, *, optional: bool = False) -> str:
    """A text of the row. An optional one may be absent or null, and is then empty."""
    value = None if column is None else row.get(column)
    if value is None:
        if optional:
            return ""
        if column not in row:
            raise RowError("E-DATA-011", "the column is missing", column)
        raise RowError("E-DATA-013", "the field is null", column)
    return check_text(value, column)


def check_text(value: Any, field: str | None) -> str:
    """`value` if it is a text that a tokenizer can read."""
    if value is None:
        raise RowError("E-DATA-013", "the field is null", field)
    if not isinstance(value, str):
        raise RowError("E-DATA-014", f"the field is {_kind(value)} where text is needed", field, value)
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            got = value.encode("utf-8", "backslashreplace").decode()
            raise RowError("E-DATA-004", "the text holds half a character (a lone surrogate)", field, got) from None
    return value


def is_blank(text: str) -> bool:
    return not text or text.isspace()


def _kind(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
