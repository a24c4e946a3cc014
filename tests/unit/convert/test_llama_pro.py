"""New layers change nothing until they are trained, and config.json tells which they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import tiny_model
from tunesmith.convert.llama_pro import expand, expanded_layers, origins
from tunesmith.convert.weights import open_weights
from tunesmith.core.errors import DataError, OutputError, UsageError

IDS = torch.arange(3, 40)[None]


def make(folder: Path, model_type: str, **changes: Any) -> Any:
    model = tiny_model(model_type, None, **changes)
    model.save_pretrained(folder)
    return model


def larger(folder: Path, num_expand: int, *, check: bool = True) -> dict[str, Any]:
    target = folder.with_name("larger")
    return expand(folder, target, num_expand, max_shard_size=20_000, check=check, progress=lambda done, total: None)


def load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_new_layers_lie_evenly_behind_what_they_copy() -> None:
    assert origins(4, 2) == [0, 1, 1, 2, 3, 3]
    assert expanded_layers(4, 2) == [2, 5]
    assert expanded_layers(3, 3) == [1, 3, 5]
    # LlamaFactory's rule for what is trained: of 40 layers with 8 new ones every fifth.
    assert expanded_layers(32, 8) == list(range(4, 40, 5))


@pytest.mark.parametrize("num_expand", [1, 2, 4])
def test_logits_are_the_same_to_the_last_bit(num_expand: int, tmp_path: Path) -> None:
    model = make(tmp_path / "model", "llama", num_hidden_layers=4)
    found = larger(tmp_path / "model", num_expand)
    assert found["logits_moved"] == 0.0
    after = load(tmp_path / "larger")
    assert after.config.num_hidden_layers == 4 + num_expand
    assert after.config.llama_pro == {"expanded_layers": found["expanded_layers"]}
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, after(input_ids=IDS).logits)


def test_a_new_layer_is_the_copy_but_for_its_ways_out(tmp_path: Path) -> None:
    make(tmp_path / "model", "llama", num_hidden_layers=2)
    larger(tmp_path / "model", 1)
    weights = dict(open_weights(tmp_path / "larger"))
    for name in [name for name in weights if name.startswith("model.layers.2.")]:
        copied = weights[name.replace("layers.2", "layers.1")]
        zero = "o_proj" in name or "down_proj" in name
        assert torch.equal(weights[name], torch.zeros_like(copied) if zero else copied)


def test_what_a_config_says_of_each_layer_is_said_of_the_new_ones(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    model = make(tmp_path / "model", "qwen3", num_hidden_layers=4, layer_types=kinds, sliding_window=5)
    larger(tmp_path / "model", 4)
    after = load(tmp_path / "larger")
    assert after.config.layer_types == [kind for kind in kinds for _ in range(2)]
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, after(input_ids=IDS).logits)


@pytest.mark.slow
def test_dense_layers_at_the_beginning_stay_dense(tmp_path: Path) -> None:
    model = make(tmp_path / "model", "deepseek_v3", num_hidden_layers=2, first_k_dense_replace=1)
    larger(tmp_path / "model", 2)
    after = load(tmp_path / "larger")
    assert after.config.first_k_dense_replace == 2
    with torch.no_grad():
        moved = (model(input_ids=IDS).logits - after(input_ids=IDS).logits).abs().max()
    assert float(moved) < 1e-5


@pytest.mark.slow
def test_only_the_new_layers_have_to_learn(tmp_path: Path) -> None:
    make(tmp_path / "model", "llama", num_hidden_layers=2)
    new = larger(tmp_path / "model", 2)["expanded_layers"]
    model = load(tmp_path / "larger").train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(f".{layer}." in name for layer in new))
    optimizer = torch.optim.Adam([one for one in model.parameters() if one.requires_grad], lr=1e-2)
    losses = []
    for _ in range(10):
        loss = model(input_ids=IDS, labels=IDS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    ("model_type", "num_expand", "said"), [("llama", 3, "2 layers"), ("ctrl", 1, "model_type ctrl")]
)
def test_what_cannot_be_expanded_is_refused(model_type: str, num_expand: int, said: str, tmp_path: Path) -> None:
    make(tmp_path / "model", model_type)
    with pytest.raises(UsageError) as caught:
        larger(tmp_path / "model", num_expand)
    assert caught.value.code == "E-CONVERT-012"
    assert said in str(caught.value.problems[0].got)


def test_a_config_of_another_model_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "model", "llama")
    file = tmp_path / "model" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": 3}))
    with pytest.raises(DataError) as caught:
        larger(tmp_path / "model", 3)
    assert (caught.value.code, caught.value.problems[0].got) == ("E-CONVERT-008", "model.layers: 2")


def test_a_model_that_answers_otherwise_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.convert.llama_pro.BLOCK_OUTPUTS", frozenset({"o_proj"}))
    make(tmp_path / "model", "llama")
    with pytest.raises(OutputError) as caught:
        larger(tmp_path / "model", 1)
    assert caught.value.code == "E-CONVERT-011"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    larger(tmp_path / "model", 1, check=False)
    assert (tmp_path / "larger" / "config.json").exists()
