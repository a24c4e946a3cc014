"""Reading what a run has logged."""

from __future__ import annotations

import json
from typing import Any


def log(result: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (result.output_dir / "trainer_log.jsonl").read_text().splitlines()]


def column(result: Any, name: str) -> list[Any]:
    return [line[name] for line in log(result) if name in line]


def events(result: Any, name: str) -> list[int]:
    """Steps at which the log has a value of that name."""
    return [line["current_steps"] for line in log(result) if name in line]


def curve(result: Any) -> list[tuple[float, float]]:
    """(loss, gradient norm) of every step."""
    return [(line["loss"], line["grad_norm"]) for line in log(result) if "loss" in line]


def same_weights(one: Any, other: Any) -> bool:
    """Are the saved weights of two runs the same bits?"""
    import torch
    from safetensors.torch import load_file

    (name,) = {file.name for run in (one, other) for file in run.output_dir.glob("*model.safetensors")}
    first, second = (load_file(run.output_dir / name) for run in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
