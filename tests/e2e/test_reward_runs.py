"""Whole runs of stage rm: what they learn, what other tools read of them, how they go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.pairs import steps_of, write_stories
from tests.pairs import stories as rows_of
from tunesmith.core.errors import TunesmithError

Run = Callable[..., Any]


@pytest.fixture
def reward(story_run: Run, tmp_path: Path) -> Run:
    """`reward(key=value, ...)`: a short rm run of stories260K, LoRA, pairs of stories -> Result."""
    keys = {
        "stage": "rm",
        "dataset": str(write_stories(tmp_path)),
        "per_device_train_batch_size": 2,
        "max_steps": 3,
        "learning_rate": 3e-3,
    }
    return lambda **changes: story_run(**{**keys, **changes})


def classifier(folder: Path, base: Path | None = None) -> Any:
    """What a run saved, as plain transformers (and PEFT) load it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(base or folder, num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    if base is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, folder)
    return model.eval(), tokenizer


def rewards_of(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> Tensor:
    """[P, 2] of a padded batch, by the chat template that was saved."""
    texts = [
        tokenizer.apply_chat_template(
            [
                {"role": "user", "content": row["conversations"][0]["value"]},
                {"role": "assistant", "content": row[answer]["value"]},
            ],
            tokenize=False,
        )
        for row in rows
        for answer in ("chosen", "rejected")
    ]
    inputs = tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt")
    with torch.no_grad():
        found: Tensor = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    return found.view(-1, 2)


@pytest.mark.parametrize("method", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_plain_transformers_reads_the_rewards(reward: Run, method: str, stories: Path, tmp_path: Path) -> None:
    """Evaluated on a file of its own, the mean rewards are those of plain transformers on the texts."""
    judged = write_stories(tmp_path / "judged", count=6, seed=5)
    keys = {"eval_dataset": str(judged), "eval_strategy": "steps", "eval_steps": 3}
    metrics = reward(finetuning_type=method, **keys).metrics
    model, tokenizer = classifier(tmp_path / "out", stories if method == "lora" else None)
    chosen, rejected = rewards_of(model, tokenizer, rows_of(6, seed=5)).unbind(1)
    assert metrics["eval_rewards/chosen"] == pytest.approx(float(chosen.mean()), abs=1e-5)
    assert metrics["eval_rewards/rejected"] == pytest.approx(float(rejected.mean()), abs=1e-5)
    assert metrics["eval_pairs"] == 6


def test_a_row_may_have_a_margin(reward: Run, tmp_path: Path) -> None:
    """Of steps of one pair the log tells both: the loss, and by how much the chosen reward is higher."""
    file = tmp_path / "margins.jsonl"
    file.write_text("".join(json.dumps({**row, "margin": 1.5}) + "\n" for row in rows_of(6)), encoding="utf-8")
    steps = steps_of(reward(dataset=str(file), per_device_train_batch_size=1))
    for step in steps:
        expected = -torch.nn.functional.logsigmoid(torch.tensor(step["margin"] - 1.5))
        assert step["loss"] == pytest.approx(float(expected), rel=1e-5)
    assert steps[0]["loss"] > 1, "far from ln 2"


@pytest.mark.slow
def test_a_run_learns_what_is_preferred(reward: Run, stories: Path, tmp_path: Path) -> None:
    """Also of pairs with other words than it was trained on."""
    judged = write_stories(tmp_path / "judged", count=40, seed=9)
    keys = {"eval_dataset": str(judged), "eval_strategy": "steps", "eval_steps": 12, "max_steps": 12}
    result = reward(per_device_train_batch_size=4, **keys)
    assert result.metrics["eval_accuracy"] >= 0.95
    assert steps_of(result)[-1]["margin"] > steps_of(result)[0]["margin"] + 0.5


@pytest.mark.slow
def test_every_way_to_read_pairs_has_the_same_losses(reward: Run, tmp_path: Path) -> None:
    shared = reward()
    for number, keys in enumerate(({"prefix_sharing": "off"}, {"fast_path": "off"})):
        other = reward(output_dir=str(tmp_path / str(number)), **keys)
        for one, two in zip(steps_of(shared), steps_of(other), strict=True):
            assert one["loss"] == pytest.approx(two["loss"], abs=1e-5)
        assert shared.metrics["train_tokens"] < 0.8 * other.metrics["train_tokens"]
    proof = json.loads((shared.output_dir / "self_proof.json").read_text())
    assert proof["holds"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "keys",
    [
        {"finetuning_type": "freeze"},
        {"finetuning_type": "oft", "oft_block_size": 8},
        {"bf16": True},
        {"bf16": True, "quantization_bit": 4},
    ],
    ids=["freeze", "oft", "bf16", "qlora"],
)
def test_every_method_learns(reward: Run, keys: dict[str, Any]) -> None:
    result = reward(max_steps=6, learning_rate=1e-2, **keys)
    assert steps_of(result)[-1]["loss"] < steps_of(result)[0]["loss"] - 0.1


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_bits(reward: Run, tmp_path: Path) -> None:
    keys = {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lora_dropout": 0.1}
    whole = reward(output_dir=str(tmp_path / "whole"), **keys)
    reward(output_dir=str(tmp_path / "parts"), **keys)
    for name in ("adapter_model.safetensors", "checkpoint-6"):
        path = tmp_path / "parts" / name
        path.unlink() if path.is_file() else shutil.rmtree(path)
    parts = reward(output_dir=str(tmp_path / "parts"), resume_from_checkpoint=True, **keys)
    from safetensors.torch import load_file

    one, two = (load_file(result.output_dir / "adapter_model.safetensors") for result in (whole, parts))
    assert any("score" in name for name in one)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_what_cannot_become_a_reward_model_is_refused(reward: Run, stories: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    from tunesmith.config.model import ModelConfig
    from tunesmith.models.reward import check_kind, check_rewards

    config = ModelConfig(model_name_or_path="here")
    with pytest.raises(TunesmithError) as caught:
        check_rewards(config, AutoConfig.for_model("mamba2"))
    assert caught.value.code == "E-MODEL-036"
    settings = AutoConfig.from_pretrained(stories)
    check_rewards(config, settings)
    check_kind(config, settings, "tokens")
    for head, architecture in (("saved reward", "LlamaForCausalLM"), ("tokens", "LlamaForSequenceClassification")):
        settings.architectures = [architecture]
        with pytest.raises(TunesmithError) as caught:
            check_kind(config, settings, head)  # type: ignore[arg-type]
        assert caught.value.code == "E-MODEL-035"
    for keys in ({"finetuning_type": "peft", "peft_type": "ia3"}, {"do_predict": True, "eval_dataset": "x"}):
        with pytest.raises(TunesmithError) as caught:
            reward(**keys)
        assert caught.value.code == "E-CONFIG-021"
