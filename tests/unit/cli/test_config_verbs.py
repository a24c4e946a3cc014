"""`tunesmith config show|check|schema` and `tunesmith init`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tunesmith.__main__ import main

GOOD = "model_name_or_path: a/b\ndataset: x.jsonl\noutput_dir: out\ndo_train: true\nhf_hub_token: hunter2\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(GOOD)
    return path


def test_show_prints_file_and_overrides_without_secrets(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", str(config), "--learning-rate", "1e-4"]) == 0
    text = capsys.readouterr().out
    shown = yaml.safe_load(text)
    assert shown["model_name_or_path"] == "a/b"
    assert shown["learning_rate"] == 1e-4
    assert "lora_rank" not in shown
    assert "hunter2" not in text


def test_show_all_prints_defaults_too(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", str(config), "--all", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["lora_rank"] == 8
    assert shown["hf_hub_token"] != "hunter2"


def test_check_says_ok(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(config)]) == 0
    assert capsys.readouterr().out == f"ok: {config} (5 keys, for train)\n"


def test_check_prints_warnings_to_standard_error(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(config), "finetuning_type=full", "lora_rank=4"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("ok:")
    assert "lora_rank" in captured.err


def test_check_reports_all_errors_with_their_lines(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(GOOD + "lora_rnk: 4\nlearning_rate: fast\n")
    assert main(["config", "check", str(config)]) == 2
    error = capsys.readouterr().err
    assert f"{config}:6" in error
    assert 'did you mean "lora_rank"' in error
    assert f"{config}:7" in error


def test_check_json_has_the_problems_and_the_same_exit_code(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", str(config), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found["verb"], found["problems"]) == (True, "train", [])
    assert found["warnings"] == ['no dataset "x.jsonl": neither a path nor an entry of data/dataset_info.json']
    assert main(["config", "check", str(config), "lora_rnk=4", "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert [problem["code"] for problem in found["problems"]] == ["E-CONFIG-001"]


def test_check_knows_the_templates_and_looks_for_the_inputs(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["config", "check", str(config), "template=chatmll"]) == 2
    assert 'did you mean "chatml"' in capsys.readouterr().err
    assert main(["config", "check", str(config), "template=chatml", "model_name_or_path=./none"]) == 0
    told = capsys.readouterr().err
    assert "warning: no such model folder: ./none" in told
    assert 'warning: no dataset "x.jsonl"' in told
    (tmp_path / "x.jsonl").write_text("{}")
    assert main(["config", "check", str(config), "model_name_or_path=a/b"]) == 0
    assert capsys.readouterr().err == ""


def test_schema_describes_every_key(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert {"model_name_or_path", "learning_rate", "lora_rank"} <= set(schema["properties"])


@pytest.mark.parametrize(
    ("model", "data"), [("a/b", "rows.jsonl"), ("/models/with blank", "it's: odd #1.json"), ("2024", "null")]
)
def test_init_writes_a_config_that_is_right(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "run.yaml"
    assert main(["init", "--model", model, "--data", data, "--output", str(path)]) == 0
    assert f"ok: {path}" in capsys.readouterr().out
    written = yaml.safe_load(path.read_text())
    assert written["model_name_or_path"] == model
    assert written["dataset"] == data


def test_init_never_overwrites(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "--model", "m", "--data", "d", "--output", str(config)]) == 73
    assert "error[E-CLI-005]" in capsys.readouterr().err
    assert config.read_text() == GOOD


def test_init_says_where_it_cannot_write(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    below_a_file = config / "run.yaml"
    assert main(["init", "--model", "m", "--data", "d", "--output", str(below_a_file)]) == 73
    assert "error[E-CLI-006]" in capsys.readouterr().err


@pytest.mark.parametrize(
    "dataset",
    ["x.jsonl#5", "d:part#3", "*.jsonl", "owner/name:en#5", "s3://bucket/a.jsonl", "[{path: y.jsonl, field: data}]"],
)
def test_check_knows_the_forms_that_a_dataset_may_have(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], dataset: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.jsonl").write_text("{}")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset_info.json").write_text('{"d": {"hf_hub_url": "a/b"}}')
    assert main(["config", "check", str(config), "model_name_or_path=a/b", f"dataset={dataset}"]) == 0
    assert capsys.readouterr().err == ""
    assert main(["config", "check", str(config), "model_name_or_path=a/b", "dataset=data/y"]) == 0
    assert 'no dataset "data/y"' in capsys.readouterr().err
