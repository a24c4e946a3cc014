"""`tunesmith predict`: any dataset, with figures, over a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.errors import ConfigError, MachineError

pytestmark = pytest.mark.usefixtures("torch_one_thread")


@pytest.fixture
def keys(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(tiny_model),
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "do_sample": False,
        "max_new_tokens": 20,
    }


def lines_of(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "generated_predictions.jsonl").read_text().splitlines()]


def test_predictions_are_those_of_do_predict_with_figures(keys: dict[str, Any], tmp_path: Path) -> None:
    found = tunesmith.predict({**keys, "dataset": "known", "max_samples": 6})
    lines = lines_of(tmp_path / "out")
    only = {"do_train": False, "do_predict": True, "eval_dataset": "known", "max_samples": 6}
    trained = tunesmith.train({**keys, **only, "output_dir": str(tmp_path / "run")})
    assert lines == lines_of(tmp_path / "run")
    assert found["predict_rows"] == len(lines) == 6
    assert found["predict_exact_match"] == sum(line["predict"] == line["label"] for line in lines) / 6 >= 4 / 6
    assert found["predict_bleu-4"] > 50
    timed = {"predict_tokens_per_second", "predict_runtime"}
    assert found.keys() == trained.metrics.keys()
    assert {name: value for name, value in found.items() if name not in timed} == {
        name: value for name, value in trained.metrics.items() if name not in timed
    }
    written = json.loads((tmp_path / "out" / "predict_results.json").read_text())
    assert written == found
    assert written["predict_bleu_signature"].startswith("nrefs:1|")


def test_what_a_training_masks_has_no_effect(keys: dict[str, Any], tmp_path: Path) -> None:
    tunesmith.predict({**keys, "eval_dataset": "known", "max_samples": 2})
    masks = {
        "train_on_prompt": True,
        "packing": True,
        "val_size": 0.5,
        "dataset": "new",
        "output_dir": str(tmp_path / "b"),
    }
    tunesmith.predict({**keys, "eval_dataset": "known", "max_samples": 2, **masks})
    assert lines_of(tmp_path / "out") == lines_of(tmp_path / "b")


def test_what_is_missing_is_told(keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match='"dataset" is missing'):
        tunesmith.predict(keys)
    with pytest.raises(ConfigError, match="stage pt has none"):
        tunesmith.predict({**keys, "dataset": "known", "stage": "pt"})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MachineError, match="E-EVAL-010"):
        tunesmith.predict({**keys, "dataset": "known"})


@pytest.mark.slow
def test_a_killed_prediction_goes_on_without_repeating_rows(keys: dict[str, Any], tmp_path: Path) -> None:
    more = {"dataset": "known", "max_batch_requests": 1, "do_sample": True, "temperature": 1.5, "max_new_tokens": 40}
    whole = tunesmith.predict({**keys, **more, "output_dir": str(tmp_path / "whole")})
    words = [
        f"{name}={json.dumps(value) if isinstance(value, bool) else value}" for name, value in (keys | more).items()
    ]
    command = [sys.executable, "-m", "tunesmith", "predict", *words]
    kept = tmp_path / "out" / ".predictions" / "0.jsonl"
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 100
    while not (kept.exists() and kept.read_bytes().count(b"\n") >= 3):
        assert time.monotonic() < until
        assert first.poll() is None, "it ended before it was killed"
        time.sleep(0.002)
    os.kill(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    answered = kept.read_bytes().count(b"\n")
    rows = int(whole["predict_rows"])
    assert 3 <= answered < rows
    second = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert second.returncode == 0, second.stderr
    assert f"predicting: {answered} of {rows} rows were answered before" in second.stderr
    assert lines_of(tmp_path / "out") == lines_of(tmp_path / "whole")
    assert not kept.parent.exists()
    written = json.loads((tmp_path / "out" / "predict_results.json").read_text())
    for name, value in whole.items():
        if name not in ("predict_tokens_per_second", "predict_runtime"):
            assert written[name] == value
