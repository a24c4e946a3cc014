"""What went wrong, as an exit code and one block of text."""

from __future__ import annotations

import errno
import gc
import os
import re
from pathlib import Path

import pytest

from tunesmith.__main__ import main
from tunesmith.cli import app
from tunesmith.core.errors import DataError, Problem


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Make every verb raise an exception; crash reports go below tmp_path."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    monkeypatch.delenv("TUNESMITH_DEBUG", raising=False)

    def arrange(error: BaseException) -> None:
        def invoke(words: object) -> int:
            raise error

        monkeypatch.setattr(app, "invoke", invoke)

    return arrange


def test_an_error_of_the_user_is_one_block_and_its_exit_code(fail_with, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(DataError(Problem("E-DATA-003", "a broken line", "x.jsonl:11")))
    assert main(["train"]) == 65
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error[E-DATA-003]: a broken line\n  where: x.jsonl:11\n")
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("words", [["train", "--debug"], ["--debug", "train"]])
def test_debug_shows_the_traceback(words: list[str], fail_with, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(DataError(Problem("E-DATA-003", "a broken line")))
    assert main(words) == 65
    assert "Traceback" in capsys.readouterr().err


def test_debug_can_be_an_environment_variable(fail_with, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setenv("TUNESMITH_DEBUG", "1")
    fail_with(DataError(Problem("E-DATA-003", "a broken line")))
    main(["train"])
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_exits_130(fail_with, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(KeyboardInterrupt())
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_a_bug_exits_70_and_leaves_its_traceback_in_a_file(fail_with, tmp_path: Path, capsys) -> None:
    fail_with(RuntimeError("no such luck"))
    assert main(["train", "run.yaml", "hf_hub_token=hunter2", "--ms_hub_token", "hunter2"]) == 70
    error = capsys.readouterr().err
    assert "error[E-CLI-070]: this is a bug in Tunesmith" in error
    assert "RuntimeError: no such luck" in error
    assert "Traceback" not in error
    (report,) = (tmp_path / "crashes").iterdir()
    assert str(report) in error
    text = report.read_text()
    assert "Traceback" in text
    assert "$ tunesmith train run.yaml hf_hub_token=*** --ms_hub_token ***" in text
    assert "hunter2" not in text


def test_a_bug_with_debug_shows_its_traceback_instead(fail_with, tmp_path: Path, capsys) -> None:
    fail_with(RuntimeError("no such luck"))
    assert main(["train", "--debug"]) == 70
    assert "Traceback" in capsys.readouterr().err
    assert not (tmp_path / "crashes").exists()


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "the disk is full"), (errno.EIO, "the disk reports an error"), (errno.EROFS, "only be read")],
)
def test_what_a_disk_says_is_not_a_bug(fail_with, capsys: pytest.CaptureFixture[str], number: int, said: str) -> None:
    fail_with(OSError(number, os.strerror(number), "out/model.safetensors"))
    assert main(["train"]) == 74
    told = capsys.readouterr().err
    assert said in told
    assert "out/model.safetensors" in told
    assert re.search(r"\d GB free|\d MB free", told)


def test_garbage_is_collected_again_afterwards() -> None:
    assert gc.isenabled()
    main(["config", "no-such-verb"])
    assert gc.isenabled()


def test_the_key_debug_of_transformers_reaches_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(app, "invoke", lambda words: seen.append(words) or 0)
    main(["train", "debug=underflow_overflow", "--debug", "seed=1"])
    assert seen == [["train", "debug=underflow_overflow", "seed=1"]]
