"""Tool calls of public data, from the folder of assets: BFCL, glaive, reasoning with tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.core.types import ToolCall

__all__ = ["RealCase", "bfcl", "glaive", "real_cases", "reasoning"]


@dataclass(frozen=True)
class RealCase:
    where: str
    tools: list[dict[str, Any]]
    calls: list[ToolCall]
    content: str = ""


def real_cases(assets: Path) -> list[RealCase]:
    folder = assets / "data" / "tools"
    return [*bfcl(folder, "simple_python"), *bfcl(folder, "parallel"), *glaive(folder), *reasoning(folder)]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def bfcl(folder: Path, part: str) -> Iterator[RealCase]:
    """The first of the answers that are right."""
    questions = {row["id"]: row for row in _lines(folder / f"BFCL_v4_{part}.json")}
    for row in _lines(folder / f"possible_answer_{part}.json"):
        calls = [
            ToolCall(name, {key: _first(values) for key, values in arguments.items() if _first(values) != ""})
            for answer in row["ground_truth"]
            for name, arguments in answer.items()
        ]
        yield RealCase(row["id"], questions[row["id"]]["function"], calls)


def _first(values: list[Any]) -> Any:
    value = values[0]
    if isinstance(value, dict):  # its values are lists of right answers too
        return {key: _first(inner) if isinstance(inner, list) else inner for key, inner in value.items()}
    return value


def glaive(folder: Path) -> Iterator[RealCase]:
    rows = json.loads((folder / "glaive_toolcall_en_demo.json").read_text(encoding="utf-8"))
    for number, row in enumerate(rows):
        for turn in row["conversations"]:
            if turn["from"] == "function_call":
                call = json.loads(turn["value"])
                yield RealCase(
                    f"glaive_{number}", json.loads(row["tools"]), [ToolCall(call["name"], call["arguments"])]
                )


def reasoning(folder: Path) -> Iterator[RealCase]:
    for number, row in enumerate(_lines(folder / "reason_tool_use_demo_50.jsonl")):
        tools = json.loads(row["tools"])
        for message in row["messages"]:
            parts = [(part["type"], part["value"]) for part in message["content"]]
            calls = [json.loads(value) for kind, value in parts if kind == "tool_call"]
            if calls:
                text = "".join(value for kind, value in parts if kind == "text")
                made = [ToolCall(call["name"], call["arguments"]) for call in calls]
                yield RealCase(f"reason_{number}", tools, made, text)
