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
