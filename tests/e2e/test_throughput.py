"""Speed, FLOPs and waiting in the log and the results of whole runs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run_logs import column, log

Run = Callable[..., Any]
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")


def documented(heading: str) -> set[str]:
    """Keys in the first column of the table under a heading."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## )", PAGE, re.MULTILINE | re.DOTALL)
    assert section
    cells = re.findall(r"^\| (`.*?) \|", section[1], re.MULTILINE)
    return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}


def results(result: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((result.output_dir / "train_results.json").read_text())
    return found


def test_every_key_of_the_files_is_documented_and_no_other(run: Run) -> None:
    result = run(
        max_steps=3,
        peak_tflops=1.5,
        include_effective_tokens_per_second=True,
        compute_accuracy=True,
        val_size=0.2,
        eval_strategy="steps",
        eval_steps=2,
    )
    assert {key for line in log(result) for key in line} == documented("trainer_log.jsonl")
    assert set(results(result)) == documented("train_results.json")


def test_mfu_is_told_where_the_peak_is_known(run: Run) -> None:
    """It is FLOPs over seconds and peak, and FLOPs are those that the state counts."""
    found = results(run(max_steps=4, peak_tflops=1e-4))
    assert found["train_mfu"] == pytest.approx(found["total_flos"] / found["train_seconds"] / 1e8, rel=1e-2)
    assert found["train_tflops_per_device"] == pytest.approx(found["train_mfu"] * 1e-4, rel=2e-2, abs=1e-6)


def test_without_a_peak_there_is_no_mfu(run: Run) -> None:
    result = run(max_steps=2)
    assert column(result, "mfu") == []
    assert "train_mfu" not in results(result)
    assert all(value > 0 for value in column(result, "tflops_per_device"))


def test_the_log_adds_up_to_the_results(run: Run) -> None:
    result = run(max_steps=4)
    found, lines = results(result), log(result)
    seconds = [line["seconds"] for line in lines]
    assert sum(seconds) == pytest.approx(found["train_seconds"], rel=0.2)
    tokens = sum(line["tokens_per_second"] * line["seconds"] for line in lines)
    assert tokens == pytest.approx(found["train_tokens"], rel=1e-2)
    assert found["train_tokens"] == lines[-1]["tokens"]
    trained = sum(line["trained_tokens_per_second"] * line["seconds"] for line in lines)
    assert trained == pytest.approx(found["train_trained_tokens"], rel=1e-2)
    assert 0 < found["train_trained_tokens"] < found["train_tokens"]
    samples = sum(line["samples_per_second"] * line["seconds"] for line in lines)
    assert samples == pytest.approx(16, rel=1e-2)
    assert all(0 < line["overhead_share"] < 1 for line in lines)


def test_evaluation_and_saving_are_not_training(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.train.trainer import Trainer

    for name in ("evaluation_loop", "large_states"):
        original = getattr(Trainer, name)

        def slowly(self: Any, *arguments: Any, _original: Any = original, **others: Any) -> Any:
            time.sleep(1.0)
            return _original(self, *arguments, **others)

        monkeypatch.setattr(Trainer, name, slowly)
    often = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    found = results(run(max_steps=2, val_size=0.2, **often))
    assert found["train_runtime"] > found["train_seconds"] + 3.9  # two evaluations and two checkpoints of a second


def test_waiting_for_data_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.data.collate import FlatCollator

    original = FlatCollator.__call__

    def slowly(self: Any, samples: Any) -> Any:
        time.sleep(0.2)
        return original(self, samples)

    monkeypatch.setattr(FlatCollator, "__call__", slowly)
    found = results(run(max_steps=3, fast_path="require"))
    assert found["train_data_wait_seconds"] >= 0.6
    assert found["train_overhead_share"] >= found["train_data_wait_seconds"] / found["train_seconds"]


def test_a_resumed_run_counts_its_own_session(run: Run) -> None:
    keys = {"save_strategy": "steps", "save_steps": 2, "disable_shuffling": True}
    first = run(max_steps=2, **keys)
    before = results(first)
    second = run(max_steps=3, resume_from_checkpoint=str(first.output_dir / "checkpoint-2"), **keys)
    found = results(second)
    assert found["train_tokens"] == log(second)[-1]["tokens"] - before["train_tokens"]
    assert found["total_flos"] > before["total_flos"]


def test_flat_and_padded_batches_are_the_same_work(run: Run, tmp_path: Path) -> None:
    flat = results(run(max_steps=2, fast_path="require", output_dir=str(tmp_path / "flat")))
    padded = results(run(max_steps=2, train_sampling_strategy="random", flash_attn="disabled"))
    for key in ("train_tokens", "train_trained_tokens", "total_flos"):
        assert flat[key] == padded[key]


@pytest.mark.slow
def test_two_processes_count_together(
    run: Run, launch: Callable[..., Any], tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    keys = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 4, "peak_tflops": 1.0}
    one = run(**keys)
    both = {**keys, "per_device_train_batch_size": 2, "use_cpu": True, "save_strategy": "no", "dataset": "new"}
    both |= {"model_name_or_path": str(tiny_model), "dataset_dir": str(tiny_data), "learning_rate": 1e-3}
    lines = launch(2, {**both, "output_dir": str(tmp_path / "both")})
    found = json.loads((tmp_path / "both" / "train_results.json").read_text())
    for key in ("train_tokens", "train_trained_tokens", "total_flos"):
        assert found[key] == results(one)[key]
    assert [line["tokens"] for line in lines] == column(one, "tokens")
    assert found["train_mfu"] == pytest.approx(found["total_flos"] / 2 / found["train_seconds"] / 1e12, rel=2e-2)
