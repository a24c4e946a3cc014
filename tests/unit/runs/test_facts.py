"""What identifies a model, a config and an installation."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tunesmith.config import load_config
from tunesmith.runs.facts import config_digest, model_facts, revision_of, versions

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_versions_are_those_of_the_installed_packages() -> None:
    found = versions()
    assert (found["numpy"], found["torch"]) == (version("numpy"), version("torch"))
    assert {"tunesmith", "python", "transformers", "peft", "accelerate", "tokenizers"} <= found.keys()


def test_the_digest_of_a_config_follows_values_and_not_their_order() -> None:
    assert config_digest({"a": 1, "b": 0.1}) == config_digest({"b": 0.1, "a": 1})
    assert config_digest({"a": 1}) != config_digest({"a": 1.5})


def test_the_revision_of_a_repository_is_its_commit_in_the_cache(tmp_path: Path) -> None:
    """The layout is that of the hub's cache: a file with the commit of a branch, and a folder for each commit."""
    repository = tmp_path / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert revision_of("owner/name", "main", str(tmp_path)) == COMMIT
    assert revision_of("owner/other", "main", str(tmp_path)) is None


def test_the_revision_of_a_folder_follows_shapes_and_config(tmp_path: Path) -> None:
    def folder(name: str, config: dict[str, int], rows: int, fill: float) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
        (tmp_path / name / "README.md").write_text(name)
        save_file({"w": np.full((rows, 2), fill, np.float32)}, tmp_path / name / "model.safetensors")
        return str(tmp_path / name)

    first = revision_of(folder("a", {"x": 1}, 2, 0.0))
    assert first is not None
    assert first.startswith("sha256:")
    assert revision_of(folder("b", {"x": 1}, 2, 0.0)) == first
    assert revision_of(folder("c", {"x": 2}, 2, 0.0)) != first
    assert revision_of(folder("d", {"x": 1}, 3, 0.0)) != first


def test_adapters_that_a_run_begins_with_are_named(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    keys = {"model_name_or_path": str(tiny_model), "adapter_name_or_path": str(tmp_path), "finetuning_type": "lora"}
    found = model_facts(load_config({**keys, "dataset": "x.jsonl", "output_dir": "out"}, verb="train"))
    assert found["name"] == str(tiny_model)
    assert found["adapters"] == [{"name": str(tmp_path), "revision": revision_of(str(tmp_path))}]
