"""What `import tunesmith` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tunesmith


def test_the_list_of_public_names() -> None:
    assert tunesmith.__all__ == [
        "Conversation",
        "Message",
        "Problem",
        "RunConfig",
        "TunesmithError",
        "__version__",
        "chat",
        "compare",
        "evaluate_model",
        "export_model",
        "load_config",
        "predict",
        "score",
        "train",
    ]


@pytest.mark.parametrize("name", tunesmith.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(tunesmith, name) is not None
    assert name in dir(tunesmith)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        tunesmith.trian  # noqa: B018


@pytest.mark.slow
@pytest.mark.parametrize(
    "imports",
    ["import tunesmith", "import tunesmith.train.callbacks, tunesmith", "from tunesmith import train, load_config"],
)
def test_train_is_a_function_and_a_folder(imports: str) -> None:
    """Whichever of the two was imported first."""
    code = f"""{imports}
import sys
import tunesmith as package
assert callable(package.train)
assert package.train.__path__
assert "torch" not in sys.modules
try:
    package.train({{"no_such_key": 1}})
except package.TunesmithError as error:
    assert error.exit_code == 2
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_keywords_overrule_a_mapping_and_a_loaded_config() -> None:
    from tunesmith.api import as_config

    keys = {"model_name_or_path": "a/b", "dataset": "x.jsonl", "output_dir": "out", "hf_hub_token": "secret"}
    config = as_config(keys, {"seed": 7}, "train")
    assert config.train.hf["seed"] == 7
    assert as_config(config, {}, "train") is config
    again = as_config(config, {"learning_rate": 1e-3}, "train")
    assert again.train.hf["seed"] == 7
    assert again.train.hf["learning_rate"] == 1e-3
    assert again.model.hf_hub_token == "secret"


def test_a_training_config_stands_for_what_it_saved(tmp_path) -> None:
    from tunesmith.api import as_config, with_result

    keys = {"model_name_or_path": "a/b", "dataset": "x.jsonl", "output_dir": str(tmp_path)}
    config = as_config(keys, {}, "chat")
    assert with_result(config) is config  # nothing saved yet
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").touch()
    assert with_result(config).model.model_name_or_path == str(tmp_path)
    made = as_config({**keys, "train_from_scratch": True, "mixture_of_depths": "convert"}, {}, "chat")
    found = with_result(made).model
    assert (found.train_from_scratch, found.mixture_of_depths) == (False, None)  # what is saved is not made again
    (tmp_path / "adapter_config.json").touch()
    found = with_result(config).model
    assert (found.model_name_or_path, found.adapter_name_or_path) == ("a/b", (str(tmp_path),))
    named = as_config({**keys, "adapter_name_or_path": "other"}, {}, "chat")
    assert with_result(named) is named
