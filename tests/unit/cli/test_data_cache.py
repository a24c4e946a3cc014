"""`tunesmith data cache ls|rm`."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tunesmith.__main__ import main
from tunesmith.data.cache import cached, entries


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys of three entries; the last was used 40 days ago."""
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path))
    folders = [
        cached({"a": number}, f"d{number}", lambda folder: (folder / "x").write_bytes(bytes(1500)))
        for number in range(3)
    ]  # type: ignore[arg-type, return-value]
    long_ago = time.time() - 40 * 86400
    os.utime(folders[2] / "manifest.json", (long_ago, long_ago))
    return [folder.name for folder in folders]


def test_ls(kept: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["key", "size", "used", "dataset"]
    assert lines[3].split() == [kept[2][:12], "1.5", "kB", "40", "days", "ago", "d2"]
    assert lines[-1] == "4.5 kB in 3"
    assert main(["data", "cache", "ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["dataset"], one["bytes"]) for one in found][2] == ("d2", 1500)
    assert {one["key"] for one in found} == set(kept)


def test_rm(kept: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "rm", "--unused-for", "30"]) == 0
    assert {entry.key for entry in entries()} == set(kept[:2])
    assert main(["data", "cache", "rm", kept[0][:8]]) == 0
    assert [entry.key for entry in entries()] == [kept[1]]
    assert main(["data", "cache", "rm", "--all"]) == 0
    assert main(["data", "cache", "ls"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing is kept"


@pytest.mark.parametrize("words", [[], ["zzz"], [""]])
def test_what_is_unclear_removes_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "cache", "rm", *words]) == 2
    assert "E-CLI-012" in capsys.readouterr().err
    assert len(list(entries())) == 3


def test_what_was_interrupted_is_listed_and_removed(kept: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "x").write_bytes(bytes(9000))
        raise KeyboardInterrupt

    for number, rebuild in ((7, False), (0, True)):
        with pytest.raises(KeyboardInterrupt):
            cached({"a": number}, f"d{number}", interrupted, rebuild=rebuild)
    assert main(["data", "cache", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in lines if "interrupted" in line] == [
        ["d0", "(interrupted)"],
        ["d7", "(interrupted)"],
    ]
    assert main(["data", "cache", "ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(one["dataset"] for one in found if not one["finished"]) == ["d0", "d7"]
    assert main(["data", "cache", "rm", kept[0][:8]]) == 0  # the entry, and the draft that was to replace it
    assert {entry.name for entry in entries()} == {"d1", "d2", "d7"}
    assert main(["data", "cache", "rm", "--all"]) == 0
    assert list(entries()) == []
