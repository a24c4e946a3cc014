"""Samples of replies in their file, and what a metric of replies needs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tunesmith.config.load import load_config
from tunesmith.core.errors import MachineError
from tunesmith.train import generations
from tunesmith.train.generations import check_metric, write_samples
from tunesmith.train.ranks import values_over_ranks
from tunesmith.train.refusals import unknown_metric


def sample(step: int, dataset: str, text: str) -> dict[str, Any]:
    return {"step": step, "dataset": dataset, "prompt": "é", "predict": text, "label": ""}


def test_an_evaluation_that_is_made_again_replaces_its_samples(tmp_path: Path) -> None:
    """A run that went back to step 4 after it was evaluated at 6, on two datasets."""
    path = tmp_path / "generations.jsonl"
    for step in (2, 4, 6):
        for name in ("a", "b"):
            write_samples(path, step, name, [sample(step, name, "first")])
    for name in ("a", "b"):
        write_samples(path, 4, name, [sample(4, name, "again"), sample(4, name, "twice")])
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    texts = [(one["step"], one["dataset"], one["predict"]) for one in found]
    assert texts == [(2, "a", "first"), (2, "b", "first")] + [
        (4, name, text) for name in ("a", "b") for text in ("again", "twice")
    ]
    assert "é" in path.read_text(encoding="utf-8")


def test_values_of_ranks_may_differ_in_number() -> None:
    """A rank of two, whose other one has sent what stands in `other`."""
    other = json.dumps(["ü" * 40, {"a": 1}]).encode("ascii")

    def gather(own: torch.Tensor) -> torch.Tensor:
        size = own.shape[1]
        theirs = [float(len(other))] if size == 1 else [float(byte) for byte in other]
        return torch.cat([own, torch.tensor([theirs], dtype=own.dtype)])

    accelerator = SimpleNamespace(num_processes=2, device=torch.device("cpu"), gather=gather)
    assert values_over_ranks(accelerator, ["x"]) == [["x"], ["ü" * 40, {"a": 1}]]
    alone = SimpleNamespace(num_processes=1)
    assert values_over_ranks(alone, []) == [[]]
    assert np.asarray(values_over_ranks(alone, [1, 2])).tolist() == [[1, 2]]


def test_bleu_to_watch_needs_sacrebleu(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "val_size": 1, "eval_strategy": "epoch"}
    by_bleu, by_rouge = (
        load_config({**keys, "predict_with_generate": True, "metric_for_best_model": name}, verb="train")
        for name in ("eval_bleu-4", "rouge-l")
    )
    check_metric(by_bleu)
    monkeypatch.setattr(generations, "find_spec", lambda name: None)
    check_metric(by_rouge)
    with pytest.raises(MachineError) as caught:
        check_metric(by_bleu)
    assert caught.value.code == "E-TRAIN-019"


def test_a_wrong_metric_is_told_which_there_are() -> None:
    found = unknown_metric("rougel", {"eval_loss": 1.0, "eval_rouge-l": 2.0, "eval_rouge-l_low": 1.0, "eval_tokens": 3})
    assert found is not None
    assert found.problems[0].fix == "metric_for_best_model: loss or rouge-l"
