"""What can be quantized, what trains on it, and what does not go with it: told before torch is imported."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.config.quantizer_facts import ON_THE_FLY, QUANTIZERS, bits_of, quantizer_of
from tunesmith.config.tuners import TUNERS
from tunesmith.core.errors import ConfigError

TRAIN = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
FOUR = {**TRAIN, "quantization_bit": 4}
EIGHT = {**TRAIN, "quantization_bit": 8}


def codes(keys: dict[str, Any], verb: str = "train") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(keys, verb=verb)
    assert all(problem.fix and problem.where for problem in caught.value.problems)
    return [problem.code for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("method", "bits"), [("bnb", 3), ("bnb", 0), ("hqq", 7), ("torchao", 2), ("eetq", 4), ("gptq", 4), ("fp8", 8)]
)
def test_what_cannot_be_quantized_is_an_error(method: str, bits: int) -> None:
    assert codes({**TRAIN, "quantization_method": method, "quantization_bit": bits}) == ["E-QUANT-001"]
    assert codes({"model_name_or_path": "m", "quantization_method": method, "quantization_bit": bits}, "chat") == [
        "E-QUANT-001"
    ]


@pytest.mark.parametrize(
    "keys",
    [
        {**FOUR, "finetuning_type": "full"},
        {**EIGHT, "finetuning_type": "freeze"},
        {**EIGHT, "quantization_method": "eetq"},
        {**FOUR, "quantization_method": "torchao"},
        {**TRAIN, "qat": "int8"},
        {**FOUR, "init_lora_weights": "pissa"},
        {**FOUR, "pissa_init": True},
        {**FOUR, "init_lora_weights": "olora"},
        {**FOUR, "use_llama_pro": True},
        {**FOUR, "finetuning_type": "peft", "peft_type": "loha"},
        {**FOUR, "quantization_method": "hqq", "finetuning_type": "peft", "peft_type": "ia3"},
    ],
)
def test_what_does_not_train_on_it_is_an_error(keys: dict[str, Any]) -> None:
    assert codes(keys) == ["E-QUANT-002"]


@pytest.mark.parametrize(
    "keys",
    [
        {**FOUR, "quantization_device_map": "auto"},
        {**FOUR, "quantization_type": "fp8"},
        {**EIGHT, "quantization_type": "fp8"},
        {**FOUR, "adapter_name_or_path": "a,b"},
        {**FOUR, "adapter_name_or_path": "a", "create_new_adapter": True},
        {**FOUR, "train_from_scratch": True},
        {**FOUR, "bf16_full_eval": True, "val_size": 0.1, "eval_strategy": "steps"},
        {**FOUR, "fp8": True},
        {**TRAIN, "fp8": True, "fp16": True},
        {**TRAIN, "qat": "int8", "fp8": True, "finetuning_type": "full"},
    ],
)
def test_what_does_not_go_together_is_one_error(keys: dict[str, Any]) -> None:
    assert codes(keys) == ["E-CONFIG-021"]


def test_libraries_of_eight_bits() -> None:
    assert codes({**TRAIN, "fp8": True, "fp8_backend": "te"}) == ["E-QUANT-003"]
    assert codes({**TRAIN, "fp8": True, "fp8_backend": "msamp"}) == ["E-QUANT-003"]
    assert codes({**TRAIN, "fp8_enable_fsdp_float8_all_gather": True}) == ["E-CONFIG-022"]
    for backend in ("auto", "torchao"):
        assert load_config({**TRAIN, "fp8": True, "fp8_backend": backend}).launch.fp8


def test_export_and_other_engines() -> None:
    base = {"model_name_or_path": "m", "quantization_bit": 4}
    assert codes({**base, "export_dir": "e"}, "export") == ["E-CONFIG-021"]
    assert codes({**base, "infer_backend": "vllm"}, "chat") == ["E-CONFIG-021"]
    assert codes({**base, "adapter_name_or_path": "a,b"}, "chat") == ["E-CONFIG-021"]
    assert codes({**EIGHT, "quantization_device_map": "auto"} | {"do_train": True}) == ["E-CONFIG-021"] * 2
    assert load_config({**base, "quantization_device_map": "auto"}, verb="chat").warnings == ()


@pytest.mark.parametrize("name", ON_THE_FLY)
def test_every_line_can_be_asked_for(name: str) -> None:
    facts = ON_THE_FLY[name]
    method = {"bitsandbytes": "bnb"}.get(facts.library, facts.library)
    keys = {"model_name_or_path": "m", "quantization_method": method, "quantization_bit": int(facts.bits or 0)}
    keys |= {"quantization_type": "fp8"} if name == "torchao_fp8" else {}
    assert quantizer_of(load_config(keys, verb="chat")) is facts
    assert facts.bits in bits_of(method)


@pytest.mark.parametrize(
    "keys",
    [{"finetuning_type": "oft"}, {"init_lora_weights": "gaussian"}, {"finetuning_type": "peft", "peft_type": "IA3"}],
)
def test_what_trains_on_it_is_taken(keys: dict[str, Any]) -> None:
    assert load_config({**FOUR, **keys}).warnings == ()


def test_the_facts_hold_together() -> None:
    for name, facts in QUANTIZERS.items():
        assert facts.name == name
        assert facts.merges == (facts.kept == "dequantized") == facts.can_train("full")
        assert bool(facts.instead) == (facts.kept == "no")
        named = set(facts.trains) - {"lora", "rslora", "dora", "oft", "loftq", "any"}
        assert named <= {kind for kind, tuner in TUNERS.items() if not tuner.refused}
    assert bits_of("gptq") == ()
    assert bits_of("hqq") == (1, 2, 3, 4, 5, 6, 8)


def test_keys_without_effect_are_named() -> None:
    keys = {"quantization_type": "nf4", "double_quantization": True, "bnb_4bit_quant_storage": "bfloat16"}
    assert "only with quantization_bit" in load_config({**TRAIN, **keys}).warnings[0]
    (warning,) = load_config({**EIGHT, **keys}).warnings
    assert "double_quantization" in warning
    assert "bnb_4bit_quant_storage" in warning
    assert load_config({**FOUR, **keys}).warnings == ()
    assert "fp8_backend (only with fp8: true)" in load_config({**TRAIN, "fp8_backend": "torchao"}).warnings[0]
