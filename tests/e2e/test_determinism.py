"""The same config gives the same bits: in another process and folder, and with any number of workers."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

KEYS: dict[str, Any] = {
    "finetuning_type": "lora",
    "lora_rank": 4,
    "lora_dropout": 0.1,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 2,
    "val_size": 4,
    "eval_strategy": "epoch",
}
SAVED = ("adapter_model.safetensors", "generated_predictions.jsonl")


@pytest.fixture
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Switches of torch and variables as they were."""
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", "")
    before = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


def bits(folder: Path) -> dict[str, Any]:
    """What a run computed: its weights, answers and log, without times and speeds."""
    found: dict[str, Any] = {}
    for name in SAVED:
        if (folder / name).exists():
            found[name] = hashlib.blake2b((folder / name).read_bytes()).hexdigest()
    lines = map(json.loads, (folder / "trainer_log.jsonl").read_text().splitlines())
    found["log"] = [{key: line.get(key) for key in ("loss", "grad_norm", "eval_loss")} for line in lines]
    assert len(found) > 1
    assert any(line["loss"] for line in found["log"])
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more than there are cores, on purpose
@pytest.mark.parametrize("packing", [False, True])
def test_the_number_of_workers_changes_no_bit(packing, train, tmp_path):
    """Those that load, and those that prepare; dropout is drawn in the main process."""
    found = []
    for workers in (0, 1, 4):
        keys = {**KEYS, "packing": packing, "overwrite_cache": True, "preprocessing_batch_size": 5}
        keys |= {"dataloader_num_workers": workers, "preprocessing_num_workers": workers}
        found.append(bits(train(**keys, output_dir=str(tmp_path / str(workers))).output_dir))
    assert found[0] == found[1] == found[2]
    other = bits(train(**keys, seed=8, output_dir=str(tmp_path / "other")).output_dir)
    assert other["log"] != found[0]["log"]


def test_full_determinism_is_on_before_anything_is_computed(train, as_before, monkeypatch):
    from tunesmith.models import fast_path

    seen = []
    real = fast_path.prove

    def prove(*arguments: Any, **others: Any) -> Any:
        seen.append((torch.are_deterministic_algorithms_enabled(), os.environ["CUBLAS_WORKSPACE_CONFIG"]))
        return real(*arguments, **others)

    monkeypatch.setattr(fast_path, "prove", prove)
    train(**{**KEYS, "max_steps": 1}, full_determinism=True)
    assert seen == [(True, ":16:8")]


@pytest.mark.slow
def test_full_determinism_gives_the_same_bits_in_another_process(run_keys, tmp_path):
    """Another seed for hashes, another folder and home, other workers, and an empty cache."""
    found = []
    root = Path(__file__).resolve().parents[2]
    for number, workers in enumerate((0, 2)):
        place = tmp_path / f"place{number}"
        place.mkdir()
        keys = {**run_keys, **KEYS, "full_determinism": True, "do_train": True, "do_predict": True, "max_new_tokens": 4}
        keys |= {"output_dir": "out", "dataloader_num_workers": workers, "preprocessing_num_workers": workers}
        (place / "run.yaml").write_text(yaml.safe_dump(keys))
        env = {**os.environ, "PYTHONHASHSEED": str(number + 1), "HOME": str(place), "OMP_NUM_THREADS": "1"}
        env |= {"PYTHONPATH": f"{root / 'src'}", "TUNESMITH_CACHE": str(place / "cache"), "TUNESMITH_DATA_CACHE": ""}
        command = [sys.executable, "-m", "tunesmith", "train", "run.yaml"]
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(bits(place / "out"))
    assert SAVED[1] in found[0]
    assert found[0] == found[1]
