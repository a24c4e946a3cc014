"""A prediction that was interrupted goes on behind the rows that were answered."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.engines.hf import HFEngine
from tunesmith.evaluate.answers import Answers

KEYS = {
    "max_steps": 1,
    "learning_rate": 0.0,
    "do_train": True,
    "do_predict": True,
    "val_size": 7,
    "max_new_tokens": 5,
    "do_sample": True,
    "temperature": 1.5,
    "top_p": 1.0,
    "save_strategy": "steps",
    "save_steps": 1,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the prompts that the model was asked."""
    found: list[int] = []
    real = HFEngine.submit

    def submit(self: HFEngine, request: Any, sink: Any) -> Any:
        found.append(len(request.prompt))
        return real(self, request, sink)

    monkeypatch.setattr(HFEngine, "submit", submit)
    return found


@pytest.fixture
def interrupted(train: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`interrupted(after, **keys)`: a run that ends after so many answers, before the next is kept."""

    def run(after: int, **keys: Any) -> None:
        real, kept = Answers.add, []

        def add(self: Answers, row: int, answer: Any) -> None:
            if len(kept) == after:
                raise KeyboardInterrupt
            kept.append(row)
            real(self, row, answer)

        with monkeypatch.context() as patch:
            patch.setattr(Answers, "add", add)
            with pytest.raises(KeyboardInterrupt):
                train(**keys)

    return run


def predictions(folder: Path) -> str:
    assert not (folder / ".predictions").exists()
    return (folder / "generated_predictions.jsonl").read_text()


def test_an_interrupted_prediction_goes_on(train, interrupted, asked, tmp_path, caplog):
    whole = train(**KEYS, output_dir=str(tmp_path / "whole"))
    assert len(asked) == 7
    expected = predictions(tmp_path / "whole")
    lines = [json.loads(line) for line in expected.splitlines()]
    assert [list(line) for line in lines] == [["prompt", "predict", "label"]] * 7
    assert len({line["predict"] for line in lines}) > 4  # drawn, and differently for each row
    parts = {**KEYS, "output_dir": str(tmp_path / "parts")}
    interrupted(3, **parts)
    interrupted(1, **parts)
    file = tmp_path / "parts" / ".predictions" / "0.jsonl"
    assert len(file.read_text().splitlines()) == 4
    os.truncate(file, file.stat().st_size - 3)
    asked.clear()
    with caplog.at_level(logging.INFO, "tunesmith"):
        found = train(**parts)
    assert "predicting: 3 of 7 rows were answered before" in caplog.messages
    assert len(asked) == 4
    assert predictions(tmp_path / "parts") == expected
    for name in ("predict_rows", "predict_exact_match"):
        assert found.metrics[name] == whole.metrics[name]


def test_a_run_that_only_predicts_goes_on(train, interrupted, asked, run_keys, tmp_path):
    only = {"do_train": False, "dataset": None, "eval_dataset": run_keys["dataset"], "max_samples": 5}
    keys = {"do_predict": True, "max_new_tokens": 5, **only}
    whole = train(**keys, output_dir=str(tmp_path / "whole"))
    parts = {**keys, "output_dir": str(tmp_path / "parts")}
    interrupted(2, **parts)
    asked.clear()
    found = train(**parts)
    assert len(asked) == 3
    assert predictions(tmp_path / "parts") == predictions(tmp_path / "whole")
    assert found.metrics["predict_exact_match"] == whole.metrics["predict_exact_match"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"temperature": 1.4}, "sampling"),
        ({"learning_rate": 0.1}, "weights"),
        ({"cutoff_len": 112}, "rows"),
    ],
)
def test_other_answers_are_not_taken(change, told, train, interrupted, asked, tmp_path, caplog):
    interrupted(2, **KEYS, output_dir=str(tmp_path / "out"))
    asked.clear()
    with caplog.at_level(logging.INFO, "tunesmith"):
        train(**{**KEYS, **change}, output_dir=str(tmp_path / "out"), overwrite_output_dir=True)
    assert len(asked) == 7
    (line,) = [line for line in caplog.messages if "to other questions" in line]
    assert line.endswith(f"all are asked: {told}")


@pytest.mark.slow
def test_two_ranks_go_on_where_one_was(train, interrupted, launch, run_keys, tmp_path):
    train(**KEYS, output_dir=str(tmp_path / "whole"))
    ranks = {**run_keys, **KEYS, "output_dir": str(tmp_path / "ranks")}
    interrupted(3, **ranks)
    launch(2, {**ranks, "per_device_train_batch_size": 2})  # the rows of a step stay as many
    assert predictions(tmp_path / "ranks") == predictions(tmp_path / "whole")
    results = [json.loads((tmp_path / name / "predict_results.json").read_text()) for name in ("whole", "ranks")]
    assert results[0]["predict_exact_match"] == results[1]["predict_exact_match"]
    assert results[0]["predict_rows"] == results[1]["predict_rows"] == 7
