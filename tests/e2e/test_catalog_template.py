"""A model without a chat template of its own gets the catalog's, alike in training, chat and preview."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import tunesmith
from tunesmith.__main__ import main
from tunesmith.engines import make_engine

pytestmark = pytest.mark.usefixtures("torch_one_thread")

NOTICE = 'the model has no chat template of its own: using "{}" of the catalog'


@pytest.fixture
def without_template(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model under the name of one of the catalog's, as if downloaded, without its Jinja."""
    folder = tmp_path / "Qwen2.5-0.5B-Instruct"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").unlink()
    return folder


def keys(model: Path, data: Path, **more: object) -> dict[str, object]:
    return {
        "model_name_or_path": str(model),
        "dataset": "chats_openai",
        "dataset_dir": str(data),
        "max_samples": 4,
        **more,
    }


def test_training_uses_the_template_of_the_model(
    without_template: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "tunesmith"):
        run = {"output_dir": str(tmp_path / "out"), "do_train": True, "max_steps": 1, "use_cpu": True}
        tunesmith.train(keys(without_template, tiny_data, **run))
    assert NOTICE.format("qwen") in caplog.messages


def test_chat_uses_the_template_of_the_model(without_template: Path) -> None:
    config = tunesmith.load_config({"model_name_or_path": str(without_template), "use_cpu": True}, verb="chat")
    with make_engine(config) as engine:
        assert engine.renderer.name == "qwen"


@pytest.mark.parametrize(
    ("name", "change", "template"),
    [
        ("Qwen2.5-0.5B-Instruct", {}, "qwen"),
        ("mine", {"_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"}, "qwen"),
        ("mine", {}, "default"),
    ],
)
def test_preview_says_which_template_it_uses(
    without_template: Path,
    tiny_data: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    change: dict[str, str],
    template: str,
) -> None:
    folder = without_template.rename(without_template.with_name(name))
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | change))
    words = [f"{key}={value}" for key, value in keys(folder, tiny_data).items()]
    assert main(["data", "preview", *words, "--rows", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["template"] == template


def test_the_model_s_own_template_comes_first(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "Qwen2.5-0.5B-Instruct")
    config = tunesmith.load_config({"model_name_or_path": str(folder), "use_cpu": True}, verb="chat")
    with make_engine(config) as engine:
        assert engine.renderer.name == "auto"
