"""The table of verbs, help, and errors of the command line."""

from __future__ import annotations

from importlib import import_module

import pytest

from tunesmith.__main__ import main
from tunesmith._version import __version__
from tunesmith.cli.app import VERBS

COMMANDS = [[], *([verb] for verb in VERBS), ["config", "show"], ["config", "check"], ["data", "preview"]]
COMMANDS += [["runs", verb] for verb in ("ls", "show", "tail", "stop", "compare", "rm", "tag", "verify")]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_a_screen(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("words", [[], ["-h"], ["config"], ["data"]], ids=str)
def test_nothing_to_do_shows_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    assert capsys.readouterr().out.startswith("Usage: tunesmith")


def test_help_has_every_verb_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    text = capsys.readouterr().out
    assert "Examples:" in text
    assert all(f"  {verb} " in text for verb in VERBS)


def test_every_verb_of_the_table_exists() -> None:
    for module, _ in VERBS.values():
        assert import_module(module).app.registered_commands


@pytest.mark.parametrize(
    ("words", "meant"), [(["trian", "x.yaml"], "train"), (["config", "chekc"], "check"), (["exprot"], "export")]
)
def test_an_unknown_verb_exits_2_with_a_suggestion(
    words: list[str], meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "error[E-CLI-001]" in error
    assert f'did you mean "{meant}"?' in error
    assert "Traceback" not in error


def test_an_unknown_option_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--jsno"]) == 2
    assert "error[E-CLI-003]" in capsys.readouterr().err


def test_a_missing_option_exits_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--model", "x"]) == 2
    assert "tunesmith init --help" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["version"], ["--version"]):
        assert main(words) == 0
        assert capsys.readouterr().out == f"tunesmith {__version__}\n"
    assert main(["version", "--json"]) == 0
    assert capsys.readouterr().out == f'{{\n  "tunesmith": "{__version__}"\n}}\n'
