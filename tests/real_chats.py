"""Chats of public data, from the folder of assets: instructions, conversations, tools, reasoning with tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunesmith.core.types import Chat, Message, ToolCall

__all__ = ["alpaca", "glaive", "reasoning", "sharegpt"]


def alpaca(assets: Path) -> Iterator[Chat]:
    """5,000 single turns."""
    for row in _json(assets / "data" / "sft" / "alpaca_5000.json"):
        question = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        yield Chat((Message("user", question), Message("assistant", row["output"])))


def sharegpt(assets: Path) -> Iterator[Chat]:
    """500 chats, two of three with several turns."""
    for row in _json(assets / "data" / "sft" / "sharegpt_500.json"):
        yield Chat(_turns(row))


def glaive(assets: Path) -> Iterator[Chat]:
    """300 chats with tools, their calls and results."""
    for row in _json(assets / "data" / "tools" / "glaive_toolcall_en_demo.json"):
        yield Chat(_turns(row), _tools(row["tools"]))


def reasoning(assets: Path) -> Iterator[Chat]:
    """50 chats with tools and thoughts; each part of a message has a type."""
    for line in (assets / "data" / "tools" / "reason_tool_use_demo_50.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        messages = []
        for message in row["messages"]:
            parts = [(part["type"], part["value"]) for part in message["content"]]
            told = {kind: "".join(value for other, value in parts if other == kind) for kind, _ in parts}
            calls = tuple(_call(value) for kind, value in parts if kind == "tool_call")
            text = "".join(value for kind, value in parts if kind not in ("reasoning", "tool_call"))
            messages.append(Message(message["role"], text, told.get("reasoning"), calls))
        yield Chat(messages, _tools(row["tools"]))


def _json(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return rows


def _turns(row: dict[str, Any]) -> list[Message]:
    system = [Message("system", row["system"])] if row.get("system") else []
    return [*system, *(_turn(turn["from"], turn["value"]) for turn in row["conversations"])]


def _turn(role: str, value: str) -> Message:
    if role == "function_call":
        return Message("assistant", "", tool_calls=(_call(value),))
    roles: dict[str, Any] = {"human": "user", "gpt": "assistant", "observation": "tool"}
    return Message(roles[role], value)


def _call(value: str) -> ToolCall:
    call = json.loads(value)
    return ToolCall(call["name"], call["arguments"])


def _tools(text: str) -> list[dict[str, Any]]:
    tools = json.loads(text) if text else []
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in tools]
