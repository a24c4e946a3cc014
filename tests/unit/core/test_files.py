"""A file is whole or not there."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

from tunesmith.core import files
from tunesmith.core.errors import PreemptedError
from tunesmith.core.files import fsync, locked, read_json, write_atomically, write_json
from tunesmith.core.signals import StopSignals


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"grüße": [1, 2.5]})
    assert read_json(tmp_path / "a.json") == {"grüße": [1, 2.5]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_where_writing_fails_the_old_content_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", "old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_no_json_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "b.json") is None


def test_a_folder_can_be_put_on_the_disk(tmp_path: Path) -> None:
    fsync(tmp_path)


def test_whoever_waits_for_a_lock_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "QUIETLY", 0.1)
    path, held = tmp_path / ".lock", threading.Event()

    def another() -> None:
        with FileLock(path):
            held.set()
            time.sleep(0.4)

    logging.getLogger("tunesmith").propagate = True
    with caplog.at_level(logging.INFO, "tunesmith"):
        with locked(path, "preparing the same data"):
            assert not caplog.messages
        threading.Thread(target=another).start()
        assert held.wait(10)
        with locked(path, "preparing the same data"):
            pass
    assert caplog.messages == [f"waiting for another process that is preparing the same data ({path})"]


def test_a_signal_ends_waiting_for_a_lock(tmp_path: Path) -> None:
    def wait() -> None:
        with StopSignals(), locked(tmp_path / ".lock", "preparing the same data"):
            pass

    with FileLock(tmp_path / ".lock"):
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(PreemptedError):
            wait()
