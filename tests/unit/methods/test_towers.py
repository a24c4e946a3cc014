"""Models that see: which of their parts train."""

from __future__ import annotations

import pytest
import torch

from tunesmith.config.method import MethodConfig
from tunesmith.methods import METHODS
from tunesmith.methods.base import Given
from tunesmith.models.family import family_of

pytestmark = pytest.mark.usefixtures("torch_one_thread")

TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture
def llava():
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    config = LlavaConfig(text_config=LlamaConfig(**TEXT), vision_config=vision, image_token_index=90)
    return LlavaForConditionalGeneration(config)


@pytest.fixture
def qwen_vl():
    """Its projector stands within the encoder, and both have layers of the same names."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    tokens = {"bos_token_id": 1, "eos_token_id": 2}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        text_config={**TEXT, **tokens, "rope_parameters": rope},
        vision_config={**vision, "fullatt_block_indexes": [1]},
        image_token_id=90,
        video_token_id=91,
        vision_start_token_id=92,
        vision_end_token_id=93,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def apply(model, **settings):
    config = MethodConfig(**settings)
    method = METHODS.get(config.finetuning_type)(config)
    return method.apply(model, Given(family_of(model.config.model_type)))


def part(name):
    if "language_model" in name or "lm_head" in name:
        return "language"
    return "projector" if "multi_modal_projector" in name or ".merger" in name else "vision"


def trained(model):
    return {name for name, weight in model.named_parameters() if weight.requires_grad}


CHOICES = [
    ({}, {"language"}),
    ({"freeze_multi_modal_projector": False}, {"language", "projector"}),
    ({"freeze_vision_tower": False}, {"language", "vision"}),
    ({"freeze_language_model": True, "freeze_multi_modal_projector": False}, {"projector"}),
]


@pytest.mark.parametrize("name", ["llava", "qwen_vl"])
@pytest.mark.parametrize(("settings", "parts"), CHOICES)
def test_which_parts_train_in_full(request, name, settings, parts):
    model = apply(request.getfixturevalue(name), finetuning_type="full", **settings)
    assert trained(model) == {name for name, _ in model.named_parameters() if part(name) in parts}


@pytest.mark.parametrize("name", ["llava", "qwen_vl"])
@pytest.mark.parametrize(("settings", "parts"), CHOICES)
def test_which_parts_get_an_adapter(request, name, settings, parts):
    """On all linear layers of them but the output layer."""
    model = apply(request.getfixturevalue(name), finetuning_type="lora", **settings)
    linear = {name for name, one in model.named_modules() if isinstance(one, torch.nn.Linear) and "lora_" not in name}
    expected = {name.removesuffix(".base_layer") for name in linear if part(name) in parts and "lm_head" not in name}
    assert {name.split(".lora_")[0] for name in trained(model)} == expected


def test_layers_by_name_get_an_adapter_in_the_parts_that_train(qwen_vl):
    names = trained(apply(qwen_vl, finetuning_type="lora", lora_target=("gate_proj",)))
    assert {part(name) for name in names} == {"language"}, "the encoder has layers of this name too"
    assert all("gate_proj" in name for name in names)


def test_layers_of_the_language_model_are_counted(qwen_vl):
    names = trained(
        apply(qwen_vl, finetuning_type="freeze", freeze_trainable_layers=1, freeze_multi_modal_projector=False)
    )
    assert {name for name in names if part(name) == "language"} == {
        name for name, _ in qwen_vl.named_parameters() if ".language_model.layers.1." in name
    }
    assert {part(name) for name in names} == {"language", "projector"}


def test_a_text_model_says_what_it_lacks(tiny_model, caplog, monkeypatch):
    import logging

    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(logging.getLogger("tunesmith"), "propagate", True)
    model = apply(AutoModelForCausalLM.from_pretrained(tiny_model), finetuning_type="full", freeze_language_model=True)
    assert trained(model) == {name for name, _ in model.named_parameters()}
    assert "freeze_language_model is without effect" in caplog.text
