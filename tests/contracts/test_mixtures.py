"""What `models.mixture` reads off a config, against the modules of a model of every type with experts."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from tests.tiny_models import tiny_config
from tunesmith.models.mixture import active_parameters, expert_modules, mixture_of

# Changes with which a type has experts that has none by itself.
WITH_EXPERTS: dict[str, dict[str, Any]] = {
    "gemma4_text": {"enable_moe_block": True, "num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": 16},
}
# Types that tests.tiny_models has no config for, or that need a package.
NOT_MADE = {
    "gemma3n", "gemma4_assistant", "gemma4_unified_assistant", "musicgen", "musicgen_melody", "qwen4_exp", "reformer"
}  # fmt: skip


def language_types() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - NOT_MADE)


def model_of(model_type: str, **changes: Any) -> tuple[Any, Any]:
    """(config, model without numbers)"""
    from transformers import AutoModelForCausalLM

    settings = tiny_config(model_type, **changes)
    with torch.device("meta"):
        return settings, AutoModelForCausalLM.from_config(settings)


def sparse_in(model: Any) -> set[int]:
    """Numbers of the layers with experts."""
    found = (re.search(r"\.(\d+)\.", name) for name, _ in expert_modules(model))
    return {int(number[1]) for number in found if number}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", language_types())
def test_facts_are_those_of_the_modules(model_type: str) -> None:
    settings, model = model_of(model_type, **WITH_EXPERTS.get(model_type, {}))
    mixture = mixture_of(settings)
    assert {number for number, sparse in enumerate(mixture.sparse if mixture else ()) if sparse} == sparse_in(model)
    if mixture is None:
        return
    held = {one.shape[0] for _, module in expert_modules(model) for one in module.parameters() if one.ndim == 3}
    assert mixture.experts in held or model_type == "dbrx"  # which stacks their rows
    idle = {"longcat_flash": 1, "zaya": 1}.get(model_type, 0)
    chosen = {module.top_k for module in model.modules() if type(getattr(module, "top_k", None)) is int}
    assert chosen <= {round(mixture.chosen * (mixture.experts + idle) / mixture.experts)}


# Configs whose layers differ from what a type has by itself: the model is built, and tells.
OTHERS: list[tuple[str, dict[str, Any]]] = [
    ("qwen2_moe", {"mlp_only_layers": [1]}),
    ("qwen3_moe", {"decoder_sparse_step": 2}),
    ("qwen3_next", {"decoder_sparse_step": 2, "mlp_only_layers": []}),
    ("deepseek_v2", {"first_k_dense_replace": 0}),
    ("deepseek_v3", {"first_k_dense_replace": 2}),
    ("jamba", {"expert_layer_period": 2, "expert_layer_offset": 0}),
    ("llama4_text", {"moe_layers": [1]}),
    ("ernie4_5_moe", {"moe_layer_start_index": 0, "moe_layer_end_index": 0}),
    ("lfm2_moe", {"num_dense_layers": 0}),
    ("afmoe", {"num_dense_layers": 2}),
    ("mellum", {"mlp_layer_types": ["sparse", "dense"]}),
    ("granitemoehybrid", {"num_local_experts": 0}),
    ("hunyuan_v1_moe", {"moe_topk": [1, 2]}),
]


@pytest.mark.parametrize(("model_type", "changes"), OTHERS)
def test_layers_follow_the_keys_of_the_config(model_type: str, changes: dict[str, Any]) -> None:
    settings, model = model_of(model_type, **changes)
    mixture, layers = mixture_of(settings), sparse_in(model)
    assert {number for number, sparse in enumerate(mixture.sparse if mixture else ()) if sparse} == layers
    assert mixture is None or mixture.dense_layers == tuple({0, 1} - layers)


def test_a_list_of_numbers_of_experts_is_told_by_its_mean() -> None:
    mixture = mixture_of(tiny_config("hunyuan_v1_moe", moe_topk=[1, 2]))
    assert mixture is not None
    assert mixture.chosen == 1.5


# What the authors say, in billions: parameters, and those of a token. OpenAI leaves the embeddings out of the second,
# Meituan says about 27 as a mean over texts; transformers also holds rows for experts that do nothing, so all are more.
PUBLISHED = {
    "mixtral": (46.7, 12.9),  # https://arxiv.org/abs/2401.04088
    "deepseek_v3": (671, 37),  # https://arxiv.org/abs/2412.19437
    "gpt_oss": (116.83, 5.13 + 0.58),  # https://arxiv.org/abs/2508.10925, table 1
    "phimoe": (42, 6.6),  # https://arxiv.org/abs/2404.14219
    "llama4_text": (109, 17),  # https://ai.meta.com/blog/llama-4-multimodal-intelligence, with its encoder
    "longcat_flash": (None, 27),  # https://arxiv.org/abs/2509.01322
}


@pytest.mark.slow
@pytest.mark.parametrize("model_type", PUBLISHED)
def test_sizes_are_those_that_were_published(model_type: str) -> None:
    """The config that a type has by itself is that of the model it is named after."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    settings, (parameters, active) = CONFIG_MAPPING[model_type](), PUBLISHED[model_type]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(settings, dtype=torch.bfloat16)
    mixture = mixture_of(settings)
    assert mixture is not None
    if parameters is not None:
        assert sum(one.numel() for one in model.parameters()) / 1e9 == pytest.approx(parameters, rel=0.02)
    assert active_parameters(model, mixture) / 1e9 == pytest.approx(active, rel=0.04)
