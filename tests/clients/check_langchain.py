"""langchain-openai: create, stream, a loop of tools, answers as pydantic models, embeddings, errors."""

from __future__ import annotations

import math
from typing import Any, Literal

import openai
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field


class Pet(BaseModel):
    """A pet."""

    kind: Literal["cat", "dog"]
    age: int = Field(ge=0, le=20)


@tool
def weather(city: Literal["Rome", "Oslo"]) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


ENOUGH = 700
"""Tokens: a call may have many blanks in it, as the model is not clever."""


def chat(served: Any, **more: Any) -> ChatOpenAI:
    settings = {"max_tokens": 40, "temperature": 0.0, "max_retries": 0, **more}
    return ChatOpenAI(base_url=served.url, api_key=served.key, **{"model": served.model, **settings})


def test_an_answer_and_its_usage(served: Any) -> None:
    said = chat(served).invoke([SystemMessage("Be short."), HumanMessage("What does a cat like?")])
    assert isinstance(said, AIMessage)
    assert said.content
    assert said.response_metadata["finish_reason"] in ("stop", "length")
    assert said.usage_metadata is not None
    used = said.usage_metadata
    assert used["total_tokens"] == used["input_tokens"] + used["output_tokens"]


def test_a_stream_says_the_same(served: Any) -> None:
    model = chat(served, stream_usage=True)
    chunks = list(model.stream("What does a cat like?"))
    assert len(chunks) > 3
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.content == model.invoke("What does a cat like?").content
    assert whole.usage_metadata is not None


def test_a_seed_gives_the_same_again(served: Any) -> None:
    first, second, other = (chat(served, temperature=1.0, seed=seed).invoke("Tell me.").content for seed in (5, 5, 6))
    assert first == second != other


def test_log_probabilities(served: Any) -> None:
    said = chat(served, logprobs=True, top_logprobs=2).invoke("Tell me.")
    told = said.response_metadata["logprobs"]["content"]
    assert told
    assert all(len(one["top_logprobs"]) == 2 and one["logprob"] <= 0 for one in told)


def test_a_loop_of_tools(served: Any) -> None:
    model = chat(served, max_tokens=ENOUGH)
    messages: list[Any] = [HumanMessage("How is the weather in Rome?")]
    asked = model.bind_tools([weather], tool_choice="any", parallel_tool_calls=False, strict=True).invoke(messages)
    assert {call["name"] for call in asked.tool_calls} == {"weather"}
    messages.append(asked)
    for call in asked.tool_calls:
        answer = weather.invoke(call)
        assert isinstance(answer, ToolMessage)
        messages.append(answer)
    assert chat(served).bind_tools([weather], tool_choice="none").invoke(messages).content


def test_calls_in_a_stream(served: Any) -> None:
    model = chat(served, max_tokens=ENOUGH).bind_tools([weather], tool_choice="weather", strict=True)
    chunks = list(model.stream("How is the weather?"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert whole.tool_calls[0]["name"] == "weather"
    assert whole.tool_calls[0]["args"]["city"] in ("Rome", "Oslo")


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_as_a_model(served: Any, method: Any) -> None:
    parsed = (
        chat(served, max_tokens=ENOUGH).with_structured_output(Pet, method=method, strict=True).invoke("A pet, please.")
    )
    assert isinstance(parsed, Pet)


def test_embeddings(served: Any) -> None:
    made = OpenAIEmbeddings(
        base_url=served.url, api_key=served.key, model=served.model, check_embedding_ctx_length=False, max_retries=0
    )
    one, two = made.embed_documents(["a cat", "a dog"])
    assert len(one) == len(two)
    assert one != two
    assert math.isclose(sum(value * value for value in one), 1, rel_tol=1e-4)
    assert made.embed_query("a cat") == pytest.approx(one, abs=1e-5)


def test_errors_have_their_classes(served: Any) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        chat(served, model="nobody").invoke("hello")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(ContextOverflowError) as long:
        chat(served).invoke("word " * 5000)
    assert isinstance(long.value, openai.BadRequestError)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as wrong:
        chat(served).invoke("hello", temperature=7)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        chat(served._replace(key="wrong-key-of-some-length")).invoke("hello")
