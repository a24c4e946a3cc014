"""The engine against transformers' own `generate`, and the rules of stopping and streaming."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tunesmith import load_config
from tunesmith.core.errors import DataError
from tunesmith.core.types import Message
from tunesmith.engines import ENGINES, make_engine
from tunesmith.engines.base import Request, Sampling

pytestmark = pytest.mark.usefixtures("torch_one_thread")

QUESTION = [Message("user", "What does a cat like?")]


@pytest.fixture(scope="module")
def engine(tiny_model):
    keys = {"model_name_or_path": str(tiny_model), "use_cpu": True, "do_sample": False}
    with make_engine(load_config(keys, verb="chat")) as engine:
        yield engine


def reference(engine, ids, **settings):
    """What transformers generates."""
    output = engine.model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        eos_token_id=list(engine.renderer.stop_ids),
        **settings,
    )
    return output[0, len(ids) :].tolist()


def ids_of(engine, prompt, sampling):
    return [token.id for piece in engine.run(Request(tuple(prompt), sampling)) for token in piece.tokens]


def without_stop(ids, engine):
    return ids[:-1] if ids[-1] in engine.renderer.stop_ids else ids


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_greedy_equals_transformers(engine, penalty):
    for text in ("What does a cat like?", "hello", "Tell me a story about a fox and a bee."):
        prompt = engine.renderer.encode_prompt([Message("user", text)])
        sampling = Sampling(do_sample=False, repetition_penalty=penalty, max_new_tokens=40)
        expected = reference(engine, prompt, do_sample=False, repetition_penalty=penalty, max_new_tokens=40)
        assert ids_of(engine, prompt, sampling) == without_stop(expected, engine)


def test_sampling_draws_from_the_distribution_that_transformers_would(engine):
    """First tokens of many seeds lie inside the set that top_k and top_p leave, and a hot temperature varies them."""
    prompt = engine.renderer.encode_prompt(QUESTION)
    logits = engine.model(torch.tensor([prompt])).logits[0, -1].detach()
    allowed = set((logits / 5.0).topk(4).indices.tolist())
    drawn = set()
    for seed in range(60):
        sampling = Sampling(temperature=5.0, top_k=4, top_p=1.0, max_new_tokens=1, seed=seed)
        drawn.update(ids_of(engine, prompt, sampling))
    assert drawn == allowed


def test_a_seed_repeats_a_sampled_reply(engine):
    settings = {"do_sample": True, "temperature": 2.0, "top_p": 1.0, "seed": 5}
    assert engine.generate(QUESTION, **settings).text == engine.generate(QUESTION, **settings).text


def test_temperature_zero_is_greedy(engine):
    greedy = engine.generate(QUESTION, do_sample=False)
    assert engine.generate(QUESTION, do_sample=True, temperature=0.0).text == greedy.text


def test_a_stream_joins_to_the_whole_reply(engine):
    whole = engine.generate(QUESTION)
    pieces = list(engine.stream(QUESTION))
    assert "".join(pieces) == whole.text
    assert len(pieces) > 1
    assert whole.finish_reason == "stop"
    assert whole.message.role == "assistant"


def test_the_limit_ends_a_reply(engine):
    reply = engine.generate(QUESTION, max_new_tokens=2)
    assert reply.finish_reason == "length"
    assert reply.completion_tokens == 2


def test_max_length_counts_the_prompt(engine):
    prompt = len(engine.renderer.encode_prompt(QUESTION))
    reply = engine.generate(QUESTION, max_new_tokens=None, max_length=prompt + 3)
    assert reply.completion_tokens == 3


def test_the_models_context_is_a_limit(engine):
    context = engine.model.config.max_position_embeddings
    prompt = [5] * (context - 4)
    endless = Sampling(do_sample=True, temperature=50.0, top_k=0, top_p=1.0, max_new_tokens=1000, seed=1)
    assert len(ids_of(engine, prompt, endless)) <= 4
    with pytest.raises(DataError) as caught:
        ids_of(engine, [5] * context, endless)
    assert caught.value.code == "E-ENGINE-002"


def test_without_a_cache_the_reply_is_the_same(engine, tiny_model):
    keys = {"model_name_or_path": str(tiny_model), "use_cpu": True, "do_sample": False, "use_kv_cache": False}
    with make_engine(load_config(keys, verb="chat")) as slow:
        assert slow.generate(QUESTION, max_new_tokens=12).text == engine.generate(QUESTION, max_new_tokens=12).text


def test_every_engine_of_the_registry_imports():
    assert [ENGINES.get(name).__name__ for name in ENGINES] == ["HFEngine", "VLLMEngine", "SGLangEngine", "Remote"]


def test_a_model_that_computes_nan_is_an_error_and_no_empty_answer(tiny_model: Path) -> None:
    with make_engine(load_config({"model_name_or_path": str(tiny_model), "use_cpu": True}, verb="chat")) as engine:
        engine.model.model.norm.weight.data[0] = float("nan")
        for sampling in ({"do_sample": False}, {"do_sample": True}):
            with pytest.raises(DataError, match="E-ENGINE-003"):
                engine.generate([Message("user", "Hi")], **sampling)


@pytest.mark.parametrize("trains", [True, False])
def test_what_modules_keep_of_a_reply_may_be_trained_on_or_not(tiny_model, trains):
    """A module that holds on to a tensor of the last forward, as a cached table would be."""
    from transformers import AutoModelForCausalLM

    from tunesmith.config.generate import GenerateConfig
    from tunesmith.engines.hf import HFEngine
    from tunesmith.models.attention import attention_of
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    config = load_config({"model_name_or_path": str(tiny_model)}, verb="chat")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), load_tokenizer(config.model)
    kept, attention = [], attention_of(model)
    model.lm_head.register_forward_hook(lambda module, inputs, output: kept.append(output))
    renderer = make_renderer(config.template, tokenizer)
    with HFEngine(model, tokenizer, renderer, GenerateConfig(max_new_tokens=2), trains=trains) as engine:
        engine.generate(QUESTION)
    assert len(kept) == 3, "the layers are looked at, and two tokens are computed"
    assert {tensor.is_inference() for tensor in kept} == {not trains}
    assert not any(tensor.requires_grad for tensor in kept)
    assert attention_of(model) == attention
