"""The API over the engine that users have: many at once, adapters, errors of real prompts."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serving import serving
from tunesmith.config import load_config
from tunesmith.engines import make_engine
from tunesmith.serve.auth import read_keys

pytestmark = pytest.mark.slow

HELLO: list[Any] = [{"role": "user", "content": "What does a cat like?"}]


@pytest.fixture(scope="module")
def stories_client(stories: Path) -> Iterator[openai.OpenAI]:
    keys = {"model_name_or_path": str(stories), "use_cpu": True, "max_new_tokens": 24}
    with (
        serving(make_engine(load_config(keys, verb="api"))) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        yield client


PROMPTS = [
    f"Once upon a time, {who}" for who in ("Lily", "a big dog", "Tim and his mom", "the sun", "an old cat", "Ben")
]


def test_a_greedy_answer_does_not_depend_on_who_else_asks(stories_client: openai.OpenAI) -> None:
    def ask(prompt: str) -> str:
        return (
            stories_client.completions.create(model="tiny", prompt=prompt, temperature=0, max_tokens=24).choices[0].text
        )

    alone = [ask(prompt) for prompt in PROMPTS]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, PROMPTS * 4))
    assert together == alone * 4
    assert len(set(alone)) == len(PROMPTS)


def test_streams_of_many_clients_are_what_they_are_alone(stories_client: openai.OpenAI) -> None:
    def whole(seed: int) -> str:
        return (
            stories_client.chat.completions.create(model="tiny", messages=HELLO, seed=seed).choices[0].message.content
            or ""
        )

    def streamed(seed: int) -> str:
        chunks = stories_client.chat.completions.create(model="tiny", messages=HELLO, seed=seed, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(streamed, range(16)))
    assert together == [whole(seed) for seed in range(16)]
    assert "\ufffd" not in "".join(together)


def test_log_probabilities_are_those_of_the_model(stories_client: openai.OpenAI) -> None:
    answer = stories_client.completions.create(model="tiny", prompt=PROMPTS[0], temperature=0, max_tokens=8, logprobs=2)
    told = answer.choices[0].logprobs
    assert "".join(told.tokens).strip() == answer.choices[0].text.strip()
    for token, logprob, top in zip(told.tokens, told.token_logprobs, told.top_logprobs, strict=True):
        assert logprob <= 0
        assert max(top.values()) == pytest.approx(logprob)
        assert top[token] == pytest.approx(logprob)


def test_vectors_tell_texts_apart(stories_client: openai.OpenAI) -> None:
    texts = ["the cat sat on the mat", "the cat sat on the mat", "a completely different thing"]
    same, again, other = [one.embedding for one in stories_client.embeddings.create(model="tiny", input=texts).data]

    def product(one: list[float], two: list[float]) -> float:
        return sum(a * b for a, b in zip(one, two, strict=True))

    assert product(same, again) == pytest.approx(1.0, abs=1e-5)
    assert product(same, other) < 0.999


def test_a_prompt_that_is_too_long(stories_client: openai.OpenAI) -> None:
    long = "word " * 2000
    messages: Any = [{"role": "user", "content": long}]
    for what, make in (
        ("messages", lambda: stories_client.chat.completions.create(model="tiny", messages=messages)),
        ("prompt", lambda: stories_client.completions.create(model="tiny", prompt=long)),
        ("input", lambda: stories_client.embeddings.create(model="tiny", input=long)),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            make()
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", what)


def test_what_the_engine_says_of_itself_can_be_scraped(stories_client: openai.OpenAI) -> None:
    with urllib.request.urlopen(str(stories_client.base_url).replace("/v1/", "/metrics")) as answer:
        lines = answer.read().decode().splitlines()
    samples = [line for line in lines if not line.startswith("#")]
    assert any(line.startswith("tunesmith_engine_") for line in samples)
    for line in samples:
        assert re.fullmatch(r'[a-z_]+(\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\})? -?[0-9.e+-]+', line), line


def test_adapters_are_loaded_and_used_while_others_run(run: Any, tiny_model: Path, tmp_path: Path) -> None:
    """The answer of an adapter is that of a server whose model is the adapter."""
    folder = tmp_path / "adapters"
    run(output_dir=str(folder / "poet"), learning_rate=0.05, max_steps=4)
    base = {"model_name_or_path": str(tiny_model), "use_cpu": True, "do_sample": False, "max_new_tokens": 30}
    key = "a-key-of-the-tests-1"
    alone = make_engine(load_config({**base, "adapter_name_or_path": str(folder / "poet")}, verb="chat"))
    from tunesmith.core.types import Message

    with alone:
        expected = alone.generate([Message("user", HELLO[0]["content"])]).text
    engine = make_engine(load_config(base, verb="api"))
    with (
        serving(engine, keys=read_keys(key, "API_KEY")[0], adapter_dir=folder) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client,
    ):
        plain = client.chat.completions.create(model="tiny", messages=HELLO).choices[0].message.content
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="poet", messages=HELLO)
        client.post("/adapters", body={"name": "poet"}, cast_to=object)
        with ThreadPoolExecutor(6) as pool:
            names = ["poet", "tiny"] * 4
            found = list(pool.map(lambda name: client.chat.completions.create(model=name, messages=HELLO), names))
        texts = [answer.choices[0].message.content for answer in found]
        assert texts == [expected, plain] * 4
        assert expected != plain
        client.delete("/adapters/poet", cast_to=object)
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="poet", messages=HELLO)
