"""Thoughts and tool calls that stand as markup in an assistant's text become structure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith.core.types import Message, Origin, ToolCall
from tunesmith.data.formats import FORMATS
from tunesmith.data.formats.markup import THOUGHT_ENDS, THOUGHT_MARKS, split_thought
from tunesmith.data.rows import RowError
from tunesmith.render.errors import RenderError
from tunesmith.render.slot_files import load_slots, template_names
from tunesmith.render.tools import DIALECTS, get_dialect
from tunesmith.render.tools.base import join_pieces

ORIGIN = Origin("rows.json", 0, 1)
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
        },
    }
]
CALLS = (ToolCall("weather", {"city": "Oslo", "days": 3}), ToolCall("weather", {"city": "5", "days": 1}))


def chat(answer: str, tools: Any = None, name: str = "sharegpt") -> list[Message]:
    row: dict[str, Any] = {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": answer}]}
    if tools:
        row["tools"] = json.dumps(tools)
    return list(FORMATS.get(name)("sft").example(row, ORIGIN).messages)  # type: ignore[union-attr]


def test_all_thought_marks_of_the_templates_are_known() -> None:
    pairs = set()
    for name in template_names():
        try:
            thinking = load_slots(name).thinking
        except RenderError:
            continue
        pairs.add((thinking.open.strip(), thinking.close.strip()))
    ends = {("", end) for end in THOUGHT_ENDS}
    assert pairs - {("", "")} <= set(THOUGHT_MARKS) | ends


@pytest.mark.parametrize("end", THOUGHT_ENDS)
def test_a_thought_may_begin_with_the_text(end: str) -> None:
    assert split_thought(f"why\n{end}\nanswer") == ("why", "answer")
    assert split_thought(f"{THOUGHT_ENDS[end]}\nwhy\n{end}\nanswer") == ("why", "answer")


@pytest.mark.parametrize("marks", THOUGHT_MARKS)
def test_a_thought_is_taken_out_in_every_form(marks: tuple[str, str]) -> None:
    first, last = marks
    assert split_thought(f"\n{first}\nwhy\n{last}\n\nanswer {first}") == ("why", f"answer {first}")
    assert split_thought(f"answer {first}why{last}") == (None, f"answer {first}why{last}")
    assert split_thought(f"{first}no end") == (None, f"{first}no end")


@pytest.mark.parametrize("name", [name for name in DIALECTS if get_dialect(name).in_content])
def test_calls_of_every_dialect_are_read_where_the_row_has_tools(name: str) -> None:
    dialect = get_dialect(name)
    calls = CALLS[: dialect.max_calls]
    content = "I look." if dialect.takes_content else ""
    written = join_pieces(dialect.write_calls(calls, content, TOOLS))
    reply = chat(f"<think>\nhm\n</think>\n\n{written}", TOOLS)[-1]
    assert reply.reasoning == "hm"
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [(call.name, call.arguments) for call in calls]
    assert reply.content == content
    assert reply.written == written.lstrip("\n")


def test_without_tools_prose_is_no_call_and_tags_are() -> None:
    react = 'Action: weather\nAction Input: {"city": "Oslo"}'
    assert chat(react)[-1] == Message("assistant", react)
    assert chat(react, TOOLS)[-1].tool_calls == (ToolCall("weather", {"city": "Oslo"}),)
    tagged = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    assert chat(tagged)[-1].tool_calls == (ToolCall("weather", {"city": "Oslo"}),)


@pytest.mark.parametrize(
    "answer",
    [
        '<tool_call>{"name": "weather", "arguments": {}}</tool_call> is how it is written',
        "<tool_call>not json</tool_call>",
        "a <tool_call> b",
    ],
)
def test_what_is_no_call_at_the_end_stays_text(answer: str) -> None:
    assert chat(answer, TOOLS)[-1] == Message("assistant", answer)


def test_a_function_message_may_hold_several_marked_calls_and_a_thought() -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "%s"}}\n</tool_call>'
    value = "<think>\nboth\n</think>\n" + call % "Oslo" + "\n" + call % "Rome"
    turns = [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": value},
        {"from": "observation", "value": "r"},
        {"from": "gpt", "value": "a"},
    ]
    found = FORMATS.get("sharegpt")("sft").example({"conversations": turns}, ORIGIN).messages  # type: ignore[union-attr]
    assert found[1].reasoning == "both"
    assert [call.arguments["city"] for call in found[1].tool_calls] == ["Oslo", "Rome"]


def test_a_result_behind_marked_calls_is_a_valid_chat() -> None:
    call = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    turns = [("human", "q"), ("gpt", call), ("observation", "sun"), ("gpt", "Sunny.")]
    row = {"conversations": [{"from": role, "value": value} for role, value in turns]}
    found = FORMATS.get("sharegpt")("sft").example(row, ORIGIN).messages  # type: ignore[union-attr]
    assert [message.role for message in found] == ["user", "assistant", "tool", "assistant"]
    turns[1] = ("gpt", "no call")
    row = {"conversations": [{"from": role, "value": value} for role, value in turns]}
    with pytest.raises(RowError, match="no tool call asked for"):
        FORMATS.get("sharegpt")("sft").example(row, ORIGIN)
