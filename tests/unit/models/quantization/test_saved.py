"""How a checkpoint is quantized is told by its config, before its weights are read."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.quantized_checkpoints import claiming
from tunesmith.config import load_config
from tunesmith.config.quantizer_facts import ON_THE_FLY, QUANTIZERS
from tunesmith.core.errors import MachineError, MissingInputError, TunesmithError, UsageError
from tunesmith.models.quantization import available
from tunesmith.models.quantization.plan import base_of
from tunesmith.models.quantization.saved import saved_quantization

SAVED = sorted(QUANTIZERS.keys() - ON_THE_FLY.keys() - {"gguf"})


def config_of(folder: Path, verb: str = "train", **values: Any) -> Any:
    keys = {"model_name_or_path": str(folder), "dataset": "d", "output_dir": "o", "use_cpu": True}
    keys = keys if verb == "train" else {"model_name_or_path": str(folder)}
    return load_config({**keys, **values}, verb=verb)


def claimed(tiny_model: Path, folder: Path, **values: Any) -> Path:
    return claiming(tiny_model, folder / "model", **values)


def test_ordinary_weights_are_none(tiny_model: Path) -> None:
    assert base_of(config_of(tiny_model), "cpu") is None


@pytest.mark.parametrize("name", SAVED)
def test_every_kind_is_recognised(tiny_model: Path, name: str) -> None:
    class Settings:
        quantization_config = {"quant_method": name, "bits": 4}  # noqa: RUF012

    facts = QUANTIZERS[name]
    if facts.kept == "no":
        with pytest.raises(UsageError) as caught:
            saved_quantization(Settings, str(tiny_model))
        assert (caught.value.problems[0].code, caught.value.problems[0].fix) == ("E-QUANT-006", facts.instead)
        return
    found = saved_quantization(Settings, str(tiny_model))
    assert found is not None
    assert found.facts is facts
    assert str(found) == f"{name}, 4 bits"


@pytest.mark.parametrize(("values", "name"), [({"load_in_4bit": True}, "bnb4"), ({"load_in_8bit": True}, "bnb8")])
def test_bitsandbytes_says_its_bits(tiny_model: Path, tmp_path: Path, values: dict[str, Any], name: str) -> None:
    folder = claimed(tiny_model, tmp_path, quant_method="bitsandbytes", **values)
    base = base_of(config_of(folder), "cpu")
    assert base is not None
    assert base.facts is QUANTIZERS[name]


def test_an_unknown_kind_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        base_of(config_of(claimed(tiny_model, tmp_path, quant_method="new")), "cpu")
    assert caught.value.problems[0].code == "E-QUANT-006"
    assert "gptq" in str(caught.value)


@pytest.mark.parametrize(
    ("method", "keys", "code"),
    [
        ("gptq", {"finetuning_type": "full"}, "E-QUANT-002"),
        ("gptq", {"use_dora": True}, "E-QUANT-002"),
        ("vptq", {}, "E-QUANT-002"),
        ("gptq", {"adapter_name_or_path": "a,b"}, "E-QUANT-008"),
        ("gptq", {"adapter_name_or_path": "a", "create_new_adapter": True}, "E-QUANT-008"),
    ],
)
def test_what_does_not_train_on_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, keys: dict[str, Any], code: str
) -> None:
    monkeypatch.setattr(available, "package_version", lambda name: "99.0")
    folder = claimed(tiny_model, tmp_path, quant_method=method, bits=4)
    with pytest.raises(UsageError) as caught:
        base_of(config_of(folder, **keys), "cuda:0" if method == "vptq" else "cpu")
    assert caught.value.problems[0].code == code


def test_nothing_is_merged_into_it(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(available, "package_version", lambda name: "99.0")
    folder = claimed(tiny_model, tmp_path, quant_method="awq", bits=4)
    with pytest.raises(UsageError) as caught:
        base_of(config_of(folder, "export", adapter_name_or_path="a", export_dir="e"), "cpu")
    assert caught.value.problems[0].code == "E-QUANT-008"


def test_a_missing_package_is_told_first(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        base_of(config_of(claimed(tiny_model, tmp_path, quant_method="aqlm")), "cpu")
    assert caught.value.problems[0].code == "E-QUANT-004"


def test_bits_for_what_is_quantized_already_are_named(
    tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = claimed(tiny_model, tmp_path, quant_method="fp8")
    base = base_of(config_of(folder, quantization_bit=4), "cpu")
    assert str(base) == "fp8, 8 bits (of the checkpoint, dequantized)"
    assert "without effect: quantization_bit" in caplog.text


def test_one_gguf_file_is_read_and_several_are_not(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gguf"
    shutil.copytree(tiny_model, folder)
    (folder / "one.gguf").touch()
    assert base_of(config_of(folder), "cpu") is None  # the folder has other weights
    (folder / "model.safetensors").unlink()
    (folder / "two.gguf").touch()
    with pytest.raises(MissingInputError) as caught:
        base_of(config_of(folder), "cpu")
    assert caught.value.problems[0].code == "E-MODEL-027"


def test_what_is_quantized_while_loading(tiny_model: Path) -> None:
    texts = {
        ("bnb", 4): "bnb4 (nf4, double)",
        ("bitsandbytes", 8): "bnb8",
        ("hqq", 3): "hqq3",
        ("torchao", 8): "torchao_int8",
    }
    for (method, bits), text in texts.items():
        base = base_of(config_of(tiny_model, quantization_method=method, quantization_bit=bits), "cpu")
        assert str(base) == text
    with pytest.raises(TunesmithError) as caught:
        base_of(config_of(tiny_model, "chat", quantization_method="torchao", quantization_bit=4), "cpu")
    assert caught.value.problems[0].code == "E-QUANT-005"
