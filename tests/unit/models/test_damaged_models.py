"""Model folders with something wrong in them: a code, what is wrong, and never a run on random or half-read weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.models.load import load

pytestmark = pytest.mark.usefixtures("torch_one_thread")

WEIGHTS = "model.safetensors"
TENSOR = "model.layers.0.mlp.up_proj.weight"


def settings(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def change_file(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, metadata={"format": "pt"})

    return change_file


def content(name: str, make: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(make((folder / name).read_bytes()))


def gguf(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "model.gguf")


class Program:
    """Unpickled, it would make a file."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("ran"),)


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({TENSOR: Program()}, folder / "pytorch_model.bin")


def shrunk(found: dict[str, torch.Tensor]) -> None:
    found[TENSOR] = found[TENSOR][:10].clone()


def half_a_model(folder: Path) -> None:
    names = list(load_file(folder / WEIGHTS))
    shards = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    (folder / WEIGHTS).rename(folder / "model-00001-of-00002.safetensors")
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))


CASES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "a tensor is missing": (tensors(lambda found: found.pop(TENSOR)), "E-MODEL-011", TENSOR),
    "another architecture": (settings(model_type="bert"), "E-MODEL-011", "config.json"),
    "a tensor of another shape": (tensors(shrunk), "E-MODEL-012", "shapes"),
    "another size of vocabulary": (settings(vocab_size=100), "E-MODEL-012", "shapes"),
    "a size beyond memory": (settings(hidden_size=10**9), "E-MODEL-012", "shapes"),
    "a shard is missing": (half_a_model, "E-MODEL-006", "model-00002-of-00002.safetensors"),
    "weights cut off": (content(WEIGHTS, lambda data: data[:5000]), "E-MODEL-012", "damaged"),
    "no bytes": (content(WEIGHTS, lambda data: b""), "E-MODEL-012", "damaged"),
    "a header of 2**60 bytes": (
        content(WEIGHTS, lambda data: (2**60).to_bytes(8, "little") + data[8:]),
        "E-MODEL-012",
        "header too large",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS).unlink(), "E-MODEL-006", "no file named"),
    "GGUF instead": (gguf, "E-MODEL-006", "GGUF"),
    "a program in a pickle": (pickled, "E-MODEL-013", "not read"),
    "an unknown architecture": (settings(model_type="frobnicate"), "E-MODEL-006", "frobnicate"),
    "a word for a number": (settings(num_hidden_layers="two"), "E-MODEL-003", "num_hidden_layers"),
    "config.json cut off": (content("config.json", lambda data: data[:40]), "E-MODEL-003", "config.json"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "E-MODEL-003", "tokenizer.json"),
    "tokenizer.json cut off": (content("tokenizer.json", lambda data: data[:500]), "E-MODEL-003", "tokenizer.json"),
    "tokenizer.json of something else": (content("tokenizer.json", lambda _: b'{"a": 1}'), "E-MODEL-003", "whole"),
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "E-MODEL-002", "config.json"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_damaged_model_is_refused(
    case: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage, code, said = CASES[case]
    shutil.copytree(tiny_model, "model")
    damage(Path("model"))
    with pytest.raises(TunesmithError) as caught:
        load(ModelConfig(model_name_or_path="./model"), dtype="float32")
    assert caught.value.code == code
    assert said in str(caught.value)
    assert "./model" in str(caught.value)
    assert not Path("ran").exists()


def test_weights_that_are_not_used_are_told(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    tensors(lambda found: found.update({"model.layers.9.mlp.up_proj.weight": torch.zeros(3)}))(folder)
    from tunesmith.core.log import get_logger

    monkeypatch.setattr(get_logger(), "propagate", True)
    with caplog.at_level("WARNING", logger="tunesmith"):
        load(ModelConfig(model_name_or_path=str(folder)), dtype="float32")
    assert "1 weights of the files are not used: model.layers.9.mlp.up_proj.weight" in caplog.text


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(TunesmithError) as caught:
        load(ModelConfig(model_name_or_path=str(tmp_path / "m.gguf")), dtype="float32")
    assert caught.value.code == "E-MODEL-001"
    assert "this is a file" in str(caught.value)


def test_a_hub_that_cannot_be_reached_is_said_to_be_so() -> None:
    with pytest.raises(TunesmithError) as caught:
        load(ModelConfig(model_name_or_path="nobody/no-such-model"), dtype="float32")
    assert (caught.value.code, caught.value.exit_code) == ("E-MODEL-014", 69)
