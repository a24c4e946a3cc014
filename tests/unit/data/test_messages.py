"""Messages in every form: both vocabularies, thoughts, calls, parts, weights; what is not read is said once."""

from __future__ import annotations

import json
import math

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.types import Message, Origin, ToolCall
from tunesmith.data.formats import FORMATS
from tunesmith.data.formats.messages import MESSAGE_KEYS, ROLES
from tunesmith.data.reading import load_datasets
from tunesmith.data.rows import RowError

HERE = Origin("x", 0)
U = {"role": "user", "content": "u"}
CALL = ToolCall("search", {"query": "kiln"})
WRITTEN = {"name": "search", "arguments": '{"query": "kiln"}'}


def answer(**changes):
    return {"role": "assistant", "content": "a", **changes}


def read(*turns, name="openai", stage="sft", **settings) -> list[Message]:
    column = "conversations" if name == "sharegpt" else "messages"
    return list(FORMATS.get(name)(stage, **settings).example({column: list(turns)}, HERE).messages)


def shared(*turns):
    return [{"from": who, "value": text} for who, text in turns]


@pytest.mark.parametrize("name", ["openai", "sharegpt"])
@pytest.mark.parametrize("word", ROLES)
def test_every_word_for_a_role_is_known_to_both_formats(name, word):
    content = json.dumps(WRITTEN) if ROLES[word] == "call" else "x"
    turn = {"from": word, "value": content} if name == "sharegpt" else {"role": word, "content": content}
    before = {"system": [], "user": []}.get(ROLES[word], [U])
    if ROLES[word] == "tool":
        before = [U, {"role": "function_call", "content": json.dumps(WRITTEN)}]
    after = {"system": [U, answer()], "user": [answer()], "tool": [answer()]}.get(ROLES[word], [])
    found = read(*before, turn, *after, name=name)[len(before)]
    assert found.role == ("assistant" if ROLES[word] == "call" else ROLES[word])


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_a_thought_has_a_key_of_its_own(key):
    assert read(U, answer(**{key: "hm"}))[1] == Message("assistant", "a", reasoning="hm")
    kept = read(U, answer(content="<think>x</think>a", **{key: "hm"}))[1]
    assert (kept.reasoning, kept.content) == ("hm", "<think>x</think>a")


def test_content_parts_are_joined_and_thoughts_in_them_kept_apart():
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "a"},
        {"type": "output_text", "text": "b"},
    ]
    assert read(U, answer(content=parts))[1] == Message("assistant", "ab", reasoning="hm")
    assert read({"role": "user", "content": [{"type": "input_text", "text": "u"}]}, answer())[0].content == "u"
    assert read(U, answer(content=[{"type": "refusal", "refusal": "no"}]))[1].content == "no"


@pytest.mark.parametrize(
    ("part", "code", "said"),
    [
        ({"type": "file", "file": {"file_id": "x"}}, "E-DATA-018", "'file'; read are: text"),
        ({"type": "input_audio", "input_audio": {}}, "E-MEDIA-032", "where a path"),
        ({"type": "tool_use"}, "E-DATA-018", "read are: text"),
        ({}, "E-DATA-018", "type None"),
        ("text", "E-DATA-014", "a content part is str"),
        ({"type": "text"}, "E-DATA-013", "null"),
        ({"type": "text", "text": 3}, "E-DATA-014", "a number"),
    ],
)
def test_parts_that_are_not_text_are_refused(part, code, said):
    with pytest.raises(RowError) as caught:
        read({"role": "user", "content": [part]}, answer())
    assert caught.value.code == code
    assert said in caught.value.reason
    assert caught.value.got.startswith("message 1 of 2")


def test_a_refusal_is_what_the_model_said():
    assert read(U, answer(content=None, refusal="I cannot."))[1].content == "I cannot."
    assert read(U, answer(content="a", refusal=None))[1].content == "a"


def test_calls_old_and_new_with_text_beside_and_parallel_results():
    turns = [
        U,
        answer(content="wait", tool_calls=[{"id": "1", "function": WRITTEN}, {"id": "2", "function": WRITTEN}]),
        {"role": "tool", "tool_call_id": "2", "content": "two"},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        answer(content=None, function_call=WRITTEN),
        {"role": "function", "name": "search", "content": "three"},
        answer(),
    ]
    found = read(*turns)
    assert found[1].content == "wait"
    assert [call.id for call in found[1].tool_calls] == ["1", "2"]
    assert [message.tool_call_id for message in found[2:4]] == ["2", "1"]
    assert found[4] == Message("assistant", "", tool_calls=(CALL,))
    assert found[5] == Message("tool", "three", name="search")


def test_names_are_kept_for_every_role():
    found = read({**U, "name": "Ann"}, answer(name="Bot"))
    assert [message.name for message in found] == ["Ann", "Bot"]


WEIGHTS = [
    ({}, None, None),
    ({"weight": 1}, True, 1.0),
    ({"weight": 0.25}, True, 0.25),
    ({"weight": 2}, True, 2.0),
    ({"weight": 0}, False, 0.0),
    ({"train": True}, True, None),
    ({"train": False}, False, None),
    ({"train": False, "weight": 0}, False, 0.0),
    ({"train": True, "weight": 3.5}, True, 3.5),
    ({"train": None, "weight": None}, None, None),
]


@pytest.mark.parametrize(("keys", "trained", "weight"), WEIGHTS)
def test_weights_of_messages_in_both_formats(keys, trained, weight):
    for found in (
        read(U, answer(**keys)),
        read(*shared(("human", "u")), {"from": "gpt", "value": "a", **keys}, name="sharegpt"),
        read(U, {"role": "function_call", "content": json.dumps(WRITTEN), **keys}),
    ):
        assert (found[1].trained, found[1].weight) == (trained, weight)


@pytest.mark.parametrize(
    "keys",
    [
        {"weight": -1},
        {"weight": "1"},
        {"weight": True},
        {"weight": math.nan},
        {"weight": math.inf},
        {"weight": 10**400},
        {"train": 1},
        {"train": "yes"},
        {"train": True, "weight": 0},
        {"train": False, "weight": 1},
    ],
)
def test_weights_that_mean_nothing(keys):
    with pytest.raises(RowError) as caught:
        read(U, answer(**keys))
    assert caught.value.code == "E-DATA-014"
    assert caught.value.got.startswith("message 2 of 2")


def test_unknown_keys_are_told_once(write):
    turns = [{**U, "id": 7, "mood": None}, answer(id=8)]
    null = [{**U, "id": None}, answer(id=None)]
    name = write("x.jsonl", [{"messages": null}, *[{"messages": turns}] * 3])
    (loaded,) = load_datasets(DataConfig(dataset=(name,)), stage="sft", seed=1)
    assert loaded.notices[1:] == ['messages in "messages" hold "id", which is not read (first: x.jsonl:2)']


def test_keys_that_are_read_are_not_told():
    format_ = FORMATS.get("openai")("sft")
    format_.example({"messages": [U, answer(**dict.fromkeys(MESSAGE_KEYS))]}, HERE)
    assert format_.notes.lines() == []


def test_consecutive_messages_are_joined_on_request():
    turns = shared(
        ("system", "s"),
        ("system", "t"),
        ("human", "u"),
        ("human", "v"),
        ("gpt", "<think>\nhm\n</think>\n\na"),
        ("function_call", json.dumps(WRITTEN)),
        ("observation", "1"),
        ("observation", "2"),
        ("gpt", "b"),
        ("gpt", "c"),
    )
    assert read(*turns, name="sharegpt", merge_consecutive=True) == [
        Message("system", "s\nt"),
        Message("user", "u\nv"),
        Message("assistant", "a", reasoning="hm", tool_calls=(CALL,)),
        Message("tool", "1"),
        Message("tool", "2"),
        Message("assistant", "b\nc"),
    ]


@pytest.mark.parametrize(
    ("turns", "place"),
    [
        ([U, U, answer()], "message 2 of 3"),
        ([U, answer(), answer()], "message 3 of 3"),
        ([{"role": "system", "content": "s"}] * 2 + [U, answer()], "message 2 of 4"),
    ],
)
def test_without_the_option_they_are_an_error_that_names_it(turns, place):
    with pytest.raises(RowError) as caught:
        read(*turns)
    assert caught.value.code == "E-DATA-016"
    assert caught.value.got.startswith(place)
    assert "merge_consecutive" in caught.value.fix


def test_messages_with_different_weights_are_not_joined():
    with pytest.raises(RowError, match="different loss weights"):
        read(U, answer(weight=1), answer(weight=0), merge_consecutive=True)


def test_merging_is_asked_for_in_the_table(write):
    write("data/x.jsonl", [{"messages": [U, U, answer()]}])
    entry = {"file_name": "x.jsonl", "formatting": "openai", "merge_consecutive": True}
    write("data/dataset_info.json", {"d": entry})
    (loaded,) = load_datasets(DataConfig(dataset=("d",)), stage="sft", seed=1)
    assert [message.content for message in loaded.examples[0].messages] == ["u\nu", "a"]


@pytest.mark.parametrize(
    ("turn", "code", "said"),
    [
        (answer(content=None), "E-DATA-013", "null"),
        ({"role": "assistant"}, "E-DATA-015", "without"),
        ({"role": 3, "content": "a"}, "E-DATA-015", "a role that is a number"),
        ({"content": "a"}, "E-DATA-015", 'without "role"'),
        (answer(name=3), "E-DATA-014", "a number"),
        (answer(content={"a": 1}), "E-DATA-014", "an object"),
        (answer(reasoning_content=["a"]), "E-DATA-014", "a list"),
        (answer(tool_calls="x"), "E-DATA-017", "not valid JSON"),
        (answer(tool_calls=[3]), "E-DATA-017", "without a name"),
        (answer(content="\ud800"), "E-DATA-004", "surrogate"),
        ("a", "E-DATA-014", "not an object"),
    ],
)
def test_faulty_messages_are_named_by_their_number(turn, code, said):
    with pytest.raises(RowError) as caught:
        read(U, turn)
    assert (caught.value.code, said in caught.value.reason) == (code, True)
    assert caught.value.got.startswith("message 2 of 2")


def test_calls_whose_arguments_no_reader_keeps():
    for arguments in (
        {"a": 2**53 + 1},
        {"a": [math.nan]},
        {"a": "\ud800"},
        {"\ud800": 1},
        json.loads("[" * 200 + "]" * 200),
    ):
        with pytest.raises(RowError):
            read(U, answer(tool_calls=[{"function": {"name": "f", "arguments": {"x": arguments}}}]))
    read(U, answer(tool_calls=[{"function": {"name": "f", "arguments": {"x": [2**53, -0.5, None, True, "é"]}}}]))
