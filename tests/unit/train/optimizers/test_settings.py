"""What keys do to an optimizer, and that it goes on to the bit from what a checkpoint holds."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.optimizer_runs import made, tiny_llama, train
from tunesmith.checkpoints.states import load_tree, save_tree
from tunesmith.core.errors import UsageError
from tunesmith.train.optimizer_in_backward import StepInBackward
from tunesmith.train.optimizers.parts import hidden_matrices, layers_of, outer_weights, target_matrices

pytestmark = pytest.mark.usefixtures("torch_one_thread")

CASES: dict[str, dict[str, Any]] = {
    "galore": {"use_galore": True, "galore_rank": 3, "galore_update_interval": 3},
    "galore-full": {"use_galore": True, "galore_rank": 3, "galore_update_interval": 2, "galore_proj_type": "full"},
    "apollo": {"use_apollo": True, "apollo_rank": 2, "apollo_update_interval": 3},
    "apollo-svd": {"use_apollo": True, "apollo_rank": 2, "apollo_update_interval": 3, "apollo_proj": "svd"},
    "apollo-mini": {"use_apollo": True, "apollo_rank": 1, "apollo_scale_type": "tensor", "apollo_scale": 128.0},
    "badam": {"use_badam": True, "badam_switch_interval": 3, "badam_switch_mode": "random"},
    "badam-adjacent": {"use_badam": True, "badam_mode": "ratio", "badam_switch_interval": 3},
    "badam-scatter": {"use_badam": True, "badam_mode": "ratio", "badam_mask_mode": "scatter"},
    "adam_mini": {"use_adam_mini": True},
    "muon": {"use_muon": True},
    "lion": {"optim": "lion"},
    "soap": {"optim": "soap", "optim_args": "precondition_frequency=3"},
    "stable_adamw": {"optim": "stable_adamw"},
    "schedule_free_adamw": {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"},
    "schedule_free_sgd": {"optim": "schedule_free_sgd", "lr_scheduler_type": "constant"},
    "schedule_free_radam": {"optim": "schedule_free_radam", "lr_scheduler_type": "constant"},
}


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_in_between_changes_no_bit(name: str, tmp_path: Path) -> None:
    whole, stopped = tiny_llama(), tiny_llama()
    train(whole, made(whole, **CASES[name]), 8)
    before = made(stopped, **CASES[name])
    train(stopped, before, 5)
    if hasattr(before, "eval"):
        before.eval()
    save_tree(tmp_path, "optimizer", before.state_dict())
    again = tiny_llama()
    again.load_state_dict(copy.deepcopy(stopped.state_dict()))
    after = made(again, **CASES[name])
    after.load_state_dict(load_tree(tmp_path, "optimizer"))
    train(again, after, 3, begin=5)
    for (key, weight), same in zip(whole.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(weight, same), key


@pytest.mark.parametrize("name", [name for name in CASES if name != "badam"])
def test_steps_in_backward_give_the_same_bits(name: str) -> None:
    after, within = tiny_llama(), tiny_llama()
    train(after, made(after, **CASES[name]), 5)
    optimizer = made(within, **CASES[name])
    train(within, optimizer, 5, after=StepInBackward(optimizer).take_norm)
    for weight, same in zip(after.parameters(), within.parameters(), strict=True):
        assert torch.equal(weight, same)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_half_precision_keeps_types_and_learns(name: str) -> None:
    model = tiny_llama().bfloat16()
    losses = train(model, made(model, **CASES[name]), 20)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert sum(losses[-5:]) < sum(losses[:5])


def test_settings_of_galore() -> None:
    model = tiny_llama()
    optimizer = made(model, use_galore=True, galore_rank=3, galore_update_interval=2, galore_target="mlp,q_proj")
    assert (optimizer.rank, optimizer.interval, optimizer.scale, optimizer.kind) == (3, 2, 2.0, "std")
    train(model, optimizer, 1)
    states = {name: optimizer.state[weight] for name, weight in model.named_parameters()}
    layer = "model.layers.0."
    assert states[layer + "mlp.up_proj.weight"]["inner"]["exp_avg"].shape == (24, 3)
    assert states[layer + "mlp.down_proj.weight"]["inner"]["exp_avg"].shape == (3, 24)
    assert states[layer + "self_attn.q_proj.weight"]["right"].shape == (3, 16)
    assert states[layer + "self_attn.v_proj.weight"]["inner"]["exp_avg"].shape == (8, 16), "no target"
    first = states[layer + "mlp.up_proj.weight"]["right"]
    train(model, optimizer, 1, begin=1)
    assert optimizer.state[model.model.layers[0].mlp.up_proj.weight]["right"] is first
    train(model, optimizer, 1, begin=2)
    assert optimizer.state[model.model.layers[0].mlp.up_proj.weight]["right"] is not first
    sides = {}
    for kind in ("std", "reverse_std", "left", "right", "full"):
        other = tiny_llama()
        changed = made(other, use_galore=True, galore_rank=3, galore_proj_type=kind, galore_scale=0.5)
        assert changed.scale == 0.5
        train(other, changed, 1)
        sides[kind] = changed.state[other.model.layers[0].mlp.up_proj.weight]["inner"]["exp_avg"].shape
    assert sides == {"std": (24, 3), "reverse_std": (3, 16), "left": (3, 16), "right": (24, 3), "full": (3, 3)}


def test_settings_of_apollo() -> None:
    model = tiny_llama()
    keys = {"apollo_rank": 2, "apollo_update_interval": 2, "apollo_target": "mlp", "apollo_scale": 4.0}
    optimizer = made(model, use_apollo=True, **keys, apollo_proj="svd", apollo_proj_type="left")
    assert (optimizer.interval, optimizer.scale, optimizer.scale_type) == (2, 4.0, "channel")
    train(model, optimizer, 1)
    mlp, attention = model.model.layers[0].mlp.up_proj.weight, model.model.layers[0].self_attn.q_proj.weight
    assert optimizer.state[mlp]["exp_avg"].shape == (2, 16)
    assert optimizer.state[mlp]["left"].shape == (24, 2)
    assert optimizer.state[attention]["exp_avg"].shape == (16, 16), "no target"
    moved = {}
    for scale_type in ("channel", "tensor"):
        other = tiny_llama()
        begin = other.model.layers[0].mlp.up_proj.weight.detach().clone()
        random = made(other, use_apollo=True, apollo_scale_type=scale_type, apollo_rank=2)
        train(other, random, 1)
        assert not {"left", "right"} & random.state[other.model.layers[0].mlp.up_proj.weight].keys()
        moved[scale_type] = other.model.layers[0].mlp.up_proj.weight.detach() - begin
    assert not torch.allclose(moved["channel"], moved["tensor"], atol=1e-3)


def test_layers_take_turns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tunesmith")
    model = tiny_llama()
    names = dict(model.named_parameters())
    keys = {"badam_switch_interval": 2, "badam_switch_mode": "descending", "badam_start_block": 1, "badam_verbose": 2}
    optimizer = made(model, use_badam=True, badam_mode="layer", **keys)
    told = []
    for step in range(6):
        before = {name: weight.detach().clone() for name, weight in names.items()}
        active = {name for name, weight in names.items() if weight.requires_grad}
        train(model, optimizer, 1, begin=step)
        changed = {name for name, weight in names.items() if not torch.equal(weight, before[name])}
        assert changed == active
        (layer,) = {int(name.split(".")[2]) for name in changed}
        assert changed == {name for name in names if name.startswith(f"model.layers.{layer}.")}
        assert len(optimizer.state) in (0, len(changed)), "states of one block"
        told.append(layer)
    assert told == [1, 1, 0, 0, 2, 2]
    assert "BAdam trains block 0 of 3: model.layers.0" in caplog.text
    assert "weights have gradients and states" in caplog.text
    with pytest.raises(UsageError, match="badam_start_block: 0 to 2"):
        layers_of(tiny_llama(), 3)
    with pytest.raises(UsageError, match="badam_mode: ratio"):
        layers_of(torch.nn.Linear(2, 2), None)


@pytest.mark.parametrize("mask", ["adjacent", "scatter"])
def test_a_share_of_each_weight_trains(mask: str) -> None:
    model = tiny_llama()
    keys = {"badam_mode": "ratio", "badam_update_ratio": 0.25, "badam_mask_mode": mask, "badam_switch_interval": 2}
    optimizer = made(model, use_badam=True, **keys)
    weight = model.model.layers[0].mlp.up_proj.weight
    begin, places = weight.detach().clone(), []
    for step in range(4):
        before = weight.detach().clone()
        train(model, optimizer, 1, begin=step)
        places.append((weight != before).flatten().nonzero().flatten())
        assert len(places[-1]) == weight.numel() // 4
        assert optimizer.state[weight]["inner"]["exp_avg"].numel() == weight.numel() // 4
    assert torch.equal(places[0], places[1])
    assert not torch.equal(places[1], places[2])
    gaps = (places[0].diff() > 1).sum()
    assert gaps <= 1 if mask == "adjacent" else gaps > 10  # one piece may go on at the beginning
    assert (weight != begin).sum() <= weight.numel() // 2
    assert not model.model.embed_tokens.weight.requires_grad
    assert not model.lm_head.weight.requires_grad


@pytest.mark.parametrize("name", ["muon", "adam_mini"])
def test_keys_and_names_ask_for_the_same(name: str) -> None:
    by_key, by_name = tiny_llama(), tiny_llama()
    train(by_key, made(by_key, **{f"use_{name}": True}), 3)
    train(by_name, made(by_name, optim=name), 3)
    for weight, same in zip(by_key.parameters(), by_name.parameters(), strict=True):
        assert torch.equal(weight, same)


def test_blocks_of_adam_mini_are_heads_rows_and_vectors() -> None:
    model = tiny_llama()
    optimizer = made(model, use_adam_mini=True)
    train(model, optimizer, 1)
    layer = model.model.layers[0]
    found = [
        optimizer.state[module.weight]["exp_avg_sq"].numel()
        for module in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj, layer.mlp.up_proj)
    ]
    assert found == [4, 2, 8, 24]
    assert optimizer.state[layer.input_layernorm.weight]["exp_avg_sq"].numel() == 1
    assert optimizer.state[model.model.embed_tokens.weight]["exp_avg_sq"].numel() == 31
    assert optimizer.state[model.lm_head.weight]["exp_avg_sq"].numel() == 31


def test_muon_takes_the_matrices_of_layers() -> None:
    model = tiny_llama()
    optimizer = made(model, use_muon=True)
    train(model, optimizer, 1)
    names = {name for name, weight in model.named_parameters() if "momentum" in optimizer.state[weight]}
    assert names == hidden_matrices(model)
    assert len(names) == 3 * 7
    assert outer_weights(model) == {"model.embed_tokens.weight", "lm_head.weight"}


def test_targets_are_parts_of_names() -> None:
    model = tiny_llama()
    assert target_matrices(model, ("all",), "galore_target") == hidden_matrices(model)
    found = target_matrices(model, ("mlp", "q_proj"), "galore_target")
    assert len(found) == 3 * 4
    with pytest.raises(UsageError, match="E-OPTIM-010") as caught:
        target_matrices(model, ("qproj",), "galore_target")
    assert "q_proj" in str(caught.value)
