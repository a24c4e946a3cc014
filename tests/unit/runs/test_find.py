"""Which run a word means."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.core.errors import MissingInputError, UsageError
from tunesmith.runs import registry
from tunesmith.runs.find import find

MakeRun = Callable[..., Path]


def one(word: str) -> str:
    (row,) = find([word])
    return row.id


def test_by_id_by_its_beginning_and_by_name(make_run: MakeRun) -> None:
    make_run("ab12", name="first")
    make_run("ac34", name="second")
    assert [one(word) for word in ("ab12", "ab", "first", "second")] == ["ab12", "ab12", "ab12", "ac34"]


def test_a_name_wins_over_the_beginning_of_an_id_and_an_id_over_a_name(make_run: MakeRun) -> None:
    make_run("ab12", name="first")
    make_run("ac34", name="ab")
    make_run("ad56", name="ab12")
    assert one("ab") == "ac34"
    assert one("ab12") == "ab12"


def test_a_folder_is_a_run_and_is_remembered(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run("ab12", name="first")
    registry.forget("ab12")
    monkeypatch.chdir(folder.parent)
    for word in (str(folder), "./first", "first"):
        assert one(word) == "ab12"
    moved = folder.rename(folder.parent / "elsewhere")
    assert one(str(moved)) == "ab12"
    assert find(["ab12"])[0].folder == moved


@pytest.mark.parametrize("word", ["firts", "zz", "", "./nowhere", "home/"])
def test_what_is_no_run_is_an_error(make_run: MakeRun, tmp_path: Path, word: str) -> None:
    make_run("ab12", name="first")
    with pytest.raises(MissingInputError) as caught:
        find([word])
    assert caught.value.code == "E-RUN-001"
    if word == "firts":
        assert 'did you mean "first"?' in str(caught.value)


def test_a_word_for_several_runs_is_an_error_that_lists_them(make_run: MakeRun) -> None:
    make_run("ab12")
    make_run("ab34")
    with pytest.raises(UsageError) as caught:
        find(["ab"])
    assert caught.value.code == "E-RUN-002"
    assert caught.value.problems[0].got == "ab34 (finished), ab12 (finished)"
