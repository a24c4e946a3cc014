"""Every method that trains, with settings that a model of a few thousand weights can have.

The matrix (`tests/matrix/`), the page of methods and the walk over all pairs read this table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from tunesmith import load_config
from tunesmith.config.tuners import TUNERS
from tunesmith.core.errors import ConfigError

__all__ = ["CASES", "PRECISIONS", "Case", "declared"]

PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"bf16": True},
    "bnb4": {"quantization_bit": 4, "quantization_method": "bnb"},
    "bnb8": {"quantization_bit": 8, "quantization_method": "bnb"},
    "hqq4": {"quantization_bit": 4, "quantization_method": "hqq"},
}


@dataclass(frozen=True, slots=True)
class Case:
    """`lr`: a learning rate at which ten steps lower the loss. `bound`: largest difference of logits, relative to the
    largest, between what was trained and what plain PEFT loads, by precision, where it is more than 1e-4, and why."""

    settings: dict[str, Any]
    lr: float = 5e-3
    bound: dict[str, float] = field(default_factory=dict)
    why: str = ""


_ROUNDED = "half precision rounds the base that lost a part, the plain adapter goes with the base as it came"


def _lora(**settings: Any) -> dict[str, Any]:
    return {"finetuning_type": "lora", "lora_rank": 4, **settings}


CASES: dict[str, Case] = {
    "full": Case({"finetuning_type": "full"}, lr=1e-3),
    "freeze": Case({"finetuning_type": "freeze", "freeze_trainable_layers": 1}, lr=1e-3),
    "llama_pro": Case({"finetuning_type": "freeze", "use_llama_pro": True, "freeze_trainable_layers": 1}, lr=1e-3),
    "lora": Case(_lora()),
    "rslora": Case(_lora(use_rslora=True)),
    "dora": Case(_lora(use_dora=True)),
    "lora + llama_pro": Case(_lora(use_llama_pro=True, freeze_trainable_layers=1)),
    "lora: gaussian": Case(_lora(init_lora_weights="gaussian")),
    "lora: orthogonal": Case(_lora(init_lora_weights="orthogonal")),
    "lora: pissa": Case(_lora(pissa_init=True), bound={"bf16": 5e-2}, why=_ROUNDED),
    "lora: olora": Case(_lora(init_lora_weights="olora"), bound={"bf16": 5e-2}, why=_ROUNDED),
    "lora: corda": Case(_lora(init_lora_weights="corda"), bound={"bf16": 1e-1}, why=_ROUNDED),
    "lora: lora_ga": Case(_lora(init_lora_weights="lora_ga"), bound={"bf16": 5e-2}, why=_ROUNDED),
    "lora: eva": Case(_lora(init_lora_weights="eva")),
    "lora: loftq": Case(_lora(init_lora_weights="loftq")),
    "oft": Case({"finetuning_type": "oft", "oft_block_size": 8}),
}

_SETTINGS: dict[str, dict[str, Any]] = {
    "adalora": {"init_r": 6, "target_r": 3},
    "adamss": {"r": 16, "num_subspaces": 2},
    "adaption_prompt": {"adapter_len": 4, "adapter_layers": 1},
    "c3a": {"block_size": 8},
    "cartridge": {"num_virtual_tokens": 4},
    "cpt": {"cpt_token_ids": [5, 6, 7, 8], "cpt_mask": [1, 1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3, 4]},
    "fourierft": {"n_frequency": 200, "scaling": 50.0},
    "multitask_prompt_tuning": {"num_virtual_tokens": 4},
    "p_tuning": {"num_virtual_tokens": 4, "encoder_hidden_size": 32},
    "prefix_tuning": {"num_virtual_tokens": 4},
    "prompt_tuning": {"num_virtual_tokens": 4},
    "road": {"group_size": 8},
    "shira": {"r": 2},
    "trainable_tokens": {"token_indices": list(range(3, 400))},
    "vblora": {"vector_length": 8, "num_vectors": 64},
    "waveft": {"n_frequency": 200},
    "xlora": {"adapters": {"learnt": "learnt", "random": "random"}, "layerwise_scalings": True},
}
_LR = {"adaption_prompt": 5e-2, "cpt": 5e-2, "prompt_tuning": 5e-2, "multitask_prompt_tuning": 5e-2, "vera": 5e-2}
_LR |= {"delora": 1e-3, "randlora": 1e-3, "unilora": 5e-2, "tinylora": 2e-2, "cartridge": 5e-2, "prefix_tuning": 5e-2}
_LR["xlora"] = 5e-2

_ENCODED = "PEFT saves what the encoder of the prompt computes, which half precision rounds in another place"
_TYPED = "PEFT loads what has trained in float32 in the type of the base"
_BOUNDS: dict[str, tuple[dict[str, float], str]] = {
    "p_tuning": ({"bf16": 2e-2}, _ENCODED),
    "shadow": ({"bf16": 5e-2}, _TYPED),
}

CASES |= {
    kind: Case(
        {"finetuning_type": "peft", "peft_type": kind, "peft_settings": _SETTINGS.get(kind, {})},
        lr=_LR.get(kind, 5e-3),
        bound=_BOUNDS[kind][0] if kind in _BOUNDS else {},
        why=_BOUNDS[kind][1] if kind in _BOUNDS else "",
    )
    for kind, tuner in TUNERS.items()
    if tuner.refused is None
}


@cache
def declared(name: str, precision: str) -> bool:
    """Whether a method is possible in a precision: the config is accepted."""
    asked = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
    try:
        load_config({**asked, **CASES[name].settings, **PRECISIONS[precision]})
    except ConfigError:
        return False
    return True
