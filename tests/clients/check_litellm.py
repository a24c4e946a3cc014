"""litellm: create, stream, a loop of tools, answers as pydantic models, embeddings, errors."""

from __future__ import annotations

import json
import os
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network when it is imported

import litellm


class Pet(BaseModel):
    """A pet."""

    kind: Literal["cat", "dog"]
    age: int = Field(ge=0, le=20)


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ENOUGH = 700
"""Tokens: a call may have many blanks in it, as the model is not clever."""
HELLO = [{"role": "user", "content": "What does a cat like?"}]


def ask(served: Any, messages: Any = HELLO, **more: Any) -> Any:
    model = more.pop("model", served.model)
    settings = {"api_base": served.url, "api_key": served.key, "num_retries": 0, "max_tokens": 40, "temperature": 0.0}
    return litellm.completion(model=f"openai/{model}", messages=messages, **{**settings, **more})


def test_an_answer_and_its_usage(served: Any) -> None:
    said = ask(served)
    assert said.choices[0].message.content
    assert said.choices[0].finish_reason in ("stop", "length")
    assert said.usage.total_tokens == said.usage.prompt_tokens + said.usage.completion_tokens


def test_a_stream_says_the_same(served: Any) -> None:
    chunks = list(ask(served, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ask(served).choices[0].message.content
    whole = litellm.stream_chunk_builder(chunks, messages=HELLO)
    assert whole.choices[0].message.content == text
    assert whole.usage.completion_tokens == ask(served).usage.completion_tokens


def test_several_answers_and_log_probabilities(served: Any) -> None:
    said = ask(served, n=2, temperature=1.0, seed=4, logprobs=True, top_logprobs=2)
    assert len({choice.message.content for choice in said.choices}) == 2
    assert all(choice.logprobs.content for choice in said.choices)


def test_a_loop_of_tools(served: Any) -> None:
    messages: list[Any] = [{"role": "user", "content": "How is the weather in Rome?"}]
    asked = ask(served, messages, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_tokens=ENOUGH)
    message = asked.choices[0].message
    assert asked.choices[0].finish_reason == "tool_calls"
    messages.append(message.model_dump(exclude_none=True))
    for call in message.tool_calls:
        assert call.function.name == "weather"
        city = json.loads(call.function.arguments)["city"]
        messages.append({"role": "tool", "tool_call_id": call.id, "content": f"sunny in {city}"})
    assert ask(served, messages, tools=[WEATHER], tool_choice="none").choices[0].message.content


def test_calls_in_a_stream(served: Any) -> None:
    named = {"type": "function", "function": {"name": "weather"}}
    chunks = list(ask(served, tools=[WEATHER], tool_choice=named, max_tokens=ENOUGH, stream=True))
    whole = litellm.stream_chunk_builder(chunks, messages=HELLO)
    (call, *_) = whole.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Rome", "Oslo")


def test_an_answer_as_a_model(served: Any) -> None:
    said = ask(served, response_format=Pet, max_tokens=ENOUGH)
    assert Pet.model_validate_json(said.choices[0].message.content).kind in ("cat", "dog")


def test_texts_that_are_continued(served: Any) -> None:
    said = litellm.text_completion(
        model=f"text-completion-openai/{served.model}",
        prompt="A cat",
        api_base=served.url,
        api_key=served.key,
        max_tokens=8,
    )
    assert said.choices[0].text


def test_embeddings(served: Any) -> None:
    found = litellm.embedding(
        model=f"openai/{served.model}", input=["a cat", "a dog"], api_base=served.url, api_key=served.key
    )
    one, two = (entry["embedding"] for entry in found.data)
    assert len(one) == len(two)
    assert one != two


def test_errors_have_their_classes(served: Any) -> None:
    with pytest.raises(litellm.NotFoundError):
        ask(served, model="nobody")
    with pytest.raises(litellm.ContextWindowExceededError):
        ask(served, [{"role": "user", "content": "word " * 5000}])
    with pytest.raises(litellm.BadRequestError):
        ask(served, temperature=7)
    with pytest.raises(litellm.AuthenticationError):
        ask(served, api_key="wrong-key-of-some-length")
