"""Scaled rotary positions: the published formulas, what is written into config.json, and who reads it afterwards."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests.tiny_models import tiny_config
from tests.tiny_models import tiny_model as tiny
from tunesmith.config import load_config
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import UsageError
from tunesmith.models.attention import VARLEN, register
from tunesmith.models.family import family_of
from tunesmith.models.fast_path import flat_inputs
from tunesmith.models.load import load
from tunesmith.models.loss_forward import trunk_of
from tunesmith.models.rope import context_of, longest_kinds, scale_positions
from tunesmith.models.segments import fit

pytestmark = pytest.mark.usefixtures("torch_one_thread")

SIZE, BASE, ORIGINAL, FACTOR = 8, 10000.0, 64, 4
"""Of the tiny types: numbers of a head, base of the frequencies, context; and times as long as that."""
PLAIN = [BASE ** (-2 * i / SIZE) for i in range(SIZE // 2)]


def keys(**more: Any) -> ModelConfig:
    return ModelConfig(model_name_or_path="x", **more)


def scaled(kind: str, longest: int | None = ORIGINAL * FACTOR, model_type: str = "llama", **more: Any) -> Any:
    settings = tiny_config(model_type)
    assert scale_positions(settings, keys(rope_scaling=kind, **more), longest)
    return settings


def yarn(i: int) -> float:
    """Eq. 17 to 23 of the paper, with alpha = 1 and beta = 32: dimensions that turn more than 32 times in the original
    context stay, those that turn less than once are stretched, and between them it goes straight from one to the
    other, over whole numbers of dimensions as the authors' code has it."""

    def dimension(turns: float) -> float:
        return SIZE * math.log(ORIGINAL / (turns * 2 * math.pi)) / (2 * math.log(BASE))

    low, high = max(math.floor(dimension(32)), 0), min(math.ceil(dimension(1)), SIZE - 1)
    share = min(max((i - low) / (high - low), 0), 1)
    return PLAIN[i] * (1 - share) + PLAIN[i] / FACTOR * share


def llama3(i: int) -> float:
    wave = 2 * math.pi / PLAIN[i]
    if wave < ORIGINAL / 4:
        return PLAIN[i]
    if wave > ORIGINAL / 1:
        return PLAIN[i] / FACTOR
    smooth = (ORIGINAL / wave - 1) / (4 - 1)
    return (1 - smooth) * PLAIN[i] / FACTOR + smooth * PLAIN[i]


def dynamic(i: int, length: int) -> float:
    length = max(length, ORIGINAL)
    base = BASE * (FACTOR * length / ORIGINAL - (FACTOR - 1)) ** (SIZE / (SIZE - 2))
    return float(base ** (-2 * i / SIZE))


FORMULAS: dict[str, Any] = {"linear": lambda i: PLAIN[i] / FACTOR, "yarn": yarn, "llama3": llama3}


@pytest.mark.parametrize("kind", FORMULAS)
def test_frequencies_are_those_of_the_papers(kind: str) -> None:
    from transformers import AutoModelForCausalLM
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = scaled(kind)
    rotary = AutoModelForCausalLM.from_config(settings).model.rotary_emb
    wanted = torch.tensor([FORMULAS[kind](i) for i in range(SIZE // 2)])
    assert torch.allclose(rotary.inv_freq, wanted, rtol=1e-5)
    theirs, warmer = ROPE_INIT_FUNCTIONS[kind](settings)
    assert torch.equal(rotary.inv_freq, theirs)
    # yarn divides scores by t: queries and keys are multiplied by 1 / sqrt(t) = 0.1 ln(factor) + 1 each
    assert rotary.attention_scaling == warmer == pytest.approx(0.1 * math.log(FACTOR) + 1 if kind == "yarn" else 1)
    assert settings.max_position_embeddings == context_of(settings) == ORIGINAL * FACTOR


def test_dynamic_frequencies_follow_the_length() -> None:
    from transformers import AutoModelForCausalLM

    settings = scaled("dynamic")
    assert (settings.max_position_embeddings, context_of(settings)) == (ORIGINAL, ORIGINAL * FACTOR)
    assert longest_kinds(settings) == ["dynamic"]
    rotary = AutoModelForCausalLM.from_config(settings).model.rotary_emb
    for length in (ORIGINAL, 100, 256):
        rotary(torch.zeros(1), torch.arange(length)[None])
        wanted = torch.tensor([dynamic(i, length) for i in range(SIZE // 2)])
        assert torch.allclose(rotary.inv_freq, wanted, rtol=1e-5), length


@pytest.mark.parametrize(("cutoff", "context"), [(65, 128), (128, 128), (129, 192), (200, 256)])
def test_the_context_follows_cutoff_len_in_training(cutoff: int, context: int) -> None:
    settings = scaled("linear", cutoff)
    assert (context_of(settings), settings.rope_parameters["factor"]) == (context, context / ORIGINAL)


def test_a_row_that_fits_needs_no_scaling(caplog: pytest.LogCaptureFixture) -> None:
    settings = tiny_config("llama")
    with caplog.at_level(logging.WARNING):
        assert not scale_positions(settings, keys(rope_scaling="yarn"), ORIGINAL)
    assert settings.rope_parameters["rope_type"] == "default"
    assert "rope_scaling is without effect" in caplog.text


def test_a_factor_can_be_given() -> None:
    assert context_of(scaled("yarn", ORIGINAL, rope_factor=3.0)) == 192
    assert context_of(scaled("yarn", None, rope_factor=3.0)) == 192
    assert context_of(scaled("yarn", None)) == 128, "twice, where there is no cutoff_len to follow"


def test_more_of_the_same_recipe() -> None:
    """Rows of 600 tokens in a context of 4 x 64 = 256: three times as much, 12 x 64, of the same original context."""
    settings = scaled("yarn")
    assert scale_positions(settings, keys(rope_scaling="yarn"), 600)
    rope = settings.rope_parameters
    assert (rope["factor"], rope["original_max_position_embeddings"], context_of(settings)) == (12, ORIGINAL, 768)
    assert not scale_positions(settings, keys(rope_scaling="yarn"), None), "a saved model is used as it is"
    with pytest.raises(UsageError, match="more than that already"):
        scale_positions(settings, keys(rope_scaling="yarn", rope_factor=2.0), None)


def test_another_recipe_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        scale_positions(scaled("llama3"), keys(rope_scaling="yarn"), 4096)
    assert caught.value.code == "E-MODEL-019"
    assert caught.value.problems[0].fix == "rope_scaling: llama3"


@pytest.mark.parametrize("model_type", ["gpt2", "opt", "bloom", "mamba"])
def test_without_rotary_positions_nothing_can_be_scaled(model_type: str) -> None:
    with pytest.raises(UsageError) as caught:
        scale_positions(tiny_config(model_type), keys(rope_scaling="yarn"), 4096)
    assert caught.value.code == "E-MODEL-019"


def test_layers_with_a_window_keep_their_positions() -> None:
    rope = scaled("linear", model_type="gemma3_text").rope_parameters
    assert rope["full_attention"]["rope_type"] == "linear"
    assert rope["sliding_attention"]["rope_type"] == "default"


def test_a_factor_without_a_recipe_is_told() -> None:
    config = load_config({"model_name_or_path": "x", "rope_factor": 2.0}, verb="chat")
    assert any("rope_factor" in line for line in config.warnings)


# ---- flat batches, where the frequencies follow from the longest sequence ----

LONG = {"short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [1.0, 2.0, 3.0, 4.0]}
SHORT = {"rope_theta": BASE, "factor": 4.0, "original_max_position_embeddings": 8}
BY_LENGTH: dict[str, Any] = {
    "dynamic": ("llama", {"max_position_embeddings": 8, "rope_parameters": {"rope_type": "dynamic", **SHORT}}),
    "longrope": (
        "phi3",
        {"original_max_position_embeddings": 8, "rope_parameters": {"rope_type": "longrope", **SHORT, **LONG}},
    ),
    "longrope of llama": ("llama", {"rope_parameters": {"rope_type": "longrope", **SHORT, **LONG}}),
}


@pytest.mark.parametrize("kind", BY_LENGTH)
def test_each_sequence_of_a_flat_batch_has_its_own_frequencies(kind: str) -> None:
    """Logits and gradients are those of each sequence alone, by a model that has seen no other; twice, as a model of
    transformers remembers the longest that it has seen."""
    model_type, more = BY_LENGTH[kind]
    generator = torch.Generator().manual_seed(0)
    pieces = [torch.randint(97, (length,), generator=generator) for length in (13, 7, 21, 1, 9)]
    model = tiny(model_type, "eager", **more)
    alone, gradient = [], torch.zeros_like(model.lm_head.weight)
    for piece in pieces:
        single = tiny(model_type, "eager", **more)
        alone.append(single(input_ids=piece[None], use_cache=False).logits[0])
        alone[-1].square().sum().backward()
        gradient += single.model.embed_tokens.weight.grad
    expected = torch.cat(alone).detach()
    register()
    flat = tiny(model_type, VARLEN, **more)
    fit(flat, family_of(model_type), trunk_of(flat))
    for _ in range(2):
        found = flat(**flat_inputs(pieces), use_cache=False).logits[0]
        assert torch.allclose(found, expected, atol=1e-5)
    found.square().sum().backward()
    assert float((flat.model.embed_tokens.weight.grad - gradient).norm() / gradient.norm()) < 1e-5
    with torch.no_grad():
        left_alone = tiny(model_type, VARLEN, **more)(**flat_inputs(pieces), use_cache=False).logits[0]
    assert not torch.allclose(left_alone, expected, atol=1e-3), "the longest sequence would decide for all"


# ---- runs ----


@pytest.fixture
def longer(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    """A run of the tiny model, whose context is 512, with rows of up to 1,200 tokens."""
    return {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "rope_scaling": "yarn",
        "cutoff_len": 1200,
        "max_steps": 1,
        "per_device_train_batch_size": 2,
        "output_dir": str(tmp_path / "out"),
        "save_strategy": "no",
        "use_cpu": True,
    }


@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_what_was_trained_is_used_without_the_key(longer: dict[str, Any], method: str, tmp_path: Path) -> None:
    folder = tunesmith.train({**longer, "finetuning_type": method}).output_dir
    named = (
        {"model_name_or_path": str(folder)}
        if method == "full"
        else {"model_name_or_path": longer["model_name_or_path"], "adapter_name_or_path": str(folder)}
    )
    with tunesmith.chat({**named, "use_cpu": True}) as conversation:
        assert conversation.engine.context == 1536
    merged = tunesmith.export_model({**named, "export_dir": str(tmp_path / "merged")})
    rope = json.loads((merged / "config.json").read_text())["rope_parameters"]
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("yarn", 3.0, 512)
    assert "num_ctx 1536" in (merged / "Modelfile").read_text()


def test_a_chat_may_be_longer_than_the_model_was_made_for(tiny_model: Path) -> None:
    config = ModelConfig(model_name_or_path=str(tiny_model), rope_scaling="llama3")
    model = load(config, dtype="float32").model
    assert model.model.rotary_emb.rope_type == "llama3"
    assert context_of(model.config) == 1024


def test_random_weights_get_the_positions_too(tiny_model: Path) -> None:
    config = ModelConfig(model_name_or_path=str(tiny_model), rope_scaling="linear", train_from_scratch=True)
    model = load(config, dtype="float32", longest=2048).model
    assert model.config.rope_parameters["factor"] == 4.0


@pytest.mark.slow
def test_a_row_beyond_the_context_is_told_with_the_key(
    longer: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"text": "once upon a time " * 300}]
    (tmp_path / "long.jsonl").write_text("\n".join(map(json.dumps, rows)))
    without = {name: value for name, value in longer.items() if name not in ("rope_scaling", "dataset_dir")}
    keys_of_pt = {**without, "stage": "pt", "packing": False, "dataset": str(tmp_path / "long.jsonl")}
    tunesmith.train(keys_of_pt)
    assert "or rope_scaling" in caplog.text
    caplog.clear()
    tunesmith.train({**keys_of_pt, "rope_scaling": "dynamic", "output_dir": str(tmp_path / "scaled")})
    assert "the model's context is" not in caplog.text
