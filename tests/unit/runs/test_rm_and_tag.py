"""`tunesmith runs rm|tag`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.__main__ import main
from tunesmith.runs import manifest
from tunesmith.runs.index import rows

MakeRun = Callable[..., Path]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_rm_asks_and_deletes(make_run: MakeRun, answer: Callable[[str], None], capsys) -> None:
    folder, other = make_run("ab12"), make_run("cd34")
    answer("n\n")
    assert main(["runs", "rm", "ab12"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("nothing is changed")
    assert folder.is_dir()
    answer("y\n")
    assert main(["runs", "rm", "ab12"]) == 0
    assert not folder.exists()
    assert other.is_dir()
    assert [row.id for row in rows()] == ["cd34"]
    answer("")
    assert main(["runs", "rm", "cd34"]) == 2
    assert "E-RUN-010" in capsys.readouterr().err
    assert main(["runs", "rm", "cd34", "cd34", "--yes", "--keep-files"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "forgotten: 1"
    assert other.is_dir()
    assert rows() == []


def test_rm_of_a_run_whose_folder_is_gone_forgets_it(make_run: MakeRun) -> None:
    make_run("ab12").rename(make_run("cd34").parent / "moved")
    assert main(["runs", "rm", "ab12", "--yes"]) == 0
    assert [row.id for row in rows()] == ["cd34"]


def test_rm_does_not_delete_another_run_in_the_same_place(make_run: MakeRun) -> None:
    folder = make_run("ab12")
    with manifest.changing(folder) as found:
        found["id"] = "new0"
    assert main(["runs", "rm", "ab12", "--yes"]) == 0
    assert manifest.read(folder)["id"] == "new0"


def test_rm_refuses_a_run_that_goes_on(make_run: MakeRun, capsys) -> None:
    folder, ended = make_run("ab12", status="running"), make_run("cd34")
    assert main(["runs", "rm", "cd34", "ab12", "--yes"]) == 2
    assert "E-RUN-007" in capsys.readouterr().err
    assert folder.is_dir()
    assert ended.is_dir(), "one that is refused keeps all"


def test_rm_refuses_a_folder_that_holds_more(make_run: MakeRun, monkeypatch, capsys) -> None:
    folder = make_run("ab12")
    inner = make_run("cd34").rename(folder / "inner")
    assert main(["runs", "show", str(inner)]) == 0  # known again
    assert main(["runs", "rm", "ab12", "--yes"]) == 2
    assert "E-RUN-008" in capsys.readouterr().err
    monkeypatch.chdir(inner)
    assert main(["runs", "rm", "ab12", "cd34", "--yes"]) == 2
    assert "the folder you are in" in capsys.readouterr().err
    assert inner.is_dir()


def test_rm_of_a_link_deletes_what_it_leads_to(make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("ab12")
    real = folder.rename(tmp_path / "real")
    folder.symlink_to(real)
    assert main(["runs", "rm", str(folder), "--yes"]) == 0
    assert not real.exists()
    assert not folder.is_symlink()


def test_tags_are_added_and_taken_away(make_run: MakeRun, capsys) -> None:
    folder = make_run("ab12")
    for words, tags in (
        (["+good", "+b:1"], ["good", "b:1"]),
        (["-good", "+hard", "+good"], ["b:1", "hard", "good"]),
        (["-hard", "-never", "-b:1"], ["good"]),
        ([], ["good"]),
    ):
        assert main(["runs", "tag", "ab12", *words]) == 0
        assert manifest.read(folder)["tags"] == tags
        assert capsys.readouterr().out == ", ".join(tags) + "\n"


@pytest.mark.parametrize("words", [[], ["ab12", "good"], ["ab12", "+"], ["ab12", "+a,b"], ["ab12", "+-x"]])
def test_what_is_no_tag_changes_nothing(make_run: MakeRun, capsys, words: list[str]) -> None:
    folder = make_run("ab12")
    assert main(["runs", "tag", *words]) == 2
    assert "E-RUN-011" in capsys.readouterr().err
    assert manifest.read(folder)["tags"] == []
