"""Every file of examples/ runs as it is written, for two steps, on the tiny model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith import load_config
from tunesmith.data.sources.local import read_path
from tunesmith.train.results import Result

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))
USE_A_RESULT = {"predict": "sft_lora", "chat": "sft_lora", "export": "sft_lora", "score": "rm_lora"}
"""Examples that use what another one has trained."""
VERBS = ("chat", "export", "score")
"""Verbs of examples that are called like them; all others train."""
TRAINING = [name for name in NAMES if name not in USE_A_RESULT]
QUICKLY = {"sft_lora", "sft_full", "pt_freeze"}


SEE = {name for name in NAMES if name.endswith("_pictures")}
"""Examples whose model sees."""


@pytest.fixture
def train(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    torch_one_thread: None,
) -> Callable[..., Result]:
    """`train(name, key=value, ...)`: an example from the root of the checkout, as its README says."""
    monkeypatch.chdir(ROOT)

    def run(name: str, **changes: Any) -> Result:
        model = request.getfixturevalue("seeing_model") if name in SEE else tiny_model
        here = {"model_name_or_path": str(model), "output_dir": str(tmp_path / name), "use_cpu": True}
        return tunesmith.train(EXAMPLES / f"{name}.yaml", **{**here, "max_steps": 2, **changes})

    return run


@pytest.mark.parametrize("name", NAMES)
def test_every_key_has_an_effect(name: str) -> None:
    config = load_config(EXAMPLES / f"{name}.yaml", verb=name if name in VERBS else "train")
    assert config.warnings == ()
    if name in TRAINING:
        assert config.train.output_dir == f"saves/{name}"
    else:
        trained = load_config(EXAMPLES / f"{USE_A_RESULT[name]}.yaml").train.output_dir
        assert config.model.adapter_name_or_path == (trained,)


@pytest.mark.parametrize(
    "name", [name if name in QUICKLY else pytest.param(name, marks=pytest.mark.slow) for name in TRAINING]
)
def test_training_runs(train: Callable[..., Result], name: str) -> None:
    result = train(name)
    assert result.metrics["train_loss"] > 0
    adapter = (result.output_dir / "adapter_model.safetensors").is_file()
    assert adapter == (load_config(EXAMPLES / f"{name}.yaml").method.finetuning_type in ("lora", "oft", "peft"))
    assert list(result.output_dir.glob("*.safetensors"))
    report = json.loads((result.output_dir / "data_report.json").read_text(encoding="utf-8"))
    assert report["total"]["dropped"] == 0


def test_a_careful_run_evaluates_keeps_the_best_and_goes_on(train: Callable[..., Result]) -> None:
    often = {"eval_steps": 1, "save_steps": 1}
    first = train("sft_lora_careful", **often)
    assert {"checkpoint-1", "checkpoint-2"} >= {path.name for path in first.output_dir.glob("checkpoint-*")} > set()
    assert (first.output_dir / "training_loss.png").is_file()
    again = train("sft_lora_careful", **often, max_steps=3)
    assert str(again.plan.resume).endswith("checkpoint-2")
    assert 0 <= again.metrics["eval_accuracy"] <= 1


def test_what_was_trained_answers_talks_and_is_exported(
    train: Callable[..., Result], tiny_model: Path, tmp_path: Path
) -> None:
    adapter = str(train("sft_lora").output_dir)
    base = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": adapter, "use_cpu": True}
    predicted = train("predict", **base, max_samples=2, max_new_tokens=4)
    lines = (predicted.output_dir / "generated_predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line).keys() for line in lines] == [{"prompt", "predict", "label"}] * 2
    with tunesmith.chat(EXAMPLES / "chat.yaml", **base) as conversation:
        assert isinstance(conversation.ask("Who are you?", max_new_tokens=3), str)
    folder = tunesmith.export_model(EXAMPLES / "export.yaml", **base, export_dir=str(tmp_path / "merged"))
    assert (folder / "model.safetensors").is_file()


@pytest.mark.slow
def test_what_was_trained_scores(train: Callable[..., Result], tiny_model: Path, tmp_path: Path) -> None:
    adapter = str(train("rm_lora").output_dir)
    base = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": adapter, "use_cpu": True}
    found = tunesmith.score(EXAMPLES / "score.yaml", **base, output_dir=str(tmp_path / "score"))
    lines = (tmp_path / "score" / "scores.jsonl").read_text(encoding="utf-8").splitlines()
    assert found["rows"] == len(lines) == 24


def test_every_method_and_every_objective_has_an_example() -> None:
    """Those of text and chats with each kind of method, those of preferences with an adapter at least."""
    from tunesmith.methods import METHODS
    from tunesmith.objectives import OBJECTIVES

    configs = [load_config(EXAMPLES / f"{name}.yaml") for name in TRAINING]
    found = {(config.objective.stage, config.method.finetuning_type) for config in configs}
    assert {(objective, method) for objective in ("pt", "sft") for method in ("full", "freeze", "lora")} <= found
    assert {(objective, "lora") for objective in OBJECTIVES} <= found
    assert {method for _, method in found} == set(METHODS)


def test_the_table_names_every_file_with_its_command() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^\| \[(\w+)\.yaml\].*`tunesmith (\w+) examples/\1\.yaml` \|$", text, re.MULTILINE))
    assert named == {name: name if name in VERBS else "train" for name in NAMES}
    for name, verb in named.items():
        assert f"#   tunesmith {verb} examples/{name}.yaml\n" in (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")


def test_the_table_of_data_tells_the_rows() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    told = {file: int(rows) for file, rows in re.findall(r"^\| `\w+` \| \[(.+?)\].* (\d+) \|$", text, re.MULTILINE)}
    registered = json.loads((EXAMPLES / "data" / "dataset_info.json").read_text(encoding="utf-8"))
    assert set(told) == {entry["file_name"] for entry in registered.values()}
    for file, rows in told.items():
        found = [json.dumps(row.values) for row in read_path(EXAMPLES / "data" / file)]
        assert (len(found), len(set(found))) == (rows, rows), file
