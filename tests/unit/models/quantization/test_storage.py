"""The type of the tensors that hold 4-bit weights of bitsandbytes, and what FSDP makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.two_ranks import TwoRanks
from tunesmith.config import load_config
from tunesmith.config.quantizer_facts import ON_THE_FLY
from tunesmith.core.errors import UsageError
from tunesmith.methods.base import Given
from tunesmith.models.quantization.bitsandbytes import BitsAndBytes

IDS = torch.arange(3, 60)[None]


@pytest.mark.parametrize(
    ("asked", "sharded", "stored"),
    [
        ("auto", False, torch.uint8),
        ("auto", True, torch.bfloat16),
        ("float32", False, torch.float32),
        ("uint8", True, torch.uint8),
    ],
)
def test_auto_is_the_type_of_the_run_where_weights_are_sharded(asked: str, sharded: bool, stored: torch.dtype) -> None:
    keys = {"model_name_or_path": "m", "quantization_bit": 4, "bnb_4bit_quant_storage": asked}
    config = load_config(keys, verb="chat").quantization
    settings = BitsAndBytes(config, ON_THE_FLY["bnb4"], sharded).arguments("bfloat16")["quantization_config"]
    assert settings.bnb_4bit_quant_storage == stored


@pytest.fixture(scope="module")
def stored_in_bf16(tiny_model: Path) -> Any:
    return loaded(str(tiny_model), "float32", "bfloat16")


def loaded(folder: str, dtype: str, storage: str) -> Any:
    from tunesmith.models.load import load
    from tunesmith.models.quantization.plan import base_of

    keys = {"model_name_or_path": folder, "quantization_bit": 4, "bnb_4bit_quant_storage": storage}
    config = load_config(keys, verb="chat")
    return load(config.model, dtype=dtype, quantization=base_of(config, "cpu")).model


def test_packed_weights_are_no_floats_whatever_their_type(stored_in_bf16: Any) -> None:
    from tunesmith.models.quantization.weights import packed_names
    from tunesmith.train.advice import facts_of

    packed = packed_names(stored_in_bf16)
    weights = dict(stored_in_bf16.named_parameters())
    assert packed == {name for name, weight in weights.items() if ".layers." in name and "norm" not in name}
    assert {weights[name].dtype for name in packed} == {torch.bfloat16}
    assert facts_of(stored_in_bf16, "adamw_torch", half=False).numbers == 4  # bytes of an activation


def test_a_quantized_layer_does_not_train_whole(stored_in_bf16: Any) -> None:
    from tunesmith.config.method import MethodConfig
    from tunesmith.methods import METHODS
    from tunesmith.models.family import family_of

    config = MethodConfig(finetuning_type="lora", additional_target=("embed_tokens", "down_proj"))
    with pytest.raises(UsageError, match="E-QUANT-002") as caught:
        METHODS.get("lora")(config).apply(stored_in_bf16, Given(family_of("llama")))
    assert "down_proj would train whole" in str(caught.value)


# --- two processes ---


def forward_and_backward(folder: str, dtype: str, storage: str, shard: str) -> tuple[Any, Any, set[str]]:
    """(logits, gradient of the adapters, as numpy; types of a shard of a quantized weight) of a QLoRA model. `shard`:
    no, fsdp2, or mixed (fsdp2 that computes in bfloat16)."""
    from peft import LoraConfig, get_peft_model
    from torch import distributed
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    torch.manual_seed(0)
    model = get_peft_model(loaded(folder, dtype, storage), LoraConfig(r=4, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    if shard != "no":
        if not distributed.is_initialized():
            distributed.init_process_group("gloo")
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16) if shard == "mixed" else MixedPrecisionPolicy()
        for layer in model.base_model.model.model.layers:
            fully_shard(layer, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
    stored = {name: weight for name, weight in model.named_parameters() if name.endswith("down_proj.base_layer.weight")}
    parts = {str(getattr(one, "to_local", lambda one=one: one)().dtype) for one in stored.values()}
    result = model(input_ids=IDS, labels=IDS)
    result.loss.backward()
    gradients = [one.grad for one in model.parameters() if one.requires_grad]
    whole = [one.full_tensor() if hasattr(one, "full_tensor") else one for one in gradients]
    return result.logits.detach().float().numpy(), torch.cat([one.flatten() for one in whole]).numpy(), parts


@pytest.mark.slow
def test_fsdp_shards_it_and_changes_no_bit(stories: Path, torch_one_thread: None) -> None:
    folder = str(stories)
    plain = {dtype: forward_and_backward(folder, dtype, "uint8", "no") for dtype in ("float32", "bfloat16")}
    with TwoRanks(["tests.unit.models.quantization.test_storage", "peft", "transformers", "bitsandbytes"]) as ranks:
        for dtype, storage in (("bfloat16", "bfloat16"), ("float32", "float32"), ("float32", "uint8")):
            for logits, gradient, types in ranks.call(forward_and_backward, folder, dtype, storage, "fsdp2"):
                assert types == {f"torch.{storage}"}
                assert (logits == plain[dtype][0]).all(), (dtype, storage)
                assert (gradient == plain[dtype][1]).all(), (dtype, storage)
        # Where FSDP computes in another type, it converts the bits as if they were numbers.
        with pytest.raises(AssertionError, match="is invalid for input of size"):
            ranks.call(forward_and_backward, folder, "float32", "float32", "mixed")
