"""Uploads to the hub: what is there in the end, and that a hub which is down or slow changes nothing of the run."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in_hub import StandInHub
from tunesmith.core.errors import PreemptedError, UnavailableError
from tunesmith.train import uploads

TOKEN = "hf_" + "a1" * 17
SAVES: dict[str, Any] = {"push_to_hub": True, "save_strategy": "steps", "save_steps": 2, "hub_token": TOKEN}
RECORDS = {"run.json", "run.yaml", "plan.json", "trainer_log.jsonl", "data_report.json", "manifest.json"}
STATES = {"optimizer.safetensors", "process_0.json", "progress.json", "schedule.json", "trainer_state.json"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., StandInHub]]:
    made: list[StandInHub] = []

    def make(mode: str = "well") -> StandInHub:
        made.append(StandInHub(mode))
        monkeypatch.setenv("HF_ENDPOINT", made[-1].address)
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")  # the stand-in speaks the older way
        return made[-1]

    yield make
    for one in made:
        one.close()


def nothing_is_left(folder: Path) -> bool:
    return not (folder / ".staging").exists() or not any((folder / ".staging").iterdir())


def test_the_model_and_each_save_are_uploaded(run, hub) -> None:
    server = hub()
    result = run(**SAVES, hub_model_id="us/ours", hub_always_push=True, hub_private_repo=True)
    (made,) = server.made
    assert (made["organization"], made["name"]) == ("us", "ours")
    assert made.get("private") is True or made.get("visibility") == "private"
    assert server.tokens - {None} == {f"Bearer {TOKEN}"}
    messages = [message for _, message, _ in server.commits]
    assert messages == ["the model of checkpoint-2", "the model of checkpoint-4", "the trained model"]
    _, _, last = server.commits[-1]
    for name, data in last.items():
        assert name == "README.md" or data == (result.output_dir / name).read_bytes(), name
    assert "adapter_model.safetensors" in last
    for _, _, files in server.commits:
        assert files.keys() == last.keys(), "a model, without states and records"
        assert not files.keys() & (RECORDS | STATES)
        assert TOKEN.encode() not in b"".join(files.values())
    saved = (result.output_dir / "checkpoint-2" / "adapter_model.safetensors").read_bytes()
    assert server.commits[0][2]["adapter_model.safetensors"] == saved
    assert nothing_is_left(result.output_dir)
    for file in result.output_dir.rglob("*"):
        assert file.is_dir() or TOKEN.encode() not in file.read_bytes(), f"{file} tells the token"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "folders"),
    [("end", set()), ("checkpoint", {"last-checkpoint"}), ("all_checkpoints", {"checkpoint-2", "checkpoint-4"})],
)
def test_what_is_uploaded_when(run, hub, strategy, folders) -> None:
    server = hub()
    result = run(**SAVES, hub_strategy=strategy, hub_always_push=True, hub_revision="try")
    assert {branch for branch, _, _ in server.commits} == {"try"} == set(server.branches)
    found: dict[str, set[str]] = {}
    for _, _, files in server.commits:
        for name in files:
            if "/" in name:
                found.setdefault(name.partition("/")[0], set()).add(name.partition("/")[2])
    assert found.keys() == folders
    for names in found.values():
        assert names == {path.name for path in (result.output_dir / "checkpoint-4").iterdir()}, "it can be resumed"
    assert len(server.commits) == (1 if strategy == "end" else 5)


def test_the_card_names_no_path(train, hub) -> None:
    server = hub()
    result = train(push_to_hub=True, max_steps=1, push_to_hub_organization="us", push_to_hub_model_id="m")
    card = server.commits[-1][2]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: transformers\ntags:\n- tunesmith\n- sft\n---\n# us/m\n")
    assert not (result.output_dir / "README.md").exists()


def test_a_hub_that_refuses_is_an_error_before_training(run, hub, tmp_path) -> None:
    hub("refuse")
    with pytest.raises(UnavailableError) as raised:
        run(**SAVES)
    assert raised.value.problems[0].code == "E-TRAIN-094"
    assert not list(tmp_path.rglob("*.safetensors.*"))
    assert not (tmp_path / "out" / "checkpoint-2").exists()


def test_offline_is_an_error_before_training(run, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="E-TRAIN-094"):
        run(**SAVES)


@pytest.mark.row("R16")
def test_a_hub_that_hangs_holds_up_nothing_until_the_end(run, hub, monkeypatch, tmp_path) -> None:
    """The end waits for it; a signal ends that, and the same command uploads later."""
    monkeypatch.setattr(uploads, "FIRST_ANSWER", 0.2)
    hub("hang")
    original = uploads.Uploads.finish

    def finish(self: uploads.Uploads) -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()
        original(self)

    monkeypatch.setattr(uploads.Uploads, "finish", finish)
    with pytest.raises(PreemptedError, match="the same command uploads it"):
        run(**SAVES, hub_model_id="us/ours")
    monkeypatch.undo()
    out = tmp_path / "out"
    assert (out / "checkpoint-4").is_dir()
    assert (out / "adapter_model.safetensors").is_file()
    assert json.loads((out / "run.json").read_text())["status"] == "stopped"
    assert nothing_is_left(out)
    server = hub()
    run(**SAVES, hub_model_id="us/ours")
    assert [message for _, message, _ in server.commits] == ["the trained model"]


@pytest.mark.row("R16")
def test_an_upload_that_fails_is_told_and_the_last_one_is_an_error(run, hub, monkeypatch, caplog, tmp_path) -> None:
    monkeypatch.setattr(uploads, "FIRST_ANSWER", 0.2)
    hub("broken")
    with pytest.raises(UnavailableError) as raised:
        run(**SAVES)
    problem = raised.value.problems[0]
    assert (problem.code, "500" in str(problem.got)) == ("E-TRAIN-095", True)
    assert "the run goes on" in caplog.text
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
