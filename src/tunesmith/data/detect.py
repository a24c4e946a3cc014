"""Guess the format and the columns of a file that has no entry in dataset_info.json, from its first rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Layout", "detect", "snippet", "unreadable"]

# Names that stand for one meaning, the likeliest first. `instruction` before `prompt`: rows with both have the task
# there.
PROMPT = ("instruction", "prompt", "question", "query", "problem")
RESPONSE = ("output", "response", "answer", "completion", "solution")
QUERY = ("input", "context")
TEXT = ("text", "content")
MESSAGES = ("messages", "conversations", "conversation")
OPTIONAL = ("history", "system", "tools")
MEDIA = ("image", "images", "video", "videos", "audio", "audios")
PAIR = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Layout:
    """A format and the column for each meaning."""

    format: str
    columns: Mapping[str, str]

    def __str__(self) -> str:
        return f"{self.format} ({', '.join(f'{meaning}: {column}' for meaning, column in self.columns.items())})"


def detect(rows: Sequence[Mapping[str, Any]], stage: str) -> Layout | None:
    """The layout that the keys of the first rows show, None where they show none for the stage."""
    names = dict.fromkeys(name for row in rows for name in row)
    if stage == "pt":
        column = next((name for name in TEXT if name in names), None)
        return Layout("text", {"prompt": column}) if column else None
    for column in MESSAGES:
        if column in names and (chat := _chat_format(rows, column)):
            found = {"messages": column}
            found.update({name: name for name in ("system", "tools") if name in names})
            return Layout(chat, found)
    prompt = next((name for name in PROMPT if name in names), None)
    response = next((name for name in RESPONSE if name in names), None)
    if prompt is None or response is None:
        return None
    columns = {"prompt": prompt}
    if query := next((name for name in QUERY if name in names), None):
        columns["query"] = query
    columns["response"] = response
    columns.update({name: name for name in OPTIONAL if name in names})
    return Layout("alpaca", columns)


def unreadable(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What the first rows hold that no format can use, so that training on the rest would be wrong."""
    names = {name for row in rows for name, value in row.items() if value}
    if media := [name for name in MEDIA if name in names]:
        return f'a column "{media[0]}"; this version trains on text only'
    if all(name in names for name in PAIR):
        return "pairs of a chosen and a rejected answer, which this version cannot train on"
    return None


def _chat_format(rows: Sequence[Mapping[str, Any]], column: str) -> str | None:
    for row in rows:
        turns = row.get(column)
        if isinstance(turns, list) and turns and isinstance(turns[0], dict):
            if "role" in turns[0]:
                return "openai"
            if "from" in turns[0]:
                return "sharegpt"
    return None


def snippet(file_name: str, layout: Layout | None, stage: str) -> str:
    """An entry for dataset_info.json to paste, in one line."""
    if layout is None:
        other = {"prompt": "<column>"} if stage == "pt" else {"prompt": "<column>", "response": "<column>"}
        layout = Layout("alpaca", other)
    columns = ", ".join(f'"{meaning}": "{column}"' for meaning, column in layout.columns.items())
    return f'{{"my_data": {{"file_name": "{file_name}", "formatting": "{layout.format}", "columns": {{{columns}}}}}}}'
