"""Weights in groups of the same settings: weight decay, LoRA+, `lr_groups`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.optimizer_runs import asked, tiny_llama
from tunesmith.core.errors import UsageError


def by_name(model: Any, **keys: Any) -> dict[str, dict[str, Any]]:
    """Settings of each trained weight."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    return {
        names[id(weight)]: {key: value for key, value in group.items() if key != "params"}
        for group in asked(model, **keys).groups()
        for weight in group["params"]
    }


def with_adapter() -> Any:
    from peft import LoraConfig, get_peft_model

    targets = ["q_proj", "embed_tokens"]
    return get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=targets, modules_to_save=["norm"]))


def test_the_first_pattern_that_fits_holds() -> None:
    groups = {
        r"\.layers\.0\.": {"lr_factor": 0.1},
        r"mlp": {"lr": 5e-4, "weight_decay": 0.3},
        r"embed": {"weight_decay": 0.2},
    }
    model = tiny_llama()
    found = by_name(model, lr_groups=groups)
    assert found["model.layers.0.mlp.up_proj.weight"] == {"lr": pytest.approx(1e-3), "weight_decay": 0.0}
    assert found["model.layers.1.mlp.up_proj.weight"] == {"lr": 5e-4, "weight_decay": 0.3}
    assert found["model.embed_tokens.weight"] == {"weight_decay": 0.2}
    assert found["model.layers.1.self_attn.q_proj.weight"] == {"weight_decay": 0.0}
    assert len(found) == len(list(model.parameters()))
    for pattern, words in (("nothing", "is of no trained weight"), (r"layers\.0\.mlp", "that an earlier one leaves")):
        with pytest.raises(UsageError, match=words) as caught:
            by_name(model, lr_groups={**groups, pattern: {"lr": 1.0}})
        assert caught.value.code == "E-OPTIM-012"


def test_b_matrices_learn_faster() -> None:
    """The groups are those of PEFT, but for embeddings: both of its matrices have the rate of embeddings there, and B
    alone here, as in LlamaFactory."""
    import torch
    from peft.optimizers import create_loraplus_optimizer

    model = with_adapter()
    keys = {"finetuning_type": "lora", "loraplus_lr_ratio": 16.0, "loraplus_lr_embedding": 1e-5}
    found = by_name(model, **keys)
    theirs = create_loraplus_optimizer(
        model=model, optimizer_cls=torch.optim.AdamW, lr=1e-2, loraplus_lr_ratio=16.0, loraplus_lr_embedding=1e-5
    )
    names = {id(weight): name for name, weight in model.named_parameters()}
    rates = {names[id(one)]: group["lr"] for group in theirs.param_groups for one in group["params"]}
    assert rates.keys() == found.keys()
    for name, rate in rates.items():
        if "lora_embedding_A" not in name:
            assert found[name].get("lr", 1e-2) == pytest.approx(rate), name
    (embedding,) = [settings for name, settings in found.items() if "lora_embedding_B" in name]
    assert embedding["lr"] == 1e-5


def test_without_any_the_groups_are_those_of_transformers() -> None:
    model = tiny_llama()
    ask = asked(model)
    groups = type(ask)(ask.config, model, {**ask.adam, "weight_decay": 0.1}, ask.decays, ask.inside).groups()
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert [len(group["params"]) for group in groups] == [3 * 7 + 2, 3 * 2 + 1]


@pytest.mark.parametrize("name", ["use_muon", "use_galore", "use_adam_mini"])
def test_patterns_go_with_every_optimizer(name: str) -> None:
    from tests.optimizer_runs import made

    model = tiny_llama()
    optimizer = made(model, **{name: True}, lr_groups={"mlp": {"lr": 0.0, "weight_decay": 0.0}})
    rates = {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}
    for key, weight in model.named_parameters():
        assert rates[id(weight)] == (0.0 if "mlp" in key else 1e-2)
