"""Answers have the fields that OpenAI's description requires (`required_fields.json`, from its openapi.yaml), and a
stream says what the whole answer does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.serving import by_seed, say, without_times

REQUIRED = json.loads((Path(__file__).parent / "required_fields.json").read_text(encoding="utf-8"))


def has(kind: str, found: dict[str, Any]) -> None:
    assert set(REQUIRED[kind]) <= found.keys(), kind


def events(text: str) -> list[dict[str, Any]]:
    parts = text.split("\n\n")
    assert parts[-1] == ""
    assert parts[-2] == "data: [DONE]"
    assert all(part.startswith("data: ") for part in parts[:-1])
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def check_chat(found: dict[str, Any]) -> None:
    chunk = found["object"] == "chat.completion.chunk"
    assert found["object"] in ("chat.completion", "chat.completion.chunk")
    has(found["object"], found)
    if found.get("usage"):
        has("usage", found["usage"])
    for choice in found["choices"]:
        has(found["object"] + "/choice", choice)
        if not chunk:
            has("chat.completion/message", choice["message"])
        for call in choice["delta" if chunk else "message"].get("tool_calls", ()):
            has("chat.completion.chunk/tool_call" if chunk else "tool_call", call)
        for one in (choice["logprobs"] or {}).get("content", ()):
            has("logprob", one)
            for top in one["top_logprobs"]:
                has("top_logprob", top)


@pytest.mark.parametrize("more", [{}, {"n": 2}, {"logprobs": True, "top_logprobs": 1}, {"max_tokens": 2}])
def test_required_fields_of_chats(site, more: dict[str, Any]) -> None:
    made = site()
    whole = made.chat(**more)
    assert whole.headers["content-type"] == "application/json"
    check_chat(whole.json)
    streamed = made.chat(stream=True, stream_options={"include_usage": True}, **more)
    assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
    for part in events(streamed.text):
        check_chat(part)


def test_required_fields_of_the_rest(site) -> None:
    made = site()
    body = {"model": "tiny", "prompt": "a", "logprobs": 1}
    whole = made.ask("POST", "/v1/completions", body).json
    parts = events(made.ask("POST", "/v1/completions", {**body, "stream": True}).text)
    for found in [whole, *parts]:
        has("text_completion", found)
        for choice in found["choices"]:
            has("text_completion/choice", choice)
    has("usage", whole["usage"])
    vectors = made.ask("POST", "/v1/embeddings", {"model": "tiny", "input": "a"}).json
    has("embeddings", vectors)
    has("embedding", vectors["data"][0])
    has("model", made.ask("GET", "/v1/models").json["data"][0])
    has("model", made.ask("GET", "/v1/models/tiny").json)
    has("error", made.ask("GET", "/nowhere").error)


CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "sea"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "look"}}]
WANTED = {
    "stop": {"stop": [", ", "two one"]},
    "n": {"n": 2},
    "tools": {"tools": TOOLS},
    "json": {"response_format": {"type": "json_object"}},
}


def joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client makes of a stream."""
    choices: dict[int, dict[str, Any]] = {}
    for part in parts:
        for choice in part["choices"]:
            known = choices.setdefault(choice["index"], {"content": "", "calls": {}, "reason": None})
            delta = choice["delta"]
            known["content"] += delta.get("content") or ""
            known["reason"] = choice["finish_reason"] or known["reason"]
            for call in delta.get("tool_calls", ()):
                one = known["calls"].setdefault(call["index"], {"name": "", "arguments": ""})
                one["name"] += call["function"].get("name", "")
                one["arguments"] += call["function"]["arguments"]
    return [choices[index] for index in sorted(choices)]


def told(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "content": choice["message"]["content"] or "",
            "calls": dict(enumerate(call["function"] for call in choice["message"].get("tool_calls", ()))),
            "reason": choice["finish_reason"],
        }
        for choice in answer["choices"]
    ]


def compare(site: Any, kind: str, seeds: range) -> None:
    from dataclasses import replace

    from tunesmith.render import make_renderer

    made = site(lambda request: [*by_seed(request), *(["\n", CALL] if (request.sampling.seed or 0) % 2 else [])])
    engine = made.engine
    engine.renderer = make_renderer(replace(engine.config.template, template="qwen"), engine.tokenizer)
    for seed in seeds:
        whole = made.chat(seed=seed, **WANTED[kind])
        assert whole.status == 200, whole.text
        parts = events(made.chat(seed=seed, stream=True, **WANTED[kind]).text)
        assert joined(parts) == told(whole.json), seed
        assert "\ufffd" not in whole.text


@pytest.mark.parametrize("kind", WANTED)
def test_a_stream_joins_to_the_whole_answer(site, kind: str) -> None:
    compare(site, kind, range(12))


@pytest.mark.slow
@pytest.mark.parametrize("kind", WANTED)
def test_a_stream_joins_to_the_whole_answer_for_many_seeds(site, kind: str) -> None:
    compare(site, kind, range(200))


def test_a_seed_gives_the_same_answer_again(site) -> None:
    made = site()
    assert without_times(made.chat(seed=3).json) == without_times(made.chat(seed=3).json)
    assert made.chat(seed=3).json["choices"] != made.chat(seed=4).json["choices"]


def test_tokens_and_back(site) -> None:
    made = site()
    found = made.ask("POST", "/tokenize", {"prompt": "a cat <|im_end|>"}).json
    assert found["count"] == len(found["tokens"])
    assert not set(found["tokens"]) & set(made.engine.renderer.control.ids)  # look-alikes stay text
    assert made.ask("POST", "/detokenize", {"tokens": found["tokens"]}).json == {"prompt": "a cat <|im_end|>"}
    chat = made.ask("POST", "/tokenize", {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}).json
    made.chat("hello")
    assert tuple(chat["tokens"]) == made.engine.requests[0].prompt
    assert made.ask("POST", "/tokenize", {}).error["param"] == "prompt"
    assert made.ask("POST", "/detokenize", {"tokens": [10**6]}).error["param"] == "tokens"


def test_metrics_count(site) -> None:
    made = site(say("abc"))
    made.chat()
    made.chat(temperature=-1)
    found = made.ask("GET", "/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = found.text.splitlines()
    route = 'method="POST",route="/v1/chat/completions"'
    for line in (
        f'tunesmith_requests_total{{{route},status="200"}} 1',
        f'tunesmith_requests_total{{{route},status="400"}} 1',
        'tunesmith_rejected_total{code="invalid_value"} 1',
        'tunesmith_replies_total{reason="stop"} 1',
        "tunesmith_completion_tokens_total 4",
        "tunesmith_first_text_seconds_count 1",
        "tunesmith_engine_running 0",
    ):
        assert line in lines
    for line in lines:
        assert line.startswith("#") or len(line.rsplit(" ", 1)) == 2
