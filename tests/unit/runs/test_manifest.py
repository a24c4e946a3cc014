"""`run.json` is whole at every moment, also when several write it, and does not grow without end."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.runs import manifest, registry


@pytest.fixture
def folder(make_run: Callable[..., Path]) -> Path:
    return make_run("ab12")


def test_events_are_added_with_their_time(folder: Path) -> None:
    manifest.event(folder, "out_of_memory", step=3, tokens=512)
    (found,) = manifest.read(folder)["events"]
    assert (found["kind"], found["step"], found["tokens"]) == ("out_of_memory", 3, 512)
    assert found["time"].endswith("Z")
    assert len(found["time"]) == len("2026-11-27T16:03:12Z")


def test_the_oldest_events_make_room(folder: Path) -> None:
    with manifest.changing(folder) as found:
        for number in range(manifest.MOST_EVENTS + 7):
            manifest.add_event(found, "skipped", step=number)
    found = manifest.read(folder)
    assert len(found["events"]) == manifest.MOST_EVENTS
    assert found["events"][0]["step"] == 7
    assert found["events_left_out"] == 7


def test_an_event_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        manifest.event(tmp_path, "skipped")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1, "id": "ab"}'])
def test_what_is_no_manifest_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / manifest.RUN_FILE).write_text(text)
    assert manifest.read(tmp_path) is None


@pytest.mark.parametrize("number", [2, "1", None])
def test_a_newer_format_is_not_read(folder: Path, number: object) -> None:
    found = json.loads((folder / manifest.RUN_FILE).read_text())
    (folder / manifest.RUN_FILE).write_text(json.dumps({**found, "format": number}))
    assert manifest.read(folder) is None


def test_a_change_that_fails_changes_nothing(folder: Path) -> None:
    before = (folder / manifest.RUN_FILE).read_bytes()

    def change() -> None:
        with manifest.changing(folder) as found:
            found["tags"] = ["x"]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        change()
    assert (folder / manifest.RUN_FILE).read_bytes() == before


def test_what_json_does_not_know_is_written_as_text(folder: Path) -> None:
    manifest.event(folder, "resumed", checkpoint=Path("a") / "b")
    assert manifest.read(folder)["events"][0]["checkpoint"] == "a/b"


def test_several_processes_lose_no_event(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tunesmith.runs.manifest import event\n"
        "for n in range(25): event(Path(sys.argv[1]), sys.argv[2], n=n)"
    )
    running = [subprocess.Popen([sys.executable, "-c", program, str(folder), name]) for name in "abc"]
    while any(process.poll() is None for process in running):
        json.loads((folder / manifest.RUN_FILE).read_text())  # whole at every moment
    assert [process.returncode for process in running] == [0, 0, 0]
    events = [(one["kind"], one["n"]) for one in manifest.read(folder)["events"]]
    assert sorted(events) == [(name, n) for name in "abc" for n in range(25)]
    assert [n for kind, n in events if kind == "a"] == list(range(25))


def test_the_list_of_runs_is_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    assert list(registry.known()) == []
    monkeypatch.chdir(tmp_path)
    registry.register("ab", Path("out"))
    ((found, file),) = registry.known()
    assert found == "ab"
    assert json.loads(file.read_text()) == {"output_dir": str(tmp_path / "out")}
    registry.forget("ab")
    registry.forget("ab")
    assert list(registry.known()) == []
