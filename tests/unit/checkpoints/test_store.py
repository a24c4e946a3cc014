"""Checkpoints are whole or not there, and what verifies is what was saved."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.checkpoints import store
from tunesmith.checkpoints.store import STAGING, Staging, committed, publish, remove, rotate, set_aside, sweep, verify


def commit(output_dir: Path, step: int, content: str = "weights") -> Path:
    staging = Staging(output_dir, f"checkpoint-{step}")
    (staging.folder / "model.safetensors").write_text(f"{content} {step}")
    staging.seal()
    (staging.folder / "states").mkdir()
    (staging.folder / "states" / "rank.json").write_text(str(step))
    return staging.commit({"step": step})


def test_a_committed_checkpoint_verifies(tmp_path: Path) -> None:
    folder = commit(tmp_path, 3)
    assert folder == tmp_path / "checkpoint-3"
    assert verify(folder) is None
    assert store.manifest_of(folder)["files"].keys() == {"model.safetensors", "states/rank.json"}
    assert committed(tmp_path) == [folder]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / "states" / "rank.json").unlink(), "states/rank.json is missing"),
    "empty": (lambda folder: (folder / "model.safetensors").write_text(""), "model.safetensors has 0 bytes, not 9"),
    "one bit": (lambda folder: (folder / "model.safetensors").write_text("weightr 3"), "model.safetensors has changed"),
    "extra": (lambda folder: (folder / "optimizer.pt").write_text(""), "optimizer.pt does not belong"),
    "no manifest": (lambda folder: (folder / "manifest.json").unlink(), "manifest.json is missing"),
    "manifest cut": (lambda folder: (folder / "manifest.json").write_text('{"format'), "manifest.json is missing or"),
    "another's manifest": (
        lambda folder: (folder / "manifest.json").write_bytes(
            (folder.parent / "checkpoint-1/manifest.json").read_bytes()
        ),
        "not that of this folder",
    ),
    "later version": (lambda folder: (folder / "manifest.json").write_text('{"format": 9}'), "later version"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(case: str, tmp_path: Path) -> None:
    commit(tmp_path, 1)
    folder = commit(tmp_path, 3)
    damage, said = DAMAGE[case]
    damage(folder)
    assert said in str(verify(folder))


def test_every_bit_of_the_manifest_counts(tmp_path: Path) -> None:
    """But those that change nothing of what it says."""
    manifest = commit(tmp_path, 3) / "manifest.json"
    content = manifest.read_bytes()
    for place in range(len(content)):
        for bit in {place % 8, (place + 5) % 8}:
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            manifest.write_bytes(damaged)
            if verify(manifest.parent) is None:
                assert json.loads(damaged) == json.loads(content), damaged[max(place - 20, 0) : place + 20]


def test_a_manifest_of_the_format_before_is_read(tmp_path: Path) -> None:
    manifest = commit(tmp_path, 3) / "manifest.json"
    content = json.loads(manifest.read_text())
    del content["digest"]
    manifest.write_text(json.dumps({**content, "format": 1}))
    assert verify(manifest.parent) is None
    manifest.write_text(json.dumps(content))
    assert verify(manifest.parent) == "manifest.json has changed since it was saved"


def test_drafts_of_processes_that_are_gone_are_swept(tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    gone, here = tmp_path / f".run.json.{done.pid}.draft", tmp_path / f".run.json.{os.getpid()}.draft"
    others = tmp_path / ".notes.draft"
    for file in (gone, here, others):
        file.touch()
    sweep(tmp_path)
    assert (gone.exists(), here.exists(), others.exists()) == (False, True, True)


def test_hidden_files_of_systems_do_no_harm(tmp_path: Path) -> None:
    folder = commit(tmp_path, 3)
    (folder / ".DS_Store").write_text("x")
    assert verify(folder) is None


def test_what_is_not_committed_is_not_seen_and_is_swept(tmp_path: Path) -> None:
    staging = Staging(tmp_path, "checkpoint-3")
    (staging.folder / "model.safetensors").write_text("half")
    assert committed(tmp_path) == []
    assert sweep(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_lacks_but_its_name_gets_it(tmp_path: Path) -> None:
    folder = commit(tmp_path, 3)
    (tmp_path / STAGING).mkdir(exist_ok=True)
    os.rename(folder, tmp_path / STAGING / folder.name)
    assert sweep(tmp_path) == [folder]
    assert verify(folder) is None


def test_the_same_step_again_takes_the_place(tmp_path: Path) -> None:
    commit(tmp_path, 3)
    commit(tmp_path, 3, "other")
    assert (tmp_path / "checkpoint-3" / "model.safetensors").read_text() == "other 3"
    assert verify(tmp_path / "checkpoint-3") is None


def test_rotation_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    folders = {step: commit(tmp_path, step) for step in (2, 9, 10, 11, 30)}
    assert rotate(tmp_path, 2, frozenset({folders[2]})) == [folders[9], folders[10], folders[11]]
    assert committed(tmp_path) == [folders[2], folders[30]]
    assert rotate(tmp_path, 1, frozenset({folders[2]})) == []
    assert rotate(tmp_path, None) == []
    assert rotate(tmp_path, 1) == [folders[2]]


def test_a_checkpoint_is_out_of_sight_before_it_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = commit(tmp_path, 3)
    seen = []
    monkeypatch.setattr(store.shutil, "rmtree", lambda path, **_: seen.append(committed(tmp_path)))
    remove(folder)
    assert seen == [[]]


def test_what_is_set_aside_is_kept(tmp_path: Path) -> None:
    folders = [commit(tmp_path, step) for step in (1, 2)]
    assert set_aside(tmp_path, []) is None
    assert set_aside(tmp_path, folders[1:]) == tmp_path / "earlier-1"
    assert set_aside(tmp_path, folders[:1]) == tmp_path / "earlier-2"
    assert verify(tmp_path / "earlier-1" / "checkpoint-2") is None


def test_published_files_take_the_place_of_old_ones_weights_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text("old")

    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text("new")
        (folder / "config.json").write_text("new")

    assert publish(tmp_path, write) == ["config.json", "model.safetensors"]
    assert (tmp_path / "config.json").read_text() == "new"

    def fails(folder: Path) -> None:
        (folder / "config.json").write_text("newer")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        publish(tmp_path, fails)
    assert (tmp_path / "config.json").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != STAGING) == [
        "config.json",
        "model.safetensors",
    ]


def test_an_error_of_the_disk_in_the_background_is_raised_at_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = Staging(tmp_path, "checkpoint-3")
    (staging.folder / "model.safetensors").write_text("weights")

    def broken(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(store, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        staging.commit({"step": 3})
    staging.discard()
    assert committed(tmp_path) == []
