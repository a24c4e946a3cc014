"""Benchmarks."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import later, section

_WHAT = "benchmarks"


@section
class EvaluateConfig:
    """Which benchmark, and how it is asked."""

    task: str | None = later(None, _WHAT)
    """Benchmark and split, like mmlu_test."""
    task_dir: str = later("evaluation", _WHAT)
    """Folder of the benchmarks."""
    batch_size: int = later(4, _WHAT)
    """Questions at a time. For training see `per_device_train_batch_size`."""
    lang: Literal["en", "zh"] = later("en", _WHAT)
    """Language of the questions."""
    n_shot: int = later(5, _WHAT)
    """Solved examples in front of each question."""
    save_dir: str | None = later(None, _WHAT)
    """Folder for results."""
    download_mode: str = later("reuse_dataset_if_exists", _WHAT)
    """Whether benchmarks are downloaded again."""
