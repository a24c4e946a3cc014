"""Many requests at once against `generate` of transformers, one by one."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.busy_engine import Numbers, Said, answers, differing, engine_of, generated, greedy, prompts
from tests.tiny_models import tiny_model
from tunesmith.engines.base import Request
from tunesmith.engines.batching.runners import Alone, Together
from tunesmith.engines.hf import HFEngine

pytestmark = pytest.mark.usefixtures("torch_one_thread")

TOKENS = 24
# One of each kind; tests/contracts/test_engine_types.py has all of them.
TYPES = {
    "llama": Together,
    "gemma3_text": Together,
    "gpt2": Together,
    "bamba": Alone,
}


def compare(model_type: str, runner: type, **settings: object) -> None:
    asked = prompts(12, 33, 97)
    reference = tiny_model(model_type, None)
    said = [generated(reference, prompt, TOKENS) for prompt in asked]
    assert sum(one.sure for one in said) > 200, "hardly anything is compared"
    with engine_of(tiny_model(model_type, None), **settings) as engine:
        assert type(engine._fitted.runner) is runner
        found = answers(engine, [Request(prompt, greedy(TOKENS)) for prompt in asked])
    assert differing(found, said) == []


@pytest.mark.parametrize("model_type", TYPES)
def test_greedy_replies_equal_those_of_generate(model_type: str) -> None:
    compare(model_type, TYPES[model_type], max_batch_requests=8, prefill_chunk_tokens=20)


def test_one_by_one_not_a_bit_depends_on_what_else_runs() -> None:
    """As a prediction does with full_determinism: in bfloat16 other sums would give other tokens."""
    model = tiny_model("llama", None).to(torch.bfloat16)
    requests = [Request(prompt, greedy(12, logprobs=1)) for prompt in prompts(6, 20, 97)]
    renderer: Any = SimpleNamespace(stop_ids=(), media=None)
    with HFEngine(model, Numbers(), renderer, SimpleNamespace(), one_by_one=True) as engine:  # type: ignore[arg-type]
        assert isinstance(engine._fitted.runner, Alone)
        together = [piece.tokens for piece in answers(engine, requests)]
        assert together == [answers(engine, [request])[0].tokens for request in requests]


def test_a_model_that_was_compiled_for_training_writes_as_it_is_written() -> None:
    asked = prompts(3, 20, 97)
    said = [generated(tiny_model("llama", None), prompt, 8) for prompt in asked]
    model, graphs = tiny_model("llama", None), list[Any]()

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    model.compile(backend=backend)
    with engine_of(model) as engine:
        assert differing(answers(engine, [Request(prompt, greedy(8)) for prompt in asked]), said) == []
    assert not graphs
    model(torch.tensor([[5, 6, 7]]))
    assert graphs  # it is compiled again for whoever goes on


def stories_requests(stories: Path, count: int, tokens: int) -> tuple[Any, list[Request], list[Said]]:
    """The model, prompts of many lengths out of its own stories, and what `generate` says."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
    ids = generated_story(model)
    chance = random.Random(1)
    asked = []
    for _ in range(count):
        begin, size = chance.randrange(len(ids) - 60), 1 + chance.randrange(60)
        asked.append(tuple(ids[begin : begin + size]))
    said = [generated(model, prompt, tokens) for prompt in asked]
    return model, [Request(prompt, greedy(tokens)) for prompt in asked], said


def generated_story(model: Any) -> list[int]:
    torch.manual_seed(0)
    with torch.inference_mode():
        found = model.generate(torch.tensor([[1]]), do_sample=True, min_new_tokens=400, max_new_tokens=400)
    return [token for token in found[0].tolist() if token > 2]


@pytest.mark.parametrize("load", [1, 5])
def test_stories_do_not_depend_on_the_load(stories: Path, load: int) -> None:
    model, requests, said = stories_requests(stories, 10, 20)
    with engine_of(model, max_batch_requests=load) as engine:
        assert differing(answers(engine, requests), said) == []


@pytest.mark.slow
def test_two_hundred_stories_do_not_depend_on_the_load(stories: Path) -> None:
    model, requests, said = stories_requests(stories, 200, 48)
    unsure = sum(one.sure < len(one.ids) for one in said)
    assert unsure <= 10, "prompts of which rounding may decide a token"
    for load, chunk in ((1, 512), (3, 7), (16, 64), (64, 512)):
        with engine_of(model, max_batch_requests=load, prefill_chunk_tokens=chunk) as engine:
            assert differing(answers(engine, requests), said) == []
            assert engine.stats()["cached_tokens"] > 0
