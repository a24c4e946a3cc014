"""`tunesmith explain` and `tunesmith env`."""

from __future__ import annotations

import json

import pytest

from tunesmith.__main__ import main
from tunesmith.cli.explain import areas, normal, read_all
from tunesmith.core.secrets import redact, redact_words


@pytest.mark.parametrize("code", ["E-CLI-001", "e-cli-001", "cli-1", "CLI001"])
def test_a_code_is_explained_in_any_spelling(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", code]) == 0
    assert capsys.readouterr().out.startswith("E-CLI-001: unknown verb (exit code 2)\n\n")


def test_without_a_code_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain"]) == 0
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(read_all())
    assert "E-CLI-001" in listed


def test_explain_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "E-CLI-070", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert entry["code"] == "E-CLI-070"
    assert entry["exit"] == 70
    assert set(entry) == {"code", "title", "exit", "text"}


@pytest.mark.parametrize("code", ["E-CLI-999", "E-NOWHERE-001", "nonsense", ""])
def test_an_unknown_code_exits_2(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", code]) == 2
    assert "error[E-CLI-007]" in capsys.readouterr().err


def test_an_unknown_code_gets_suggestions(capsys: pytest.CaptureFixture[str]) -> None:
    main(["explain", "E-CLI-071"])
    assert '"E-CLI-070"' in capsys.readouterr().err


def test_every_entry_is_complete() -> None:
    for code, entry in read_all().items():
        assert normal(code) == code
        assert set(entry) == {"title", "exit", "text"}, code
        assert code.split("-")[1].lower() in areas()
        assert max(map(len, entry["text"].splitlines())) <= 120, code


def test_env_shows_versions_and_hides_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter2")
    monkeypatch.setenv("TUNESMITH_LOG", "debug")
    assert main(["env", "--json"]) == 0
    text = capsys.readouterr().out
    facts = json.loads(text)
    assert facts["packages"]["torch"]
    assert facts["machine"]["cpus"] >= 1
    assert facts["variables"]["TUNESMITH_LOG"] == "debug"
    assert facts["variables"]["HF_TOKEN"] == "***"
    assert "hunter2" not in text


def test_env_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "tunesmith:"
    assert any(line.split()[:1] == ["transformers"] for line in lines)


def test_secret_keys_are_known_by_their_names() -> None:
    values = {
        "hf_hub_token": "x",
        "my_api_key": "x",
        "add_tokens": "a,b",
        "kt": {"password": "x"},
        "hub_token": "",
    }
    hidden = {**values, "hf_hub_token": "***", "my_api_key": "***", "kt": {"password": "***"}}
    assert redact(values) == hidden


def test_secrets_in_words_are_hidden() -> None:
    words = ["train", "--hub-token=x", "hub_token=x", "--hub_token", "x", "add_tokens=a"]
    safe = ["train", "--hub-token=***", "hub_token=***", "--hub_token", "***", "add_tokens=a"]
    assert redact_words(words) == safe


def test_explanations_fit_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", *read_all()]) == 0
    wide = [line for line in capsys.readouterr().out.splitlines() if len(line) > 80]
    assert not wide
