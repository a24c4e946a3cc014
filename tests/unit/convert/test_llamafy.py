"""A model in LLaMA's layout answers as the one it was made from, by a forward pass that is written out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.unit.convert import old_layouts as old
from tunesmith.convert.llamafy import llamafy
from tunesmith.convert.weights import open_weights
from tunesmith.core.errors import DataError, TunesmithError, UsageError

MODELS: dict[str, tuple[dict[str, Any], Callable[[], Any], Callable[..., Any]]] = {
    "llamafy-baichuan2": (old.BAICHUAN2, old.baichuan2_weights, old.baichuan2_logits),
    "llamafy-qwen": (old.QWEN, old.qwen_weights, old.qwen_logits),
}
IDS = torch.tensor([1, 5, 60, 5, 17, 33, 2, 9])


def write(folder: Path, settings: dict[str, Any], weights: dict[str, Any], *, shards: int = 1) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text("{}")
    names = list(weights)
    for number in range(shards):
        part = {name: weights[name] for name in names[number::shards]}
        if shards == 1:
            save_file(part, folder / "model.safetensors")
        else:
            torch.save(part, folder / f"pytorch_model-{number + 1:05}-of-{shards:05}.bin")
    return folder


def convert(kind: str, folder: Path, **options: Any) -> dict[str, Any]:
    settings = {"max_shard_size": 10_000, "progress": lambda done, total: None, **options}
    return llamafy(kind, folder, folder.with_name("new"), **settings)


def logits(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    with torch.no_grad():
        return model(input_ids=IDS[None]).logits[0]


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_the_old_layout(kind: str, shards: int, tmp_path: Path) -> None:
    settings, weights, reference = MODELS[kind]
    found = convert(kind, write(tmp_path / "old", settings, weights(), shards=shards))
    assert len(list((tmp_path / "new").glob("model-*.safetensors"))) > 2
    assert found["copied"] == ["tokenizer_config.json"]
    expected = reference(weights(), IDS)
    assert float((logits(tmp_path / "new") - expected).abs().max() / expected.abs().max()) < 1e-5
    kept = json.loads((tmp_path / "new" / "config.json").read_text())
    assert (kept["model_type"], "auto_map" in kept) == ("llama", False)


def test_types_of_numbers_stay(tmp_path: Path) -> None:
    half = {name: one.bfloat16() for name, one in old.qwen_weights().items()}
    convert("llamafy-qwen", write(tmp_path / "old", old.QWEN, half))
    assert {entry.dtype for entry in open_weights(tmp_path / "new").entries.values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == "bfloat16"


def test_qwen_with_all_biases(tmp_path: Path) -> None:
    weights = old.qwen_weights()
    generator = torch.Generator().manual_seed(5)
    extra = {}
    for name in [name for name in weights if name.endswith(("c_proj.weight", "w1.weight", "w2.weight"))]:
        extra[name.removesuffix("weight") + "bias"] = torch.randn(len(weights[name]), generator=generator)
    convert("llamafy-qwen", write(tmp_path / "old", {**old.QWEN, "no_bias": False}, weights | extra))
    expected = old.qwen_logits(weights | extra, IDS)
    assert float((logits(tmp_path / "new") - expected).abs().max() / expected.abs().max()) < 1e-5


def test_tied_weights_are_written_once(tmp_path: Path) -> None:
    weights = old.qwen_weights()
    weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
    convert("llamafy-qwen", write(tmp_path / "old", {**old.QWEN, "tie_word_embeddings": True}, weights))
    expected = old.qwen_logits(weights, IDS)
    assert float((logits(tmp_path / "new") - expected).abs().max() / expected.abs().max()) < 1e-5


def changed(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in {**old.BAICHUAN2, **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("kind", "settings", "code", "said"),
    [
        ("llamafy-baichuan2", changed(max_position_embeddings=None), "E-CONVERT-015", "ALiBi"),
        ("llamafy-baichuan2", changed(vocab_size=64000), "E-CONVERT-015", "Baichuan 1"),
        ("llamafy-baichuan2", changed(tie_word_embeddings=True), "E-CONVERT-015", "normalised"),
        ("llamafy-baichuan2", changed(intermediate_size=None), "E-CONVERT-008", "intermediate_size"),
        ("llamafy-baichuan2", old.QWEN, "E-CONVERT-007", "model_type qwen"),
        ("llamafy-baichuan2", changed(quantization_config={"quant_method": "gptq"}), "E-CONVERT-016", "gptq"),
        ("llamafy-qwen", {**old.QWEN, "rotary_pct": 0.5}, "E-CONVERT-015", "whole head"),
        ("llamafy-qwen", {**old.QWEN, "visual": {}}, "E-CONVERT-015", "pictures"),
    ],
)
def test_what_llama_cannot_do_is_refused(kind: str, settings: Any, code: str, said: str, tmp_path: Path) -> None:
    with pytest.raises((UsageError, DataError)) as caught:
        convert(kind, write(tmp_path / "old", settings, old.baichuan2_weights()))
    assert caught.value.code == code
    assert said in str(caught.value.problems[0].got)
    assert not (tmp_path / "new").exists()


def break_it(weights: dict[str, Any], how: str) -> dict[str, Any]:
    name = "transformer.h.1.attn.c_attn.weight"
    if how == "missing":
        weights.pop(name)
    elif how == "unknown":
        weights["transformer.h.1.attn.logn"] = torch.ones(3)
    elif how == "shape":
        weights[name] = weights[name][:, :-1].contiguous()
    elif how == "thirds":
        weights[name] = weights[name][:-1].contiguous()
    elif how == "frequencies":
        weights["transformer.rotary_emb.inv_freq"] = torch.tensor([1.0, 0.3, 0.01, 0.001])
    return weights


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("missing", "model.layers.1.self_attn.q_proj.weight: no weight"),
        ("unknown", "transformer.h.1.attn.logn"),
        ("shape", "config.json asks for"),
        ("thirds", "three equal parts"),
        ("frequencies", "inv_freq"),
    ],
)
def test_weights_that_do_not_fit_are_refused_before_anything_is_written(how: str, said: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "old", old.QWEN, break_it(old.qwen_weights(), how))
    with pytest.raises(TunesmithError) as caught:
        convert("llamafy-qwen", folder)
    assert caught.value.code == "E-CONVERT-008"
    assert any(said in str(one.got) for one in caught.value.problems), caught.value
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_frequencies_that_llama_computes_itself_are_left_out(tmp_path: Path) -> None:
    weights = old.baichuan2_weights()
    for layer in range(old.LAYERS):  # as published checkpoints hold them
        frequencies = old.BASE ** -(torch.arange(0, 8, 2) / 8)
        weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = frequencies.half()
    convert("llamafy-baichuan2", write(tmp_path / "old", old.BAICHUAN2, weights))
    expected = old.baichuan2_logits(weights, IDS)
    assert float((logits(tmp_path / "new") - expected).abs().max() / expected.abs().max()) < 1e-5
