"""Runs as files, without training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.process import ProcessId
from tunesmith.runs import manifest, registry


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """`make_run(id, losses=[...], status=..., ...)` -> the folder of a run of this process that has logged `losses`."""

    def make(run_id: str, losses: tuple[float, ...] = (2.0, 1.0), **fields: Any) -> Path:
        folder = tmp_path / fields.get("name", f"out-{run_id}")
        folder.mkdir()
        found = {
            "format": 1,
            "id": run_id,
            "name": folder.name,
            "tags": [],
            "kind": "train",
            "status": "finished",
            "exit_code": 0,
            "error": None,
            "created": f"2026-11-27T10:00:{len(list(registry.known())):02d}Z",
            "process": ProcessId.of().to_dict(),
            "config": {},
            "steps": {"done": len(losses), "total": len(losses)},
            "metrics": {},
            "events": [],
            **fields,
        }
        manifest.write(folder, found)
        lines = [{"current_steps": n, "total_steps": len(losses), "loss": loss} for n, loss in enumerate(losses, 1)]
        (folder / "trainer_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        registry.register(run_id, folder)
        return folder

    return make
