"""Benchmarks."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import section, works


@section
class EvaluateConfig:
    """Which benchmark, and how it is asked."""

    task: str | None = works(None)
    """Benchmark and split, like mmlu_test; or lm_eval: and names of tasks of lm-evaluation-harness."""
    task_dir: str = works("evaluation")
    """Folder of the benchmarks; where the default is not there, the hub has them."""
    batch_size: int = works(4, least=1)
    """Questions at a time in `eval`. For training see `per_device_train_batch_size`."""
    lang: Literal["en", "zh"] = works("en")
    """Language of the words around the questions."""
    n_shot: int = works(5, least=0)
    """Solved examples in front of each question."""
    save_dir: str | None = works(None)
    """New folder for results."""
    download_mode: Literal["reuse_dataset_if_exists", "reuse_cache_if_exists", "force_redownload"] = works(
        "reuse_dataset_if_exists"
    )
    """Whether what the hub's cache holds of a benchmark is downloaded again."""
