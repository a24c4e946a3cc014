"""Benchmarks of questions with four options: where their files are, and which subject belongs to which category.

They are data, `catalog/benchmarks/*.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.suggest import did_you_mean

__all__ = ["CATEGORIES", "Benchmark", "Subject", "all_benchmarks", "find_task"]

CATEGORIES = ("STEM", "Social Sciences", "Humanities", "Other")


@dataclass(frozen=True, slots=True)
class Subject:
    """`key` is in the names of files, `name` in the questions' first line."""

    key: str
    name: str
    category: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`hub`: the repository of its data. `examples`: the split that solved examples are taken from. `splits`: by name,
    with the words that stand for it in names of files."""

    name: str
    hub: str
    examples: str
    splits: Mapping[str, tuple[str, ...]]
    subjects: tuple[Subject, ...]


@cache
def all_benchmarks() -> dict[str, Benchmark]:
    """By name."""
    found = {}
    for file in sorted(files("tunesmith.catalog").joinpath("benchmarks").iterdir(), key=lambda one: one.name):
        name, data = file.name.removesuffix(".yaml"), yaml.safe_load(file.read_text("utf-8"))
        subjects = [
            Subject(key, called, category) for category, own in data["subjects"].items() for key, called in own.items()
        ]
        splits = {split: tuple(words) for split, words in data["splits"].items()}
        found[name] = Benchmark(name, data["hub"], data["examples"], splits, tuple(subjects))
    return found


def find_task(task: str) -> tuple[Benchmark, str]:
    """The benchmark and the split that a task like `mmlu_test` names. Raises UsageError for one that is not known."""
    name, _, split = task.partition("_")
    benchmark = all_benchmarks().get(name)
    if benchmark is not None and split in benchmark.splits:
        return benchmark, split
    known = [f"{one.name}_{split}" for one in all_benchmarks().values() for split in one.splits]
    fix = (
        did_you_mean(task, known) or "one of: " + ", ".join(known) + "; a task of lm-evaluation-harness is lm_eval:NAME"
    )
    raise UsageError(Problem("E-EVAL-001", "there is no such task", "task", got=task, fix=fix))
