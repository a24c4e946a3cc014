"""Ten steps of a run are ten steps of TRL's trainers: DPO, KTO and a reward model, on the same rows in the same order,
with adapters that begin alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pairs import write_feedback, write_stories

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch_one_thread"), pytest.mark.filterwarnings("ignore")]

STEPS, ROWS, RATE = 10, 4, 1e-3
TARGETS = ["q_proj", "v_proj"]


def config_keys(stories: Path, data: Path, stage: str, folder: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(stories),
        "stage": stage,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "lora_alpha": 8,
        "lora_target": TARGETS,
        "dataset": str(data),
        "template": "default",
        "output_dir": str(folder / "ours"),
        "per_device_train_batch_size": ROWS,
        "max_steps": STEPS,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "disable_shuffling": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }


def ours(keys: dict[str, Any]) -> list[dict[str, float]]:
    import tunesmith

    result = tunesmith.train(keys)
    lines = (result.output_dir / "trainer_log.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if "loss" in one]


def rows_of(keys: dict[str, Any], seen: int = STEPS * ROWS) -> list[dict[str, Any]]:
    """The samples of a run, in its order."""
    from tunesmith import load_config
    from tunesmith.data import build_datasets
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    config = load_config(keys)
    renderer = make_renderer(config.template, load_tokenizer(config.model))
    train = build_datasets(config.data, renderer, stage=config.objective.stage, seed=42).train
    assert train is not None
    assert len(train) >= seen
    return [train[number] for number in range(len(train))]  # type: ignore[index]


def parts(ids: Any, trained: Any) -> tuple[list[int], list[int]]:
    """(prompt, answer); what the template writes behind an answer is seen by nobody, and left out."""
    first, size = int(trained.argmax()), int(trained.sum())
    assert trained[first : first + size].all()
    return ids[:first].tolist(), ids[first : first + size].tolist()


def of_pair(row: dict[str, Any]) -> dict[str, Any]:
    size = int(row["lengths"][0])
    prompt, chosen = parts(row["input_ids"][:size], row["trained"][:size])
    other, rejected = parts(row["input_ids"][size:], row["trained"][size:])
    assert prompt == other
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def of_feedback(row: dict[str, Any]) -> dict[str, Any]:
    from tunesmith.data.dataset import LIKED

    prompt, answer = parts(row["input_ids"], row["trained"])
    _, other = parts(row["mismatched_input_ids"], row["mismatched_trained"])
    label = bool(row["kinds"][0] == LIKED)
    return {"prompt_ids": prompt, "completion_ids": answer, "KL_completion_ids": other, "label": label}


def of_rewards(row: dict[str, Any]) -> dict[str, Any]:
    size = int(row["lengths"][0])
    return {"chosen_ids": row["input_ids"][:size].tolist(), "rejected_ids": row["input_ids"][size:].tolist()}


def theirs(
    kind: str, settings: str, model: Any, stories: Path, rows: list[dict[str, Any]], folder: Path
) -> list[float]:
    """The losses of TRL's trainer over rows that are tokens already."""
    import trl
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer

    class Prepared(getattr(trl, kind)):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_arguments: Any, **_keywords: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_arguments: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    tokenizer = AutoTokenizer.from_pretrained(stories)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    arguments = getattr(trl, settings)(
        output_dir=str(folder / "theirs"),
        per_device_train_batch_size=ROWS,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        optim="adamw_torch",
        **({"train_sampling_strategy": "sequential"} if kind == "KTOTrainer" else {}),
        **({"disable_dropout": True} if kind != "RewardTrainer" else {}),
    )
    trainer = Prepared(model=model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)
    trainer.train()
    return [one["loss"] for one in trainer.state.log_history if "loss" in one]


def with_adapter(stories: Path, folder: Path) -> Path:
    """A new adapter, saved before it has learnt anything."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    made = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, task_type="CAUSAL_LM"))
    made.save_pretrained(folder / "adapter")
    return folder / "adapter"


CASES: dict[str, tuple[str, str, Callable[..., Path], Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "dpo": ("DPOTrainer", "DPOConfig", write_stories, of_pair),
    "kto": ("KTOTrainer", "KTOConfig", write_feedback, of_feedback),
}


@pytest.mark.parametrize("stage", CASES)
def test_a_run_follows_trl(stage: str, stories: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    trainer, settings, write, prepare = CASES[stage]
    adapter = with_adapter(stories, tmp_path)
    keys = {**config_keys(stories, write(tmp_path), stage, tmp_path), "adapter_name_or_path": str(adapter)}
    rows = [prepare(row) for row in rows_of(keys)]
    base = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    wanted = theirs(
        trainer, settings, PeftModel.from_pretrained(base, adapter, is_trainable=True), stories, rows, tmp_path
    )
    found = [one["loss"] for one in ours(keys)]
    assert len(wanted) == STEPS
    assert wanted[-1] < wanted[0] - 0.05, "it learns"
    assert found == pytest.approx(wanted, abs=1e-4)


def test_a_reward_model_follows_trl(stories: Path, tmp_path: Path) -> None:
    """All weights, from a head that TRL's model begins with."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(stories, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(stories)
    model.config.pad_token_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    model.save_pretrained(tmp_path / "start")
    tokenizer.save_pretrained(tmp_path / "start")
    keys = config_keys(tmp_path / "start", write_stories(tmp_path), "rm", tmp_path)
    keys |= {"finetuning_type": "full", "learning_rate": RATE}
    for name in ("lora_rank", "lora_alpha", "lora_target"):
        del keys[name]
    rows = [of_rewards(row) for row in rows_of(keys)]
    wanted = theirs("RewardTrainer", "RewardConfig", model, stories, rows, tmp_path)
    found = [one["loss"] for one in ours(keys)]
    assert len(wanted) == STEPS
    assert wanted[-1] < wanted[0] - 0.05, "it learns"
    assert found == pytest.approx(wanted, abs=1e-4)
