"""Replies in a form that was asked for: whatever the model prefers, it can write nothing else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import openai
import pytest
import torch

from tests.serving import ScriptedEngine, serving
from tunesmith.config import load_config
from tunesmith.engines import make_engine
from tunesmith.render.tools import DIALECTS, get_dialect
from tunesmith.serve.errors import ApiError
from tunesmith.serve.grammar import GrammarConstraint, Grammars, as_json
from tunesmith.serve.tool_calls import JsonCalls, calls_grammar, form_of, strict_grammar

pytestmark = pytest.mark.usefixtures("torch_one_thread")

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
SCHEMA = {
    "type": "object",
    "properties": {"size": {"enum": ["small", "large"]}, "count": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["size", "count"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "description": "", "parameters": SCHEMA, "strict": strict}}
    for name, strict in (("order", True), ("cancel", False))
]


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> ScriptedEngine:
    return ScriptedEngine(tiny_model)


@pytest.fixture
def grammars(engine: ScriptedEngine):
    made = Grammars(engine.tokenizer, engine.renderer.stop_ids, 2.0)
    yield made
    made.close()


def fits(value: Any) -> bool:
    return set(value) == {"size", "count"} and value["size"] in ("small", "large") and value["count"] in range(1, 10)


def walk(constraint: GrammarConstraint, engine: ScriptedEngine, seed: int, given: str = "", most: int = 300) -> str:
    """What a model writes that first wants to say `given`, and then anything at all."""
    generator = torch.Generator().manual_seed(seed)
    wanted = engine.tokenizer.encode(given, add_special_tokens=False)
    ids: list[int] = []
    for _ in range(most):
        scores = torch.randn(768, generator=generator)  # the model's table is longer than the vocabulary
        if len(ids) < len(wanted):
            scores[wanted[len(ids)]] += 100
        constraint.restrict(scores)
        token = int(scores.argmax())
        assert scores[token] > float("-inf"), "nothing may come"
        constraint.accept(token)
        if token in engine.renderer.stop_ids:
            return str(engine.tokenizer.decode(ids))
        ids.append(token)
        assert token < len(engine.tokenizer)
        if constraint.finished:
            return str(engine.tokenizer.decode(ids))
    raise AssertionError(f"no end: {engine.tokenizer.decode(ids)!r}")


@pytest.mark.parametrize("seed", range(5))
def test_any_walk_is_json_of_the_schema(grammars: Grammars, engine: ScriptedEngine, seed: int) -> None:
    grammar = grammars.made(f"start: {as_json(SCHEMA)}", "response_format")
    assert fits(json.loads(walk(grammars.constraint(grammar), engine, seed)))


def test_stop_tokens_come_at_the_end_only(grammars: Grammars, engine: ScriptedEngine) -> None:
    constraint = grammars.constraint(grammars.made('start: "a" | "ab"', "x"))
    stop = engine.renderer.stop_ids[0]
    scores = torch.zeros(768)
    constraint.restrict(scores)
    assert scores[stop] == float("-inf")
    constraint.accept(engine.tokenizer.convert_tokens_to_ids("a"))
    scores = torch.ones(768)
    constraint.restrict(scores)
    assert scores[stop] == 1
    assert not constraint.finished
    constraint.accept(engine.tokenizer.convert_tokens_to_ids("b"))
    assert constraint.finished


@pytest.mark.parametrize("seed", range(3))
def test_a_grammar_behind_a_thought(grammars: Grammars, engine: ScriptedEngine, seed: int) -> None:
    grammar = grammars.made(f"start: /\\n*/ answer\nanswer: {as_json(SCHEMA)}", "x", trigger="</think>")
    text = walk(grammars.constraint(grammar), engine, seed, "well, I say </think>")
    thought, _, answer = text.partition("</think>")
    assert thought == "well, I say "
    assert fits(json.loads(answer))


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_calls_in_the_form_of_every_dialect(
    grammars: Grammars, engine: ScriptedEngine, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.renderer.template, "dialect", name)
    form = form_of(engine.renderer)
    text = calls_grammar(grammars, engine.renderer, form, TOOLS, several=True)
    seen = 0
    for seed in range(4):
        written = walk(grammars.constraint(grammars.made(text, "tools")), engine, seed, most=1500)
        reader = engine.renderer.reader(reads_calls=True, tools=TOOLS) if form.own else JsonCalls()
        reader.push(written)
        assert reader.finish().content.strip() == "", written
        assert reader.calls, written
        for call in reader.calls:
            assert call.name in ("order", "cancel")
            assert fits(call.arguments), written
        seen = max(seen, len(reader.calls))
    assert seen > 1 or get_dialect(name).max_calls == 1 or not form.between


def test_strict_arguments_where_a_call_is_not_demanded(
    grammars: Grammars, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.renderer.template, "dialect", "hermes")
    grammar = strict_grammar(grammars, engine.renderer, TOOLS, several=True)
    free = engine.renderer.stop_ids[0]
    constraint = grammars.constraint(grammar)
    scores = torch.zeros(768)
    constraint.restrict(scores)
    assert torch.isfinite(scores).all()
    for token in engine.tokenizer.encode("I look. <tool_call>", add_special_tokens=False):
        constraint.accept(token)
    scores = torch.zeros(768)
    constraint.restrict(scores)
    assert scores[free] == float("-inf")
    body = '\n{"name": "order", "arguments": {"size": "small", "count": 3}}\n</tool_call>'
    for token in engine.tokenizer.encode(body, add_special_tokens=False):
        scores = torch.zeros(768)
        constraint.restrict(scores)
        assert scores[token] == 0
        constraint.accept(token)
    scores = torch.zeros(768)
    constraint.restrict(scores)
    assert torch.isfinite(scores).all()  # free again


def test_strict_where_a_call_looks_like_prose(
    grammars: Grammars, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.renderer.template, "dialect", "qwen3_coder")
    with pytest.raises(ApiError, match="tool_choice that demands a call"):
        strict_grammar(grammars, engine.renderer, TOOLS, several=True)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "sausage"},
        {"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}},
        {"type": "string", "pattern": "(" * 50},
        {"not": {"type": "string"}},
    ],
)
def test_a_schema_of_which_no_grammar_can_be_made(grammars: Grammars, schema: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        grammars.made(f"start: {as_json(schema)}", "response_format")
    assert (caught.value.status, caught.value.param) == (400, "response_format")
    assert caught.value.code == "invalid_schema"


@pytest.mark.parametrize(
    "pattern", ["^(a|b|c){1,500}(d|e){1,5000}$", "^(.*a){30}.*$", "^((a{1,100}){1,100}){1,100}$", "^(a?){5000}a{5000}$"]
)
def test_no_schema_keeps_others_waiting(grammars: Grammars, pattern: str) -> None:
    """Of each a grammar is made, or it is refused; it is not waited for."""
    began = time.monotonic()
    wrong = grammars.check(f"start: {as_json({'type': 'string', 'pattern': pattern})}")
    assert wrong is None or wrong.strip()
    assert time.monotonic() - began < 4


@pytest.fixture(scope="module")
def real(tiny_model: Path):
    """The tiny model with a template that writes tools, behind the server."""
    keys = {"model_name_or_path": str(tiny_model), "use_cpu": True, "template": "qwen", "max_new_tokens": 150}
    keys |= {"tool_format": "mistral", "default_system": ""}
    config = load_config(keys, verb="api")
    engine = make_engine(config)
    with serving(engine, template=config.template) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="x") as one:
        yield one


# The tiny model's context has room for little.
FEW = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
SHORT: list[Any] = [{"type": "function", "function": {"name": name, "parameters": FEW}} for name in ("add", "cut")]


def create(client: openai.OpenAI, **fields: Any) -> Any:
    return client.chat.completions.create(**{"model": "tiny", "messages": HELLO, "seed": 1, **fields})


@pytest.mark.parametrize("thing", [{"temperature": 2.0, "top_p": 1.0}, {"temperature": 0}])
def test_the_real_engine_answers_with_json(real: openai.OpenAI, thing: dict[str, Any]) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "order", "schema": SCHEMA, "strict": True}}
    for seed in range(3):
        choice = create(real, response_format=wanted, seed=seed, **thing).choices[0]
        assert choice.finish_reason == "stop"
        assert fits(json.loads(choice.message.content))


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "cut"}}])
def test_the_real_engine_calls_what_it_has_to(real: openai.OpenAI, choice: Any) -> None:
    for seed in range(3):
        found = create(real, tools=SHORT, tool_choice=choice, parallel_tool_calls=False, seed=seed, temperature=1.5)
        (call,) = found.choices[0].message.tool_calls
        assert call.function.name == "cut" if isinstance(choice, dict) else call.function.name in ("add", "cut")
        assert json.loads(call.function.arguments) in ({"n": 1}, {"n": 2})
        assert found.choices[0].finish_reason == "tool_calls"


def test_the_real_engine_streams_what_it_says(real: openai.OpenAI) -> None:
    for more in ({}, {"n": 2}, {"stop": ["a", "e"]}, {"max_tokens": 7}):
        whole = create(real, temperature=1.0, **more)
        texts = [""] * len(whole.choices)
        for chunk in create(real, temperature=1.0, stream=True, **more):
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
        assert texts == [choice.message.content for choice in whole.choices]
