"""Other losses of tokens in whole runs: the loss is the one that was asked for, and the model learns by it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.token_losses import CASES

Run = Callable[..., Any]


def log(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.output_dir / "trainer_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fast_path", ["require", "off"])
def test_the_loss_of_a_run_is_the_one_that_was_asked_for(
    train: Run, stories: Path, run_keys: dict[str, Any], case: str, fast_path: str
) -> None:
    """Step 1 and the evaluation against the formulas on transformers' logits, one row at a time, divided once by all
    trained tokens."""
    from transformers import AutoModelForCausalLM

    from tunesmith import load_config
    from tunesmith.data import build_datasets
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    keys = {"val_size": 7, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 1, "learning_rate": 0.0}
    asked = {**keys, **CASES[case].keys, "compute_accuracy": True, "fast_path": fast_path}
    result = train(**asked, per_device_train_batch_size=5, gradient_accumulation_steps=3)
    config = load_config({**run_keys, **keys})
    renderer = make_renderer(config.template, load_tokenizer(config.model))
    datasets = build_datasets(config.data, renderer, stage="sft", seed=7)
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)

    def told(dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits and targets of all trained tokens."""
        found = []
        for number in range(len(dataset)):
            ids = torch.tensor(dataset[number]["input_ids"])[None].long()
            trained = torch.tensor(dataset[number]["trained"])[1:]
            with torch.no_grad():
                found.append((model(ids).logits[0, :-1][trained], ids[0, 1:][trained]))
        return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])

    (validation,) = datasets.eval.values()
    assert result.metrics["train_loss"] == pytest.approx(
        float(CASES[case].each(*told(datasets.train)).mean()), rel=1e-5
    )
    logits, targets = told(validation)
    assert result.metrics["eval_loss"] == pytest.approx(float(CASES[case].each(logits, targets).mean()), rel=1e-5)
    assert result.metrics["eval_accuracy"] == pytest.approx(float((logits.argmax(-1) == targets).float().mean()))
    assert ("eval_nll_loss" in result.metrics) == (case != "plain")
    if case != "plain":
        nll = float(CASES["plain"].each(logits, targets).mean())
        assert result.metrics["eval_nll_loss"] == pytest.approx(nll, rel=1e-5)


@pytest.mark.parametrize(("keys", "watched"), [({"use_dft_loss": True}, "nll_loss"), ({}, "loss")])
def test_the_best_model_is_told_by_the_plain_loss(
    run: Run, trainers: list[Any], keys: dict[str, Any], watched: str
) -> None:
    """A loss that is near zero where the model is surely wrong tells nothing of which model is best."""
    result = run(
        **keys,
        val_size=4,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        num_train_epochs=2,
        learning_rate=1e-4,
    )
    (trainer,) = trainers
    assert (trainer.args.metric_for_best_model, trainer.args.greater_is_better) == (watched, False)
    best = min(line[f"eval_{watched}"] for line in log(result) if "eval_loss" in line)
    assert trainer.state.best_metric == best


@pytest.fixture
def forgetful(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model with noise in its weights: it still writes most of what it knew. Of what a model holds for
    impossible, DFT teaches nothing, by its design."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight += torch.randn(weight.shape, generator=generator) * weight.std() * 0.6
    model.save_pretrained(tmp_path / "forgetful")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "forgetful")
    return tmp_path / "forgetful"


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_model_learns_by_every_loss(run: Run, forgetful: Path, case: str) -> None:
    """The loss of the rows falls, the plain one too, and more of their tokens are the model's choice."""
    result = run(
        **CASES[case].keys,
        model_name_or_path=str(forgetful),
        dataset="known",
        max_samples=32,
        eval_dataset="known",
        eval_strategy="epoch",
        eval_on_start=True,
        compute_accuracy=True,
        finetuning_type="full",
        per_device_train_batch_size=8,
        num_train_epochs=8,
    )
    before, *_, after = [line for line in log(result) if "eval_loss" in line]
    plain = "eval_loss" if case == "plain" else "eval_nll_loss"
    assert after["eval_loss"] < 0.8 * before["eval_loss"]  # smoothed, it stays well above zero
    assert after[plain] < 0.4 * before[plain]
    assert before["eval_accuracy"] < 0.9
    assert after["eval_accuracy"] > before["eval_accuracy"] + 0.08
