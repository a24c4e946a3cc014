"""Adapters learn on quantized weights, which stay what they were; what is saved answers the same in plain libraries."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import tunesmith
from tests.quantized_bases import plain_base
from tests.run_logs import same_weights
from tunesmith.core.errors import UsageError

pytestmark = pytest.mark.slow

KINDS: dict[str, dict[str, Any]] = {
    "bnb4": {"quantization_bit": 4},
    "bnb4_fp4": {"quantization_bit": 4, "quantization_type": "fp4", "double_quantization": False},
    "bnb4_in_bf16": {"quantization_bit": 4, "bnb_4bit_quant_storage": "bfloat16"},
    "bnb8": {"quantization_bit": 8, "quantization_method": "bitsandbytes"},
    "hqq4": {"quantization_bit": 4, "quantization_method": "hqq"},
    "hqq8": {"quantization_bit": 8, "quantization_method": "hqq"},
    "torchao_int8": {"quantization_bit": 8, "quantization_method": "torchao"},
    "torchao_fp8": {"quantization_bit": 8, "quantization_method": "torchao", "quantization_type": "fp8"},
}
Train = Callable[..., Any]


@pytest.fixture
def adapters(train: Train) -> Train:
    """Ten steps of LoRA on stories260K."""
    return lambda **keys: train(**{"finetuning_type": "lora", "max_steps": 10, "learning_rate": 5e-3, **keys})


def losses(result: Any) -> list[float]:
    lines = (result.output_dir / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    return [line["loss"] for line in map(json.loads, lines) if "loss" in line]


def held(model: Any) -> dict[str, Tensor]:
    """Copies of every tensor that frozen weights are made of."""
    from tunesmith.models.quantization.weights import parts_of

    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    return {name: tensor.detach().clone() for name, tensor in parts_of(model) if name not in trained}


@pytest.mark.parametrize("kind", KINDS)
def test_learns_and_leaves_the_base_as_it_was(adapters: Train, stories: Path, trainers: list[Any], kind: str) -> None:
    from peft import PeftModel

    result = adapters(**KINDS[kind])
    assert losses(result)[-1] < losses(result)[0] - 0.7
    assert str(result.plan.quantization).startswith(kind if "torchao" in kind else kind.split("_")[0])
    trained = trainers[0].model
    # Every byte of the base is that of one that was quantized anew and never trained.
    base = plain_base(stories, kind).requires_grad_(False)
    fresh, found = held(base), held(trained)
    names = {name: name.removeprefix("base_model.model.").replace(".base_layer", "") for name in found}
    assert set(names.values()) == set(fresh)
    for name, own in names.items():
        assert found[name].dtype == fresh[own].dtype, name
        assert torch.equal(found[name].view(torch.uint8), fresh[own].view(torch.uint8)), name
    # The same adapter in plain PEFT.
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        ours = trained.eval()(input_ids=ids).logits
        theirs = PeftModel.from_pretrained(base, result.output_dir).eval()(input_ids=ids).logits
    assert (ours - theirs).abs().max() <= 1e-4 * ours.abs().max()


@pytest.mark.parametrize("kind", ["bnb4", "bnb8", "hqq4"])
def test_in_bfloat16_with_norms_in_float32(adapters: Train, trainers: list[Any], kind: str) -> None:
    result = adapters(**KINDS[kind], bf16=True, upcast_layernorm=True, gradient_checkpointing_mode="selective")
    assert losses(result)[-1] < losses(result)[0] - 0.7
    weights = dict(trainers[0].model.named_parameters())
    assert {one.dtype for name, one in weights.items() if "norm" in name} == {torch.float32}
    assert {one.dtype for name, one in weights.items() if "lora_" in name} == {torch.float32}
    assert weights["base_model.model.model.embed_tokens.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["bnb4", "bnb8", "hqq4", "torchao_int8"])
@pytest.mark.parametrize("how", [{"use_dora": True}, {"use_rslora": True}, {"disable_gradient_checkpointing": True}])
def test_kinds_of_adapters(adapters: Train, kind: str, how: dict[str, Any]) -> None:
    found = losses(adapters(**KINDS[kind], **how))
    assert found[-1] < found[0] - 0.7


@pytest.mark.parametrize("kind", ["bnb4", "bnb8", "hqq4", "torchao_int8"])
@pytest.mark.parametrize("how", [{"finetuning_type": "oft", "oft_block_size": 4}, {"peft_type": "boft"}])
def test_other_adapters(adapters: Train, kind: str, how: dict[str, Any]) -> None:
    found = losses(adapters(**KINDS[kind], **{"finetuning_type": "peft", **how}, learning_rate=1e-2))
    assert found[-1] < found[0] - 0.5


@pytest.mark.parametrize("kind", ["bnb4", "bnb8", "hqq4", "torchao_int8"])
def test_a_resumed_run_gives_the_same_bits(adapters: Train, tmp_path: Path, kind: str) -> None:
    from safetensors.torch import load_file

    keys = {**KINDS[kind], "save_strategy": "steps", "save_steps": 3, "max_steps": 6}
    whole = adapters(**keys, output_dir=str(tmp_path / "whole"))
    checkpoint = whole.output_dir / "checkpoint-3"
    files = {file.name for file in checkpoint.iterdir()}
    assert "adapter_model.safetensors" in files
    assert "model.safetensors" not in files
    again = adapters(**keys, output_dir=str(tmp_path / "again"), resume_from_checkpoint=str(checkpoint))
    one, two = (load_file(run.output_dir / "adapter_model.safetensors") for run in (whole, again))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("how", [{}, {"bf16": True, "use_dora": True}, {"finetuning_type": "oft", "oft_block_size": 4}])
def test_the_storage_changes_no_bit(adapters: Train, tmp_path: Path, how: dict[str, Any]) -> None:
    """Not in training, nor where a run goes on with another one, nor merged into the whole base."""
    keys = {**KINDS["bnb4"], **how, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    plain = adapters(**keys, output_dir=str(tmp_path / "uint8"))
    for storage in ("bfloat16", "float32"):
        storing = {**keys, "bnb_4bit_quant_storage": storage}
        stored = adapters(**storing, output_dir=str(tmp_path / storage))
        checkpoint = {"resume_from_checkpoint": str(plain.output_dir / "checkpoint-2")}
        resumed = adapters(**storing, **checkpoint, output_dir=str(tmp_path / f"{storage}-resumed"))
        assert losses(stored) == losses(plain)
        assert same_weights(stored, plain)
        assert same_weights(resumed, plain)


def test_another_base_is_told_on_a_resume(adapters: Train) -> None:
    keys = {**KINDS["bnb4"], "save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    adapters(**keys)
    with pytest.raises(UsageError, match="quantization_type"):
        adapters(**keys | {"max_steps": 4, "quantization_type": "fp4"})


def test_the_quick_ways_hold_on_quantized_weights(adapters: Train) -> None:
    for kind in ("bnb4", "hqq4", "torchao_int8"):
        result = adapters(**KINDS[kind], max_steps=1, fast_path="require", overwrite_output_dir=True)
        assert (result.plan.batches, result.plan.loss) == ("flat", "chunked")
    # bitsandbytes looks for outliers in all rows of a batch, so rows see each other.
    assert adapters(**KINDS["bnb8"], max_steps=1, overwrite_output_dir=True).plan.batches == "padded"


def test_double_quantization_takes_less(stories: Path) -> None:
    from tunesmith.models.quantization.weights import parts_of

    def of_scales(**keys: Any) -> float:
        config = tunesmith.load_config({"model_name_or_path": str(stories), **keys}, verb="chat")
        model = loaded(config)
        layer = {name: one for name, one in parts_of(model) if name.startswith("model.layers.0.mlp.down_proj")}
        tables = ("quant_map", "nested_quant_map")  # the same few numbers for any size
        scales = [one for name, one in layer.items() if not name.endswith((*tables, ".weight"))]
        return sum(one.numel() * one.element_size() for one in scales) / (64 * 172)

    once = of_scales(quantization_bit=4, double_quantization=False)
    twice = of_scales(quantization_bit=4, double_quantization=True)
    assert once == pytest.approx(4 / 64)  # a float32 for 64 weights
    assert twice < 0.4 * once


def loaded(config: Any) -> Any:
    from tunesmith.models.load import load
    from tunesmith.models.quantization.plan import base_of

    return load(config.model, dtype="float32", quantization=base_of(config, "cpu")).model


def test_a_model_may_be_spread_to_generate(stories: Path) -> None:
    from tunesmith.models.quantization.plan import base_of

    keys = {"model_name_or_path": str(stories), "quantization_bit": 4}
    whole = tunesmith.load_config(keys, verb="chat")
    spread = tunesmith.load_config({**keys, "quantization_device_map": "auto"}, verb="chat")
    placed = [base_of(config, "cpu").arguments("float32", "cpu")["device_map"] for config in (whole, spread)]
    assert placed == [{"": "cpu"}, "auto"]
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        assert torch.equal(loaded(whole)(input_ids=ids).logits, loaded(spread)(input_ids=ids).logits)


@pytest.mark.parametrize("kind", ["bnb4", "bnb8", "hqq4", "torchao_int8"])
def test_generates_with_its_adapter(adapters: Train, stories: Path, kind: str) -> None:
    adapter = str(adapters(**KINDS[kind]).output_dir)
    keys = {"model_name_or_path": str(stories), "adapter_name_or_path": adapter, "template": "default", "use_cpu": True}
    with tunesmith.chat({**keys, **KINDS[kind]}) as conversation:
        assert isinstance(conversation.ask("Who are you?", max_new_tokens=4), str)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_counted_as_what_they_stand_for(stories: Path, kind: str) -> None:
    from tunesmith.methods.base import count_parameters
    from tunesmith.models.quantization.weights import Held

    keys = {"model_name_or_path": str(stories)}
    plain, model = (loaded(tunesmith.load_config({**keys, **more}, verb="chat")) for more in ({}, KINDS[kind]))
    assert (
        count_parameters(model).total == count_parameters(plain).total == sum(one.numel() for one in plain.parameters())
    )
    layers = sum(one.numel() for name, one in plain.named_parameters() if ".layers." in name and one.ndim == 2)
    assert (Held(plain).quantized, Held(model).quantized) == (0, layers)


def test_a_record_says_what_was_quantized(adapters: Train) -> None:
    result = adapters(**KINDS["bnb4"], max_steps=1)
    record = json.loads((result.output_dir / "run.json").read_text(encoding="utf-8"))
    assert record["plan"]["quantization"] == "bnb4 (nf4, double)"
    assert record["versions"]["bitsandbytes"]
    assert any("bnb4 (nf4, double)" in line for line in result.plan.lines())
