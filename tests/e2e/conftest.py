"""Whole runs in this process, on tiny models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def run_keys(stories: Path, assets: Path, tmp_path: Path) -> dict[str, Any]:
    """A short run of stories260K on real instructions, in float32 on the CPU: 24 rows of at most 128 tokens."""
    return {
        "model_name_or_path": str(stories),
        "stage": "sft",
        "finetuning_type": "full",
        "dataset": str(assets / "data" / "sft" / "alpaca_en_demo.json"),
        "template": "default",
        "max_samples": 22,
        "cutoff_len": 128,
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "seed": 7,
        "use_cpu": True,
    }


@pytest.fixture
def train(run_keys: dict[str, Any], torch_one_thread: None) -> Callable[..., Any]:
    """`train(key=value, ...)` on top of `run_keys` -> Result."""
    import tunesmith

    return lambda **changes: tunesmith.train({**run_keys, **changes})


@pytest.fixture
def run(tiny_model: Path, tiny_data: Path, tmp_path: Path, torch_one_thread: None) -> Callable[..., Any]:
    """`run(key=value, ...)`: a short LoRA run of the tiny model, 16 rows, 4 steps an epoch -> Result."""
    import tunesmith

    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


@pytest.fixture
def trainers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The Trainer of every run that trains."""
    from tunesmith.train.trainer import Trainer

    found = []
    original = Trainer.train

    def train(self: Any, *arguments: Any, **others: Any) -> Any:
        found.append(self)
        return original(self, *arguments, **others)

    monkeypatch.setattr(Trainer, "train", train)
    return found


@pytest.fixture
def launch(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """`launch(ranks, keys)`: the same in `ranks` processes; returns the log's lines, none without training."""
    import json
    import os
    import subprocess
    import sys

    import yaml

    def run(ranks: int, keys: dict[str, Any]) -> list[dict[str, Any]]:
        config = tmp_path / f"ranks{ranks}.yaml"
        config.write_text(yaml.safe_dump(keys))
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={ranks}", "--master_port=0"]
        command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "tunesmith", "train", str(config)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        written = Path(keys["output_dir"]) / "trainer_log.jsonl"
        return [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []

    return run


@pytest.fixture
def story_run(stories: Path, tmp_path: Path, torch_one_thread: None) -> Callable[..., Any]:
    """`story_run(key=value, ...)`: a short run of stories260K, LoRA, on preferences among stories -> Result."""
    import tunesmith

    keys = {
        "model_name_or_path": str(stories),
        "finetuning_type": "lora",
        "lora_rank": 4,
        "template": "default",
        "output_dir": str(tmp_path / "out"),
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


@pytest.fixture
def other(stories: Path, tmp_path: Path) -> Path:
    """The folder of a model whose weights differ a little from those of stories260K."""
    import shutil

    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "other"
    shutil.copytree(stories, folder)
    weights = load_file(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(3)
    for one in weights.values():
        one.add_(0.02 * torch.randn(one.shape, generator=generator).to(one.dtype))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2-VL with random weights, and a chat template with places for images."""
    from tests.media_cases import Shelf, media_of_case
    from tests.media_checks import chat_template
    from tests.media_families import CASES
    from tests.tiny_seeing import save_case

    folder = save_case("qwen2_vl", tmp_path_factory.mktemp("seeing_model") / "qwen2_vl")
    template = chat_template(media_of_case(CASES["qwen2_vl"], Shelf()))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder
