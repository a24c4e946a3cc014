"""A file is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunesmith.core.files import fsync, read_json, write_atomically, write_json


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
