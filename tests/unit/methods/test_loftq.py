"""LoftQ as a beginning: what rounding took from the weights is in the adapter, on every quantizer that trains it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from tests.quantized_bases import plain_base
from tunesmith import load_config
from tunesmith.config.method import MethodConfig
from tunesmith.core.errors import ConfigError, UsageError
from tunesmith.methods import METHODS
from tunesmith.methods.base import Given
from tunesmith.methods.loftq import SavedWeights
from tunesmith.models.family import family_of
from tunesmith.models.quantization.plan import base_of

pytestmark = pytest.mark.usefixtures("torch_one_thread")

IDS = torch.arange(3, 60)[None]
WHOLE = {"(q|o)_proj": 64, "(gate|up|down)_proj": 64}  # as many ranks as the layers of stories260K have
ASKED = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "init_lora_weights": "loftq"}


def begun(model: Any, **settings: Any) -> Any:
    from tunesmith.models.quantization.bitsandbytes import mend_layers

    mend_layers(model)
    config = MethodConfig(**{"init_lora_weights": "loftq", **settings})
    return METHODS.get("lora")(config).apply(model, Given(family_of("llama"))).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(IDS).logits
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bnb4", "bnb4-fp4", "hqq2", "hqq3", "hqq4", "torchao", "torchao-fp8"])
def test_with_all_ranks_the_model_is_as_it_was(stories: Path, kind: str) -> None:
    whole, rounded = logits(plain_base(stories, "none")), logits(plain_base(stories, kind))
    few = begun(plain_base(stories, kind), lora_rank=16, use_rslora=True)
    all_ranks = begun(plain_base(stories, kind), lora_rank=32, rank_pattern=WHOLE)
    lost, left = (rounded - whole).norm(), (logits(few) - whole).norm()
    assert lost > 1e-3 * whole.norm()
    assert left < 0.9 * lost
    torch.testing.assert_close(logits(all_ranks), whole, rtol=0, atol=2e-3 * float(whole.abs().max()))


class _OnCpu(TorchFunctionMode):
    """PEFT's function moves weights to a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if kwargs.get("device") in ("cuda", "xpu"):
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


def test_it_is_what_peft_finds(stories: Path) -> None:
    """PEFT leaves the scaling out of sight, so here it is 1."""
    from peft import replace_lora_weights_loftq

    ours = begun(plain_base(stories, "bnb4"), lora_rank=8, lora_alpha=8)
    theirs = begun(plain_base(stories, "bnb4"), lora_rank=8, lora_alpha=8, init_lora_weights="default")
    with _OnCpu():
        replace_lora_weights_loftq(theirs, str(stories))
    found = dict(theirs.named_parameters())
    names = [name for name in found if "lora_A" in name]
    assert len(names) == 35
    for name in names:
        other = name.replace("lora_A", "lora_B")
        now = dict(ours.named_parameters())
        torch.testing.assert_close(now[other] @ now[name], found[other] @ found[name], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_what_is_saved_is_a_plain_adapter_of_the_same_base(stories: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    made = begun(plain_base(stories, "bnb4"))
    made.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["init_lora_weights"] is True
    again = PeftModel.from_pretrained(plain_base(stories, "bnb4"), tmp_path)
    torch.testing.assert_close(logits(again), logits(made), rtol=0, atol=0)


def test_weights_are_found_under_other_beginnings(tmp_path: Path) -> None:
    weights = {"model.language.layers.1.q.weight": torch.ones(2), "model.vision.layers.1.q.weight": torch.zeros(2)}
    save_file(weights, tmp_path / "one.safetensors")
    index = {"weight_map": dict.fromkeys(weights, "one.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    saved = SavedWeights(str(tmp_path), {})
    assert saved.read("language.layers.1.q.weight").equal(torch.ones(2))
    for name in ("layers.1.q.weight", "model.language.layers.2.q.weight"):  # two of them, or none
        with pytest.raises(UsageError) as caught:
            saved.read(name)
        assert caught.value.problems[0].code == "E-METHOD-022"


@pytest.mark.slow
def test_what_it_cannot_begin_with_is_told(stories: Path, tmp_path: Path) -> None:
    def refused(model: Any, **settings: Any) -> None:
        with pytest.raises(UsageError) as caught:
            begun(model, **settings)
        (problem,) = caught.value.problems
        assert (problem.code, bool(problem.fix)) == ("E-METHOD-022", True)

    refused(plain_base(stories, "none"))  # nothing is rounded
    refused(plain_base(stories, "bnb4"), lora_rank=33)
    other = tmp_path / "other"
    shutil.copytree(stories, other)
    held = load_file(other / "model.safetensors")
    models = [plain_base(other, "bnb4") for _ in range(2)]
    save_file({name: torch.randn_like(value) for name, value in held.items()}, other / "model.safetensors")
    refused(models[0])  # not what the layers were rounded from
    (other / "model.safetensors").unlink()
    refused(models[1])


def test_nothing_to_begin_with_is_told_before_the_weights_are_read(stories: Path, tmp_path: Path) -> None:
    def code(**keys: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load_config({**ASKED, **keys})
        return [problem.code for problem in caught.value.problems]

    assert code() == ["E-CONFIG-021"]
    assert code(quantization_bit=4, use_dora=True) == ["E-CONFIG-021"]
    config = json.loads((stories / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load_config({**ASKED, "model_name_or_path": str(tmp_path), "quantization_bit": 4})
    with pytest.raises(UsageError) as caught:
        base_of(loaded, "cpu")
    assert caught.value.problems[0].code == "E-QUANT-002"


@pytest.mark.parametrize(("begins", "words"), [("pissa", "convert pissa-init"), ("olora", "init_lora_weights: loftq")])
def test_other_beginnings_on_a_quantized_base_say_what_to_write(begins: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({**ASKED, "init_lora_weights": begins, "quantization_bit": 4})
    (problem,) = caught.value.problems
    assert problem.code == "E-QUANT-002"
    assert words in str(problem.fix)
