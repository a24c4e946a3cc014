"""The official client of any release: what all of them have. `make test-clients` runs it with the oldest 1.x that
works; tests/unit/serve/test_client.py has the rest, for the present one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

HELLO: list[Any] = [{"role": "user", "content": "What does a cat like?"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ENOUGH = 700


@pytest.fixture
def client(served: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.url, api_key=served.key, max_retries=0) as made:
        yield made


def ask(client: openai.OpenAI, messages: Any = HELLO, **more: Any) -> Any:
    settings = {"model": "tiny", "max_tokens": 40, "temperature": 0.0, **more}
    return client.chat.completions.create(messages=messages, **settings)


def test_an_answer_a_stream_and_several(client: openai.OpenAI) -> None:
    said = ask(client)
    assert said.choices[0].message.content
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens
    chunks = list(ask(client, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == said.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == said.choices[0].finish_reason
    assert len(ask(client, n=3, temperature=1.0, seed=3, stop=["zz"]).choices) == 3


def test_a_loop_of_tools(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    named = {"type": "function", "function": {"name": "weather"}}
    asked = ask(client, messages, tools=[WEATHER], tool_choice=named, max_tokens=ENOUGH).choices[0]
    (call,) = asked.message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")
    messages += [asked.message.model_dump(exclude_none=True)]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert ask(client, messages, tools=[WEATHER], tool_choice="none").choices[0].message.content


def test_an_answer_by_a_schema(client: openai.OpenAI) -> None:
    schema = {"name": "pet", "schema": {"enum": ["cat", "dog"]}, "strict": True}
    said = ask(client, response_format={"type": "json_schema", "json_schema": schema}).choices[0].message.content
    assert json.loads(said) in ("cat", "dog")


def test_texts_and_vectors(client: openai.OpenAI) -> None:
    assert client.completions.create(model="tiny", prompt="A cat", max_tokens=8).choices[0].text
    found = client.embeddings.create(model="tiny", input=["a cat", "a dog"]).data
    assert len(found[0].embedding) == len(found[1].embedding)
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_errors_have_their_classes(client: openai.OpenAI, served: Any) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ask(client, model="nobody")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        ask(client, temperature=7)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        ask(openai.OpenAI(base_url=served.url, api_key="wrong-key-of-some-length", max_retries=0))
