"""Words of a command line to a config file and keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.cli.arguments import load, split, take
from tunesmith.core.errors import UsageError


@pytest.mark.parametrize(
    "words",
    [
        ["run.yaml", "learning_rate=1e-4"],
        ["run.yaml", "--learning_rate", "1e-4"],
        ["run.yaml", "--learning-rate", "1e-4"],
        ["run.yaml", "--learning-rate=1e-4"],
        ["--learning_rate=1e-4", "run.yaml"],
    ],
)
def test_all_spellings_of_a_key_are_the_same(words: list[str]) -> None:
    assert split(words) == ("run.yaml", ["learning_rate=1e-4"])


def test_without_a_file_there_are_only_keys() -> None:
    assert split(["--model_name_or_path", "a/b", "seed=1"]) == (None, ["model_name_or_path=a/b", "seed=1"])


def test_an_option_without_a_value_is_true() -> None:
    assert split(["--do_train", "--bf16", "seed=1"])[1] == ["do_train=true", "bf16=true", "seed=1"]


def test_a_negative_number_is_a_value() -> None:
    assert split(["--max_steps", "-1"]) == (None, ["max_steps=-1"])


def test_only_the_first_equals_sign_divides() -> None:
    assert split(["default_system=a=b"])[1] == ["default_system=a=b"]
    assert split(["--default_system=a=b"])[1] == ["default_system=a=b"]


def test_a_file_whose_name_looks_like_a_key_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=1.yaml").write_text("seed: 1")
    assert split(["lr=1.yaml"]) == ("lr=1.yaml", [])


def test_words_that_belong_to_nothing_are_reported_together() -> None:
    with pytest.raises(UsageError) as caught:
        split(["run.yaml", "more.yaml", "-x"])
    assert [problem.code for problem in caught.value.problems] == ["E-CLI-002", "E-CLI-002"]


def test_a_verb_without_anything_asks_for_a_config() -> None:
    with pytest.raises(UsageError) as caught:
        load([], "train")
    assert caught.value.code == "E-CLI-004"


def test_options_of_a_verb_are_taken_out() -> None:
    words = ["run.yaml", "--name", "a", "seed=1", "--after=3,4", "--lora_rank", "8", "--name", "b", "name=c"]
    assert take(words, ("name", "after")) == (
        ["run.yaml", "seed=1", "--lora_rank", "8", "name=c"],
        {"name": "b", "after": "3,4"},
    )


@pytest.mark.parametrize("words", [["--name"], ["--name", "--after", "3"], ["--name", "seed=1"]])
def test_an_option_without_its_value(words: list[str]) -> None:
    with pytest.raises(UsageError, match=r'E-CLI-003.*"--name" needs a value'):
        take(words, ("name", "after"))
