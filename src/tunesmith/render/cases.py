"""Hostile conversations for comparing templates: the catalog's, as chats."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from tunesmith.core.types import Chat, Message, ToolCall

__all__ = ["TOOLS", "builtin_chats"]


def _tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = (
    _tool(
        "get_weather",
        'Weather of a city: <b>now</b> & "soon".',
        city={"type": "string", "description": "Name of the city, as in Tromsø."},
        days={"type": "integer", "description": "How many days."},
    ),
    _tool("list_cities", "All cities."),
    _tool(
        "plan",
        "A plan.",
        stops={"type": "array", "items": {"type": "object"}, "description": "Where to stop."},
        fast={"type": "boolean", "description": "In a hurry."},
        limit={"type": "number", "description": "At most."},
        note={"type": "string", "description": "Anything else.", "enum": ["x", "y"]},
    ),
)


@cache
def builtin_chats(tools: bool = False) -> Mapping[str, Chat]:
    """The hostile conversations of `catalog/conversations`, by name: plain ones, or those with tools.

    Calls have ids of nine characters, which is what Mistral's templates want.
    """
    file = files("tunesmith").joinpath("catalog", "conversations", "tools.yaml" if tools else "plain.yaml")
    found = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {name: Chat(_messages(rows), TOOLS if tools else ()) for name, rows in found.items()}


def _messages(rows: list[Any]) -> tuple[Message, ...]:
    messages = []
    called: list[str] = []  # ids of calls that wait for their results
    made = 0
    for row in rows:
        if isinstance(row, list):
            row = dict(zip(("role", "content", "reasoning"), row, strict=False))
        calls = []
        for call in row.get("calls", ()):
            made += 1
            called.append(f"call{made:05d}")
            calls.append(ToolCall(call["name"], call["arguments"], called[-1]))
        answered = called.pop(0) if row["role"] == "tool" else None
        reasoning, name = row.get("reasoning"), row.get("name")
        messages.append(Message(row["role"], row["content"], reasoning, tuple(calls), answered, name))
    return tuple(messages)
