"""Weights of tokens in a run: the loss is the weighted mean over a whole optimizer step, metrics count tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Seq2SeqTrainingArguments

from tunesmith.config.objective import ObjectiveConfig
from tunesmith.core.types import Encoded
from tunesmith.data.collate import FlatCollator, PaddingCollator
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.pack import pack
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.objectives.sft import SupervisedFineTuning
from tunesmith.train.trainer import Trainer

LENGTHS = (12, 5, 20, 9)


def rows(weights: list[float] | None, times: tuple[int, ...] = (1, 1, 1, 1)) -> TokenDataset:
    """Four sequences, trained behind their first two tokens; row i has weights[i] and is there times[i] times."""
    generator = np.random.default_rng(0)
    encoded = [
        Encoded(
            generator.integers(3, 100, length).tolist(),
            [place > 1 for place in range(length)],
            weights=None if weights is None else [weights[row]] * length,
        )
        for row, length in enumerate(LENGTHS)
    ]
    return TokenDataset.from_encoded(one for one, count in zip(encoded, times, strict=True) for _ in range(count))


@pytest.fixture
def step(tiny_model: Path, tmp_path: Path, torch_one_thread: None) -> Callable[..., dict[str, float]]:
    """`step(dataset, batch)`: one optimizer step over all rows, in micro-batches of `batch`, and an evaluation of the
    weights before it."""

    def run(dataset: Any, batch: int = 8, collate: Any = None) -> dict[str, float]:
        accumulation = -(-len(dataset) // batch)
        arguments = Seq2SeqTrainingArguments(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=batch,
            per_device_eval_batch_size=batch,
            gradient_accumulation_steps=accumulation,
            max_steps=1,
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            report_to="none",
            remove_unused_columns=False,
            disable_tqdm=True,
        )
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        install(model, "chunked", HeadFacts())
        trainer = Trainer(
            model=model,
            args=arguments,
            objective=SupervisedFineTuning(ObjectiveConfig(compute_accuracy=True)),
            collate=collate or PaddingCollator(0),
            train_dataset=dataset,
            eval_dataset=dataset,
        )
        found = trainer.evaluate()
        trainer.train()
        line = next(line for line in trainer.state.log_history if "loss" in line)
        names = ("eval_loss", "eval_accuracy", "eval_tokens")
        return {"loss": line["loss"], "grad_norm": line["grad_norm"], **{name: found[name] for name in names}}

    return run


def assert_same(one: dict[str, float], other: dict[str, float], *names: str) -> None:
    for name in names or one:
        assert one[name] == pytest.approx(other[name], rel=1e-5), name


@pytest.mark.parametrize("weight", [1.0, 0.001])  # of 0.001 all units of the step together are less than one
def test_equal_weights_change_nothing(step: Callable[..., dict[str, float]], weight: float) -> None:
    plain = step(rows(None))
    assert plain["eval_tokens"] == 10 + 3 + 18 + 7
    assert_same(step(rows([weight] * 4)), plain)


def test_a_weight_of_two_is_the_row_twice(step: Callable[..., dict[str, float]]) -> None:
    heavy, twice = step(rows([1, 2, 1, 1])), step(rows(None, times=(1, 2, 1, 1)))
    assert_same(heavy, twice, "loss", "grad_norm", "eval_loss")
    assert (heavy["eval_tokens"], twice["eval_tokens"]) == (38, 41)
    assert heavy["loss"] != pytest.approx(step(rows(None))["loss"], rel=1e-3)


def test_the_weighted_mean_does_not_depend_on_the_split(step: Callable[..., dict[str, float]]) -> None:
    weights = [0.5, 3, 1, 0]
    assert_same(step(rows(weights), batch=1), step(rows(weights)))


def test_packs_carry_their_weights(step: Callable[..., dict[str, float]]) -> None:
    weighted = rows([0.5, 3, 1, 2])
    packs = pack(weighted, 32, seed=0)
    assert len(packs) == 2
    for one_row in (True, False):
        assert_same(step(packs, batch=1, collate=FlatCollator(0, one_row=one_row)), step(weighted))
