"""Runs of adapters that change while they train, or begin with a part of the base: they go on to the bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tunesmith

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch_one_thread")]


def train(tiny_model: Path, tiny_data: Path, folder: Path, **settings: Any) -> Path:
    return tunesmith.train(
        {
            "model_name_or_path": str(tiny_model),
            "dataset": str(tiny_data / "new_openai.jsonl"),
            "output_dir": str(folder),
            "learning_rate": 5e-3,
            "max_steps": 12,
            "save_steps": 4,
            "logging_steps": 1,
            "use_cpu": True,
            **settings,
        }
    ).output_dir


ADALORA = {"finetuning_type": "peft", "peft_type": "adalora", "peft_settings": {"init_r": 6, "target_r": 3}}
BUDGET = {**ADALORA, "peft_settings": {**ADALORA["peft_settings"], "tinit": 2, "tfinal": 5}}
PROMPT = {"finetuning_type": "peft", "peft_type": "prompt_tuning", "peft_settings": {"num_virtual_tokens": 4}}
KINDS = {
    "adalora": BUDGET,
    "pissa": {"pissa_init": True, "lora_rank": 4},
    "corda": {"init_lora_weights": "corda", "lora_rank": 4},
    "lora_ga": {"init_lora_weights": "lora_ga", "lora_rank": 4},
    "eva": {"init_lora_weights": "eva", "lora_rank": 4},
    "oft": {"finetuning_type": "oft", "oft_block_size": 4, "module_dropout": 0.1},
    "prompt_tuning": PROMPT,
    "loftq": {"init_lora_weights": "loftq", "lora_rank": 4, "quantization_bit": 4},
    "shadow": {"finetuning_type": "peft", "peft_type": "shadow", "peft_settings": {"r": 4}},
    "xlora": {"finetuning_type": "peft", "peft_type": "xlora"},
}


@pytest.mark.parametrize(("kind", "at"), [*((kind, 4) for kind in KINDS), ("adalora", 8)])
def test_a_run_goes_on_to_the_bit(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, at: int
) -> None:
    if kind == "xlora":
        experts = {
            name: str(train(tiny_model, tiny_data, tmp_path / name, seed=seed, max_steps=2, save_strategy="no"))
            for seed, name in enumerate(("one", "other"))
        }
        settings = {"adapters": experts, "use_trainable_adapters": True}
        monkeypatch.setitem(KINDS, kind, {**KINDS[kind], "peft_settings": settings})
    whole = train(tiny_model, tiny_data, tmp_path / "whole", **KINDS[kind])
    shutil.copytree(whole / f"checkpoint-{at}", tmp_path / "again" / f"checkpoint-{at}")
    again = train(tiny_model, tiny_data, tmp_path / "again", **KINDS[kind])
    one, other = (load_file(folder / "adapter_model.safetensors") for folder in (whole, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_adalora_takes_ranks_from_layers_that_need_them_least(
    tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder = train(tiny_model, tiny_data, tmp_path, **BUDGET)
    ranks = {}
    for step in (4, 8, 12):
        weights = load_file(folder / f"checkpoint-{step}" / "adapter_model.safetensors")
        ranks[step] = [int((value != 0).sum()) for name, value in weights.items() if "lora_E" in name]
    layers = len(ranks[4])
    assert 6 * layers > sum(ranks[4]) > sum(ranks[8]), "the budget falls between steps 2 and 7"
    assert sum(ranks[8]) == sum(ranks[12]) == 3 * layers
    assert len(set(ranks[12])) > 2, "it went where it is needed"


def test_the_loss_of_a_method_is_logged(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """AdaLoRA's term is a part of the loss of training and of none that is evaluated."""
    rows = str(tiny_data / "new_openai.jsonl")
    settings = {"eval_dataset": rows, "eval_on_start": True, "do_train": True, "save_strategy": "no", "max_steps": 2}
    plain = train(tiny_model, tiny_data, tmp_path / "plain", lora_rank=6, **settings)
    ours = train(tiny_model, tiny_data, tmp_path / "adalora", **BUDGET, **settings)
    first = [json.loads((folder / "trainer_log.jsonl").read_text().splitlines()[0]) for folder in (plain, ours)]
    assert first[0]["eval_loss"] == pytest.approx(first[1]["eval_loss"], abs=1e-3)


@pytest.fixture(scope="module")
def llava(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that sees, with random weights and the tiny model's tokenizer."""
    from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    folder = tmp_path_factory.mktemp("llava")
    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "intermediate_size": 96}
    torch.manual_seed(0)
    LlavaForConditionalGeneration(
        LlavaConfig(
            text_config=LlamaConfig(vocab_size=896, num_key_value_heads=2, initializer_range=0.1, **sizes),
            vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **sizes),
            image_token_index=890,
        )
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_a_model_that_sees_learns_text_and_keeps_its_eyes(
    llava: Path, tiny_data: Path, tmp_path: Path, kind: str
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    out = train(llava, tiny_data, tmp_path, finetuning_type=kind, max_steps=6, save_strategy="no")
    losses = [
        json.loads(line)["loss"] for line in (out / "trainer_log.jsonl").read_text().splitlines() if "loss" in line
    ]
    assert losses[-1] < losses[0]
    before = AutoModelForImageTextToText.from_pretrained(llava)
    after = AutoModelForImageTextToText.from_pretrained(out if kind == "full" else llava)
    now = dict(after.named_parameters())
    changed = {name for name, weight in before.named_parameters() if not torch.equal(weight, now[name])}
    assert all("language_model" in name or "lm_head" in name for name in changed)
    assert bool(changed) == (kind == "full")
    if kind == "lora":
        assert all(".language_model." in name for name in load_file(out / "adapter_model.safetensors"))
        after = PeftModel.from_pretrained(after, out)

    from tunesmith.engines import make_engine
    from tunesmith.engines.base import Request, Sampling

    names = {"model_name_or_path": str(out)} if kind == "full" else {"adapter_name_or_path": str(out)}
    config = tunesmith.load_config({"model_name_or_path": str(llava), **names, "use_cpu": True}, verb="chat")
    ids = list(range(10, 24))
    with make_engine(config) as engine:
        sampling = Sampling.of(engine.defaults, do_sample=False, max_new_tokens=6)
        ((_, piece),) = engine.run_all([Request(ids, sampling)])
    expected = after.eval().generate(torch.tensor([ids]), max_new_tokens=6, do_sample=False, pad_token_id=0)[0, 14:]
    ours = [token.id for token in piece.tokens]
    assert ours == expected.tolist()[: len(ours)]
    assert ours


def test_loftq_gives_back_what_rounding_took(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Base and adapter of `convert loftq-init`, in four bits, begin nearer to the model than four bits alone."""
    from tunesmith.convert.initial import InitialSettings, initial_adapter

    settings = InitialSettings(rank=24, alpha=None, targets=("all",), iterations=4)
    base = tmp_path / "base"
    initial_adapter("loftq-init", tiny_model, base, settings, max_shard_size=10**9, progress=lambda done, total: None)
    four: dict[str, Any] = {"quantization_bit": 4, "double_quantization": False}
    adapter = {"model_name_or_path": str(base), "adapter_name_or_path": str(base / "loftq_init")}
    whole, rounded, begins = (
        answers({"model_name_or_path": str(tiny_model), **keys}) for keys in ({}, four, {**four, **adapter})
    )
    assert (begins - whole).norm() < 0.75 * (rounded - whole).norm()
    out = train(tiny_model, tiny_data, tmp_path / "out", save_strategy="no", **four, **adapter)
    log = [json.loads(line) for line in (out / "trainer_log.jsonl").read_text().splitlines()]
    assert log[-2]["loss"] < log[0]["loss"]


def answers(keys: dict[str, Any]) -> torch.Tensor:
    """Logits [T, V] of a configured model."""
    from tunesmith.engines import make_engine

    with make_engine(tunesmith.load_config({"use_cpu": True, **keys}, verb="chat")) as engine, torch.inference_mode():
        found: torch.Tensor = engine.model(torch.arange(3, 60)[None]).logits[0]
    return found
