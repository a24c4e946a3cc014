"""Rows to examples, format by format."""

from __future__ import annotations

import json

import pytest

from tunesmith.core.types import Chat, Message, Origin, Text, ToolCall
from tunesmith.data.detect import detect
from tunesmith.data.formats import FORMATS
from tunesmith.data.formats.turns import split_thought
from tunesmith.data.rows import RowError

HERE = Origin("x", 0)
SEARCH = {"name": "search", "description": "d", "parameters": {"type": "object"}}
SEARCH_OPENAI = {"type": "function", "function": SEARCH}
CALL = ToolCall("search", {"query": "kiln"})


def convert(name, row, stage="sft", columns=None, tags=None):
    return FORMATS.get(name)(stage, columns, tags).example(row, HERE)


def messages(name, row, **settings) -> list[Message]:
    return list(convert(name, row, **settings).messages)


def test_every_format_of_the_table_can_be_imported():
    assert {FORMATS.get(name).__name__ for name in FORMATS} == {"Alpaca", "ShareGPT", "OpenAI", "TRL", "PlainText"}


def test_alpaca_with_everything():
    row = {
        "instruction": "Sort",
        "input": "b a",
        "output": "<think>\neasy\n</think>\n\na b",
        "system": "Be brief.",
        "history": [["hi", "hello"]],
        "tools": json.dumps([SEARCH]),
    }
    assert convert("alpaca", row) == Chat(
        [
            Message("system", "Be brief."),
            Message("user", "hi"),
            Message("assistant", "hello"),
            Message("user", "Sort\nb a"),
            Message("assistant", "a b", reasoning="easy"),
        ],
        (SEARCH_OPENAI,),
        HERE,
    )


@pytest.mark.parametrize("missing", [{}, {"input": ""}, {"input": None, "history": None, "system": None, "tools": ""}])
def test_alpaca_optional_columns_may_be_absent_null_or_empty(missing):
    row = {"instruction": "hi", "output": "ho", **missing}
    assert messages("alpaca", row) == [Message("user", "hi"), Message("assistant", "ho")]


def test_alpaca_prompt_or_input_alone_is_the_prompt():
    assert messages("alpaca", {"instruction": "", "input": "b", "output": "c"})[0] == Message("user", "b")


def test_text_is_kept_as_it_is_blanks_included():
    row = {"instruction": " \n hi \t", "input": "", "output": "\n ho \n"}
    assert [message.content for message in messages("alpaca", row)] == [" \n hi \t", "\n ho \n"]


def test_a_columns_block_replaces_the_defaults():
    row = {"q": "hi", "a": "ho", "input": "not read", "system": "not read"}
    columns = {"prompt": "q", "response": "a"}
    assert [message.content for message in messages("alpaca", row, columns=columns)] == ["hi", "ho"]


def test_alpaca_for_pre_training_is_its_prompt():
    assert convert("alpaca", {"text": "Once."}, "pt", {"prompt": "text"}) == Text("Once.", HERE)


def test_plain_text():
    assert convert("text", {"text": "Once."}, "pt") == Text("Once.", HERE)
    assert convert("text", {"content": "Once."}, "pt", {"prompt": "content"}) == Text("Once.", HERE)


def test_sharegpt_with_tools():
    turns = [
        ("system", "s"),
        ("human", "u"),
        ("function_call", '<think>\nlook\n</think>\n{"name": "search", "arguments": {"query": "kiln"}}'),
        ("observation", '{"hits": 1}'),
        ("gpt", "one"),
    ]
    row = {"conversations": [{"from": who, "value": text} for who, text in turns], "tools": [SEARCH_OPENAI]}
    assert convert("sharegpt", row) == Chat(
        [
            Message("system", "s"),
            Message("user", "u"),
            Message("assistant", "", reasoning="look", tool_calls=(CALL,)),
            Message("tool", '{"hits": 1}'),
            Message("assistant", "one"),
        ],
        (SEARCH_OPENAI,),
        HERE,
    )


def test_sharegpt_knows_both_vocabularies_without_tags():
    row = {"conversations": [{"role": "user", "content": "u"}, {"from": "assistant", "value": "a"}]}
    assert messages("sharegpt", row) == [Message("user", "u"), Message("assistant", "a")]


def test_sharegpt_system_column_and_system_message():
    turns = [{"from": "human", "value": "u"}, {"from": "gpt", "value": "a"}]
    assert messages("sharegpt", {"conversations": turns, "system": "s"})[0] == Message("system", "s")
    own = [{"from": "system", "value": "own"}, *turns]
    assert messages("sharegpt", {"conversations": own, "system": "s"})[0] == Message("system", "own")


def test_several_calls_and_several_results():
    calls = json.dumps([{"name": "search", "arguments": {"query": "kiln"}}] * 2)
    turns = [("human", "u"), ("function_call", calls), ("observation", "1"), ("observation", "2"), ("gpt", "a")]
    found = messages("sharegpt", {"conversations": [{"from": who, "value": text} for who, text in turns]})
    assert found[1].tool_calls == (CALL, CALL)
    assert [message.role for message in found] == ["user", "assistant", "tool", "tool", "assistant"]


TAGS = {"role_tag": "who", "content_tag": "said", "user_tag": "U", "assistant_tag": "A"}


def test_tags_replace_the_defaults():
    row = {"messages": [{"who": "U", "said": "u"}, {"who": "A", "said": "a"}]}
    columns = {"messages": "messages"}
    for name in ("sharegpt", "openai"):
        assert messages(name, row, columns=columns, tags=TAGS) == [Message("user", "u"), Message("assistant", "a")]
    row["messages"].insert(0, {"who": "system", "said": "s"})
    with pytest.raises(RowError, match="unknown role 'system'"):
        messages("sharegpt", row, columns=columns, tags=TAGS)


def test_openai_with_everything():
    row = {
        "messages": [
            {"role": "developer", "content": "s"},
            {"role": "user", "content": [{"type": "text", "text": "u"}, {"type": "text", "text": "v"}]},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "look",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"query": "kiln"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "name": "search", "content": "1"},
            {"role": "assistant", "content": "one", "weight": 0},
        ],
        "tools": [SEARCH_OPENAI],
    }
    assert messages("openai", row) == [
        Message("system", "s"),
        Message("user", "uv"),
        Message("assistant", "", reasoning="look", tool_calls=(ToolCall("search", {"query": "kiln"}, "c1"),)),
        Message("tool", "1", tool_call_id="c1", name="search"),
        Message("assistant", "one", trained=False, weight=0.0),
    ]


def test_openai_rows_from_a_table_have_nulls_for_what_is_absent():
    empty = {"tool_calls": None, "tool_call_id": None, "reasoning_content": None, "weight": None}
    row = {"messages": [{"role": "user", "content": "u", **empty}, {"role": "assistant", "content": "a", **empty}]}
    assert messages("openai", {**row, "tools": None}) == [Message("user", "u"), Message("assistant", "a")]


def test_an_assistant_may_speak_and_call():
    call = {"function": {"name": "search", "arguments": {"query": "kiln"}}}
    row = {
        "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "wait", "tool_calls": [call]}]
    }
    assert messages("openai", row)[1] == Message("assistant", "wait", tool_calls=(CALL,))


@pytest.mark.parametrize(
    ("text", "thought", "rest"),
    [
        ("plain", None, "plain"),
        ("<think>a</think>b", "a", "b"),
        ("\n<think>\na\nb\n</think>\n\n c ", "a\nb", " c "),
        ("<think>\n\n</think>\n\nb", "", "b"),
        ("said <think>a</think>", None, "said <think>a</think>"),
        ("<think>never closed", None, "<think>never closed"),
    ],
)
def test_thoughts_at_the_start_are_split_off(text, thought, rest):
    assert split_thought(text) == (thought, rest)


@pytest.mark.parametrize(
    ("stage", "row", "found"),
    [
        (
            "sft",
            {"instruction": "", "input": "", "output": ""},
            "alpaca (prompt: instruction, query: input, response: output)",
        ),
        ("sft", {"id": 1, "prompt": "", "completion": ""}, "alpaca (prompt: prompt, response: completion)"),
        (
            "sft",
            {"question": "", "answer": "", "system": ""},
            "alpaca (prompt: question, response: answer, system: system)",
        ),
        ("sft", {"messages": [{"role": "user"}], "tools": ""}, "openai (messages: messages, tools: tools)"),
        ("sft", {"conversations": [{"role": "user"}]}, "openai (messages: conversations)"),
        (
            "sft",
            {"conversations": [{"from": "human"}], "system": ""},
            "sharegpt (messages: conversations, system: system)",
        ),
        ("sft", {"text": ""}, None),
        ("sft", {"instruction": "", "instances": []}, None),
        ("pt", {"text": "", "meta": ""}, "text (prompt: text)"),
        ("pt", {"content": ""}, "text (prompt: content)"),
        ("pt", {"instruction": "", "output": ""}, None),
    ],
)
def test_formats_are_told_by_their_columns(stage, row, found):
    layout = detect([row], stage)
    assert (layout and str(layout)) == found
