"""What clients send: every field is read, ignored as documented, or refused; and limits are where the table says."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsBase as ChatFields
from openai.types.completion_create_params import CompletionCreateParamsBase as CompletionFields
from openai.types.embedding_create_params import EmbeddingCreateParams as EmbeddingFields

from tunesmith.core.types import PLACE, Message, ToolCall
from tunesmith.serve import embeddings, request
from tunesmith.serve.errors import ApiError
from tunesmith.serve.limits import LIMITS
from tunesmith.serve.request import IGNORED, ToolChoice, read_chat, read_completion

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def chat(**fields: Any) -> request.ChatRequest:
    return read_chat({"model": "m", "messages": HELLO, **fields})


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError) as caught:
        chat(**fields)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("names", "tables"),
    [
        (ChatFields, (request._CHAT, request._REFUSED_IN_CHAT)),
        (CompletionFields, (request._COMPLETION, request._REFUSED_IN_COMPLETIONS)),
        (EmbeddingFields, (embeddings._FIELDS, embeddings._REFUSED)),
    ],
)
def test_every_field_of_the_official_client_is_in_a_table(names: Any, tables: tuple[Any, ...]) -> None:
    known = {*IGNORED, *(name for table in tables for name in table), "stream"}
    assert set(names.__annotations__) - known == set()


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_for_the_providers_books_changes_nothing(name: str) -> None:
    assert chat(**{name: "anything"}) == chat()


@pytest.mark.parametrize("name", [*request._REFUSED_IN_CHAT, "best_of", "sausage"])
def test_what_cannot_be_honoured_is_refused_with_its_name(name: str) -> None:
    error = refused(**{name: "high"})
    assert (error.param, error.code) == (name, "unsupported_parameter")
    assert name in error.message
    assert chat(**{name: None}) == chat()


def test_a_misspelt_field_gets_a_hint() -> None:
    assert "temperature" in refused(temprature=1).message


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("temperature", [0, 2, 1.5], [-0.01, 2.01, "1", True]),
        ("top_p", [0, 1], [-0.1, 1.1, []]),
        ("top_k", [0, 50], [-1, 1.5]),
        ("min_p", [0, 1], [-0.1, 1.1]),
        ("presence_penalty", [-2, 0, 2], [-2.1, 2.1, {}]),
        ("frequency_penalty", [-2, 0, 2], [-2.1, 2.1]),
        ("repetition_penalty", [0.1, 10], [0, -1, 10.1]),
        ("n", [1, LIMITS.choices, 2.0], [0, -5, LIMITS.choices + 1, "2", 1.5, True]),
        ("max_tokens", [1], [0, -5, 1.5]),
        ("max_completion_tokens", [1], [0, -5, "3"]),
        ("seed", [0, -(2**63), 2**63 - 1], [2**63, 0.5, "1"]),
        ("stop", ["a", [], ["a"] * 4, "x" * 64], ["", [""], ["a"] * 5, "x" * 65, [1], 1]),
        ("stream", [True, False], ["true", 1]),
        ("logit_bias", [{}, {"5": 100, "6": -100}], [{"5": 101}, {"five": 1}, {"-1": 1}, {"5": "1"}, []]),
        ("messages", [HELLO * LIMITS.messages], [[], HELLO * (LIMITS.messages + 1), {}, ["hello"], [None]]),
        ("modalities", [["text"]], [["text", "audio"], "text"]),
        ("model", ["m"], ["", 5, "m" * 257]),
        ("chat_template_kwargs", [{"enable_thinking": False}], [{"enable_thinking": 1}, {"other": 1}]),
    ],
)
def test_values_at_their_limits(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        chat(**{field: value})
    for value in bad:
        error = refused(**{field: value})
        assert error.param is not None
        assert error.param.startswith(field), value


@pytest.mark.parametrize("most", [LIMITS.tools])
def test_the_number_of_tools(most: int) -> None:
    def many(count: int) -> list[Any]:
        return [{"type": "function", "function": {"name": f"f{index}"}} for index in range(count)]

    assert len(chat(tools=many(most)).tools) == most
    assert refused(tools=many(most + 1)).param == "tools"


@pytest.mark.parametrize(
    "fields",
    [
        {"top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 21},
        {"stream_options": {"include_usage": True}},
        {"tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "other"}}},
        {"tools": [TOOL], "tool_choice": "sometimes"},
        {"tools": [TOOL], "tool_choice": "required", "response_format": {"type": "json_object"}},
        {"tools": [TOOL, TOOL]},
        {"tools": [{"type": "custom", "custom": {"name": "x"}}]},
        {"tools": [{"type": "function", "function": {"name": "no blanks"}}]},
        {"parallel_tool_calls": False},
        {"response_format": {"type": "yaml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_object", "json_schema": {"name": "a"}}},
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any]) -> None:
    assert refused(**fields).param


def test_a_required_field_that_is_missing() -> None:
    for name in ("model", "messages"):
        error = refused(**{name: None})
        assert (error.param, error.code) == (name, "missing_required_parameter")


def test_what_a_request_asks_for_arrives() -> None:
    found = chat(
        temperature=0.5, top_p=0.9, seed=-1, stop="end", logprobs=True, top_logprobs=3, n=2, max_tokens=5,
        max_completion_tokens=7, logit_bias={"9": -100}, presence_penalty=1, frequency_penalty=-1,
    )  # fmt: skip
    assert found.max_tokens == 7
    assert found.n == 2
    assert found.sampling == {
        "temperature": 0.5, "top_p": 0.9, "seed": 2**63 - 1, "stop": ("end",), "logprobs": 3, "do_sample": True,
        "logit_bias": {9: -100.0}, "presence_penalty": 1.0, "frequency_penalty": -1.0,
    }  # fmt: skip
    assert chat(logprobs=True).sampling == {"logprobs": 0}
    assert chat(top_p=0).sampling == {"do_sample": False}


def test_each_of_several_replies_has_a_seed_of_its_own() -> None:
    from tunesmith.config.generate import GenerateConfig

    seeds = [one.seed for one in chat(n=3, seed=2**63 - 1).samplings(GenerateConfig(), None)]
    assert seeds == [2**63 - 1, 0, 1]
    assert [one.seed for one in chat(n=2).samplings(GenerateConfig(), None)] == [None, None]


def test_the_reply_is_as_long_as_asked_or_as_the_config_says_or_as_there_is_room() -> None:
    from tunesmith.config.generate import GenerateConfig

    defaults = GenerateConfig(max_new_tokens=100)
    assert chat(max_tokens=7).samplings(defaults, 50)[0].max_new_tokens == 7
    assert chat().samplings(defaults, 50)[0].max_new_tokens == 50
    assert chat().samplings(defaults, None)[0].max_new_tokens == 100


def test_messages_of_all_kinds() -> None:
    call = {"id": "abc", "type": "function", "function": {"name": "look", "arguments": '{"at": "sea"}'}}
    found = chat(
        messages=[
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "name": "Ann"},
            {"role": "assistant", "content": None, "refusal": None, "reasoning_content": "hm", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "abc", "content": "blue"},
            {"role": "assistant", "content": None, "refusal": "no", "annotations": [], "audio": None},
        ]
    ).messages
    assert found == [
        Message("system", "Be kind."),
        Message("user", "ab", name="Ann"),
        Message("assistant", "", reasoning="hm", tool_calls=(ToolCall("look", {"at": "sea"}, "abc"),)),
        Message("tool", "blue", tool_call_id="abc", name="look"),
        Message("assistant", "no"),
    ]


URL = "data:image/png;base64,AAAA"
PICTURE = {"type": "image_url", "image_url": {"url": URL, "detail": "auto"}}
SOUND = "messages[1].content[0].input_audio"


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "wizard", "content": "a"}, "messages[1].role"),
        ({"content": "a"}, "messages[1].role"),
        ({"role": "function", "name": "f", "content": "a"}, "messages[1].role"),
        ({"role": "user"}, "messages[1].content"),
        ({"role": "user", "content": 5}, "messages[1].content"),
        ({"role": "user", "content": "a", "tool_calls": []}, "messages[1].tool_calls"),
        ({"role": "assistant"}, "messages[1].content"),
        ({"role": "tool", "content": "a"}, "messages[1].tool_call_id"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[1].content[0].text"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[1].content[0].image_url"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "messages[1].content[0].image_url.url"),
        ({"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklG"}}]}, SOUND + ".format"),
        ({"role": "user", "content": [{"type": "file", "file": {"file_id": "a"}}]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "colour"}]}, "messages[1].content[0].type"),
        ({"role": "system", "content": [PICTURE]}, "messages[1].content[0].image_url.url"),
        ({"role": "assistant", "content": [PICTURE]}, "messages[1].content[0].image_url.url"),
        ({"role": "user", "content": [PICTURE] * 17}, "messages[1].content[16].image_url.url"),
        (
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "{"}}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": "[1]"}}]},
            "messages[1].tool_calls[0].function.arguments",
        ),
    ],
)
def test_a_message_that_is_wrong_is_named(message: dict[str, Any], param: str) -> None:
    assert refused(messages=[*HELLO, message]).param == param


def test_media_stand_where_they_were_among_the_texts() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
    film = {"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}
    texts = [{"type": "text", "text": text} for text in ("See ", f" and {PLACE}", ".")]
    found = chat(messages=[*HELLO, {"role": "user", "content": [texts[0], PICTURE, texts[1], sound, texts[2], film]}])
    message = found.messages[1]
    assert message.content == f"See {PLACE} and \ufffd{PLACE}.{PLACE}"
    assert [medium.kind for medium in message.media] == ["image", "audio", "video"]
    assert [medium.source for medium in message.media] == [
        URL,
        "data:audio/wav;base64,UklG",
        "https://example.org/a.mp4",
    ]
    names = ["[1].image_url.url", "[3].input_audio.data", "[5].video_url.url"]
    assert list(found.messages.places) == [f"messages[1].content{name}" for name in names]
    plain = chat(messages=[{"role": "user", "content": f"what is {PLACE}?"}]).messages[0]
    assert plain.content == f"what is {PLACE}?"


def test_tool_choice() -> None:
    assert chat(tools=[TOOL]).choice == ToolChoice("auto")
    assert chat(tools=[TOOL], tool_choice="none").tools == []
    named = {"type": "function", "function": {"name": "look"}}
    assert chat(tools=[TOOL], tool_choice=named).choice == ToolChoice("required", "look")


def completion(**fields: Any) -> request.CompletionRequest:
    return read_completion({"model": "m", "prompt": "a", **fields})


def test_prompts_of_all_kinds() -> None:
    assert completion().prompts == ["a"]
    assert completion(prompt=["a", "b"]).prompts == ["a", "b"]
    assert completion(prompt=[1, 2]).prompts == [[1, 2]]
    assert completion(prompt=[[1], [2, 3]]).prompts == [[1], [2, 3]]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": []},
        {"prompt": [[]]},
        {"prompt": ["a", 1]},
        {"prompt": [1, "a"]},
        {"prompt": [-1]},
        {"prompt": {}},
        {"prompt": ["a"] * (LIMITS.prompts + 1)},
        {"prompt": ["a"] * 16, "n": 5},
        {"best_of": 2},
        {"suffix": "b"},
        {"echo": True, "logprobs": 1},
        {"logprobs": True},
        {"messages": HELLO},
        {"max_completion_tokens": 5},
    ],
)
def test_completions_that_cannot_be_made(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        completion(**fields)
    assert caught.value.status == 400
