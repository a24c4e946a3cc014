"""The README's first command, as a user runs it: the model learns its new name, and its base did not know it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# make test-slow gives a file to one worker, so that the demo runs once.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def summary(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """demo.json of one whole run. `smollm2` has fetched the model, which the demo then finds in the cache."""
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "tunesmith", "demo", "--output", str(folder / "out")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((folder / "out" / "demo.json").read_text(encoding="utf-8"))
    return {**found, "printed": done.stdout}


def test_taught_facts_are_answered_by_the_tuned_model_only(summary: dict[str, Any]) -> None:
    assert len(summary["questions"]) == 3
    for question in summary["questions"]:
        assert question["knows_after"], question
        assert not question["knew_before"], question


def test_held_out_loss_falls(summary: dict[str, Any]) -> None:
    """By 30 % at least; 97 % was measured (4.24 to 0.15 nats per token)."""
    loss = summary["held_out_loss"]
    assert loss["after"] < 0.7 * loss["before"]


def test_demo_shows_speed_memory_and_how_to_go_on(summary: dict[str, Any]) -> None:
    assert summary["tokens_per_second"] > 0
    assert summary["peak_memory_gib"] > 0
    assert all(Path(path).exists() for path in summary["saved"])
    for words in ("held-out loss", "tokens/s", "peak memory", "tunesmith chat", "tunesmith export"):
        assert words in summary["printed"]
