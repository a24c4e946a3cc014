"""The official client against the server: what it reads, raises and sends back."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.serving import ScriptedEngine, say, serving
from tunesmith.core.errors import DataError, Problem

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
CALL = '<tool_call>\n{"name": "look", "arguments": {"at": "sea", "times": 2}}\n</tool_call>'
LOOK: Any = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Look.",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}, "times": {"type": "integer"}}},
    },
}


@pytest.fixture
def hermes(site):
    """A site whose template writes tools."""

    def make(*pieces, **settings):
        made = site(say(*pieces), **settings)
        engine = made.engine
        from dataclasses import replace

        from tunesmith.render import make_renderer

        engine.renderer = make_renderer(replace(engine.config.template, template="qwen"), engine.tokenizer)
        return made

    return make


def test_create(site):
    made = site(say("Hello ", "world"))
    answer = made.client().chat.completions.create(model="tiny", messages=HELLO)
    assert answer.choices[0].message.content == "Hello world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.object == "chat.completion"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens == len(made.engine.requests[0].prompt)
    assert answer._request_id.startswith("req_")


def test_the_prompt_is_the_one_that_training_would_have(site):
    made = site(say("a"))
    made.client().chat.completions.create(
        model="tiny", messages=[{"role": "developer", "content": "Be kind."}, *HELLO, {"role": "user", "content": "?"}]
    )
    from tunesmith.core.types import Message

    messages = [Message("system", "Be kind."), Message("user", "hello"), Message("user", "?")]
    assert list(made.engine.requests[0].prompt) == made.engine.renderer.encode_prompt(messages)


def test_stream(site):
    client = site(say("Hel", "lo ", "world")).client()
    chunks = list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk.id, chunk.created, chunk.model, chunk.system_fingerprint) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello world"
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)


def test_usage_in_a_stream(site):
    client = site(say("Hello")).client()
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="tiny", messages=HELLO, stream=True, stream_options=options))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 6  # characters, and the end
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert all("usage" in chunk.model_fields_set for chunk in chunks)


def test_the_stream_helper(site):
    with site(say("Hello ", "world")).client().chat.completions.stream(model="tiny", messages=HELLO) as stream:
        kinds = {event.type for event in stream}
        assert stream.get_final_completion().choices[0].message.content == "Hello world"
    assert {"content.delta", "content.done"} <= kinds


@pytest.mark.parametrize("stream", [False, True])
def test_several_replies(site, stream):
    client = site().client()
    wanted: Any = {"model": "tiny", "messages": HELLO, "n": 3, "seed": 5, "stream": stream}
    found = ["", "", ""]
    answer = client.chat.completions.create(**wanted)
    for chunk in answer if stream else [answer]:
        for choice in chunk.choices:
            found[choice.index] += (choice.delta.content if stream else choice.message.content) or ""
    single = [
        client.chat.completions.create(**{**wanted, "n": 1, "seed": 5 + index, "stream": False}) for index in range(3)
    ]
    assert found == [one.choices[0].message.content for one in single]
    assert len(set(found)) == 3


def test_length_and_stop(site):
    client = site(say("one two three")).client()
    cut = client.chat.completions.create(model="tiny", messages=HELLO, max_completion_tokens=3, max_tokens=9)
    assert (cut.choices[0].message.content, cut.choices[0].finish_reason) == ("one", "length")
    stopped = client.chat.completions.create(model="tiny", messages=HELLO, stop=["zero", "two"])
    assert (stopped.choices[0].message.content, stopped.choices[0].finish_reason) == ("one ", "stop")


def test_log_probabilities(site):
    client = site(say("né", "e")).client()
    wanted: Any = {"model": "tiny", "messages": HELLO, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**wanted).choices[0].logprobs.content
    assert bytes(byte for one in whole for byte in one.bytes).decode() == "née"
    assert all(one.logprob == -0.5 for one in whole)
    assert [[top.logprob for top in one.top_logprobs] for one in whole] == [[-1.0, -2.0]] * len(whole)
    parts = client.chat.completions.create(**wanted, stream=True)
    streamed = [one for part in parts for one in (part.choices[0].logprobs.content if part.choices[0].logprobs else [])]
    assert streamed == whole


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_with_tools(hermes, stream):
    client = hermes("I look. ", CALL[:20], CALL[20:]).client()
    messages: list[Any] = list(HELLO)
    if stream:
        with client.chat.completions.stream(model="tiny", messages=messages, tools=[LOOK]) as events:
            choice = events.get_final_completion().choices[0]
    else:
        choice = client.chat.completions.create(model="tiny", messages=messages, tools=[LOOK]).choices[0]
    assert choice.finish_reason == "tool_calls"
    (call,) = choice.message.tool_calls
    assert (call.type, call.function.name) == ("function", "look")
    assert json.loads(call.function.arguments) == {"at": "sea", "times": 2}
    assert choice.message.content == "I look. "
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "blue"}]
    again = client.chat.completions.create(model="tiny", messages=messages, tools=[LOOK])
    assert again.choices[0].finish_reason == "tool_calls"


def test_the_deltas_of_calls(hermes):
    client = hermes(CALL + "\n" + CALL).client()
    chunks = client.chat.completions.create(model="tiny", messages=HELLO, tools=[LOOK], stream=True)
    deltas = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    assert [delta.index for delta in deltas] == [0, 0, 1, 1]
    for first, second in (deltas[:2], deltas[2:]):
        assert (first.type, first.function.name, first.function.arguments) == ("function", "look", "")
        assert len(first.id) == 9
        assert second.function.model_fields_set == {"arguments"}
        assert json.loads(second.function.arguments) == {"at": "sea", "times": 2}
    assert deltas[0].id != deltas[2].id


def test_one_call_where_more_are_not_wanted(hermes):
    client = hermes(CALL + "\n" + CALL).client()
    wanted: Any = {"model": "tiny", "messages": HELLO, "tools": [LOOK]}
    assert len(client.chat.completions.create(**wanted).choices[0].message.tool_calls) == 2
    answer = client.chat.completions.create(**wanted, parallel_tool_calls=False)
    assert len(answer.choices[0].message.tool_calls) == 1


def test_no_calls_where_none_are_wanted(hermes):
    made = hermes(CALL)
    answer = made.client().chat.completions.create(model="tiny", messages=HELLO, tools=[LOOK], tool_choice="none")
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content == CALL
    made.client().chat.completions.create(model="tiny", messages=HELLO)
    assert made.engine.requests[0].prompt == made.engine.requests[1].prompt


def test_a_template_without_tools_refuses_them(site):
    with pytest.raises(openai.BadRequestError, match="does not write tools"):
        site().client().chat.completions.create(model="tiny", messages=HELLO, tools=[LOOK])


def test_thoughts(site):
    client = site(say("<think>\nhm", "m\n</thi", "nk>\n\nYes")).client()
    message = client.chat.completions.create(model="tiny", messages=HELLO).choices[0].message
    assert (message.reasoning_content, message.content) == ("hmm", "Yes")
    parts = [
        chunk.choices[0].delta for chunk in client.chat.completions.create(model="tiny", messages=HELLO, stream=True)
    ]
    assert "".join(getattr(part, "reasoning_content", None) or "" for part in parts) == "hmm"
    assert "".join(part.content or "" for part in parts) == "Yes"
    client.chat.completions.create(model="tiny", messages=[*HELLO, message, *HELLO])


class Place(BaseModel):
    name: str
    depth: int


def test_parse(site):
    made = site(say('{"name": "sea", ', '"depth": 3}'))
    answer = made.client().chat.completions.parse(model="tiny", messages=HELLO, response_format=Place)
    assert answer.choices[0].message.parsed == Place(name="sea", depth=3)
    assert made.engine.requests[0].constraint is not None


def test_parse_calls_of_a_pydantic_tool(hermes):
    made = hermes('<tool_call>\n{"name": "Place", "arguments": {"name": "sea", "depth": 3}}\n</tool_call>')
    tool = openai.pydantic_function_tool(Place)
    answer = made.client().chat.completions.parse(model="tiny", messages=HELLO, tools=[tool])
    assert answer.choices[0].message.tool_calls[0].function.parsed_arguments == Place(name="sea", depth=3)
    assert made.engine.requests[0].constraint is not None  # strict


def test_completions(site):
    made = site(say("and so", " on"))
    client = made.client()
    answer = client.completions.create(model="tiny", prompt=["once", "upon"], n=2, echo=True)
    assert [choice.text for choice in answer.choices] == ["onceand so on"] * 2 + ["uponand so on"] * 2
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    ids = client.completions.create(model="tiny", prompt=[5, 6], echo=True)
    assert ids.choices[0].text == made.engine.tokenizer.decode([5, 6]) + "and so on"
    assert made.engine.requests[-1].prompt == (5, 6)
    with pytest.raises(openai.BadRequestError, match="there is no token 99999"):
        client.completions.create(model="tiny", prompt=[99999])
    chunks = list(client.completions.create(model="tiny", prompt="once", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == "and so on"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_log_probabilities_of_completions(site):
    client = site(say("ab", "c")).client()
    whole = client.completions.create(model="tiny", prompt="x", logprobs=1).choices[0].logprobs
    assert "".join(whole.tokens) == "abc"
    assert whole.token_logprobs == [-0.5] * len(whole.tokens)
    assert whole.text_offset[0] == 0
    assert whole.text_offset == sorted(whole.text_offset)


@pytest.mark.parametrize("form", ["float", openai.omit])
def test_embeddings(site, form):
    """Where no form is given, the client asks for base64 and reads it by itself."""
    client = site().client()
    answer = client.embeddings.create(model="tiny", input=["a b", "c"], encoding_format=form)
    assert [one.index for one in answer.data] == [0, 1]
    for one in answer.data:
        assert sum(value * value for value in one.embedding) == pytest.approx(1.0, abs=1e-5)
    other = client.embeddings.create(model="tiny", input="c", extra_body={"pooling": "last"}).data[0].embedding
    assert other != pytest.approx(answer.data[1].embedding)


def test_models(site):
    client = site().client()
    assert [one.id for one in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "tunesmith"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("other")
    assert caught.value.code == "model_not_found"


def test_errors_are_the_classes_that_the_client_has(site, tiny_model):
    made = site(context=40)
    client = made.client()

    def raised(kind: Any, **fields: Any) -> Any:
        with pytest.raises(kind) as caught:
            client.chat.completions.create(**{"model": "tiny", "messages": HELLO, **fields})
        return caught.value

    assert raised(openai.NotFoundError, model="gpt-5").code == "model_not_found"
    assert raised(openai.BadRequestError, temperature=-1).param == "temperature"
    long = raised(openai.BadRequestError, messages=[{"role": "user", "content": "word " * 60}])
    assert long.code == "context_length_exceeded"
    assert "40 tokens" in long.message
    asked = raised(openai.BadRequestError, max_tokens=39)
    assert asked.code == "context_length_exceeded"
    assert "39" in asked.message
    made.engine.most_live = 0
    busy = raised(openai.RateLimitError)
    assert busy.response.headers["retry-after"] == "3"
    made.engine.most_live = 10


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_of_the_engine(site, stream):
    client = site(say("so far ", DataError(Problem("E-ENGINE-003", "values are not finite")))).client()
    seen: list[Any] = []
    with pytest.raises(openai.APIError) as caught:
        seen.extend(client.chat.completions.create(model="tiny", messages=HELLO, stream=stream))
    assert caught.value.code == "E-ENGINE-003"
    assert bool(seen) == stream


def test_a_request_that_fails_for_good_is_not_sent_again(site):
    made = site(say(ZeroDivisionError("bug")))
    with pytest.raises(openai.InternalServerError):
        made.client(max_retries=2).chat.completions.create(model="tiny", messages=HELLO)
    assert len(made.engine.requests) == 1


def test_the_asynchronous_client(site):
    made = site(say("Hello ", "world"))

    async def work() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key="x") as client:
            answers = [client.chat.completions.create(model="tiny", messages=HELLO) for _ in range(8)]
            return [answer.choices[0].message.content or "" for answer in await asyncio.gather(*answers)]

    assert asyncio.run(work()) == ["Hello world"] * 8


def test_more_than_max_concurrent_wait_in_order(site):
    made = site(say(*"abc"), max_concurrent=1, pause=0.02)

    async def work() -> int:
        most = 0
        async with openai.AsyncOpenAI(base_url=f"{made.url}/v1", api_key="x") as client:
            tasks = [
                asyncio.ensure_future(client.chat.completions.create(model="tiny", messages=HELLO)) for _ in range(4)
            ]
            while not all(task.done() for task in tasks):
                most = max(most, made.engine.live)
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)
        return most

    assert asyncio.run(work()) == 1
    assert len(made.engine.requests) == 4


def test_thinking_can_be_switched_where_the_template_knows_it(tiny_model):
    from dataclasses import replace

    from tunesmith.render import make_renderer

    engine = ScriptedEngine(tiny_model, say("a"))
    template = replace(engine.config.template, template="qwen3")
    engine.renderer = make_renderer(template, engine.tokenizer)
    with serving(engine, template=template) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="x") as client:
        for wanted in (True, False):
            extra = {"chat_template_kwargs": {"enable_thinking": wanted}}
            client.chat.completions.create(model="tiny", messages=HELLO, extra_body=extra)
    thinks, not_ = (engine.tokenizer.decode(request.prompt) for request in engine.requests)
    assert "</think>" in not_
    assert "</think>" not in thinks


def test_thinking_cannot_be_switched_where_the_template_knows_nothing_of_it(site):
    made = site(say("a"))
    made.service.template = made.engine.config.template
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    with pytest.raises(openai.BadRequestError, match="knows no enable_thinking"):
        made.client().chat.completions.create(model="tiny", messages=HELLO, extra_body=extra)
