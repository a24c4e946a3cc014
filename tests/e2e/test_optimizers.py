"""Runs with every optimizer: the loss falls, and a resume in between changes no bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.run_logs import column, curve, same_weights
from tunesmith.config.optimizer_facts import OPTIMIZERS
from tunesmith.core.errors import MachineError

Run = Callable[..., Any]
pytestmark = pytest.mark.slow

# Rates for a step size like that of AdamW at 1e-3, and settings that change something within eight steps.
KEYS: dict[str, dict[str, Any]] = {
    "sgd": {"learning_rate": 0.1, "optim_args": "momentum=0.9"},
    "adagrad": {"learning_rate": 1e-2},
    "lion": {"learning_rate": 3e-4},
    "soap": {"optim_args": "precondition_frequency=3"},
    "galore": {"galore_rank": 4, "galore_update_interval": 3, "learning_rate": 3e-3},
    "apollo": {"apollo_rank": 4, "apollo_update_interval": 3},
    "badam": {"badam_switch_interval": 3, "badam_switch_mode": "random", "learning_rate": 3e-3},
    "badam_ratio": {"badam_switch_interval": 3, "badam_mode": "ratio", "badam_update_ratio": 0.3},
    "schedule_free_sgd": {"learning_rate": 1.0},
    "schedule_free_radam": {"learning_rate": 5e-3, "num_train_epochs": 3},
}
THEIRS = [name for name, facts in OPTIMIZERS.items() if not facts.ours and not facts.gpu_only]


@contextmanager
def quiet_optimizers() -> Iterator[None]:
    """torchao's states lack a way to be cached by the compiler; bitsandbytes has nothing to page on a processor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script_method", DeprecationWarning)
        for words in (".*_stable_hash_for_caching", "Paged optimizers are not supported on CPU"):
            warnings.filterwarnings("ignore", words, UserWarning)
        yield


@pytest.fixture(autouse=True)
def _words_of_others() -> Iterator[None]:
    with quiet_optimizers():
        yield


def keys_of(name: str) -> dict[str, Any]:
    asked = dict(part.split(": ") for part in OPTIMIZERS[name].asked.split(", "))
    found: dict[str, Any] = {key: True if value == "true" else value for key, value in asked.items()}
    schedule = {"lr_scheduler_type": "constant"} if OPTIMIZERS[name].averages else {}
    rate = 3e-4 if "lion" in name else 1e-3
    return {"finetuning_type": "full", "learning_rate": rate, **found, **schedule, **KEYS.get(name, {})}


def resumes(train: Run, folder: Path, keys: dict[str, Any]) -> Any:
    """A run, which equals one that goes on from its fifth step."""
    whole = train(output_dir=str(folder / "whole"), save_strategy="steps", save_steps=5, **keys)
    checkpoint = whole.output_dir / "checkpoint-5"
    resumed = train(output_dir=str(folder / "resumed"), resume_from_checkpoint=str(checkpoint), **keys)
    assert same_weights(whole, resumed)
    assert curve(whole)[5:] == curve(resumed)
    return whole


@pytest.mark.parametrize("name", [name for name, facts in OPTIMIZERS.items() if facts.ours])
def test_ours_learn_and_resume(train: Run, tmp_path: Path, name: str) -> None:
    whole = resumes(train, tmp_path, {"max_steps": 10, **keys_of(name)})
    losses = [loss for loss, _ in curve(whole)]
    assert sum(losses[-3:]) < 0.97 * sum(losses[:3])


@pytest.mark.parametrize("name", THEIRS)
def test_theirs_learn_and_resume(run: Run, tmp_path: Path, name: str) -> None:
    whole = resumes(run, tmp_path, {"max_steps": 7, **keys_of(name)})
    losses = [loss for loss, _ in curve(whole)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("name", [name for name, facts in OPTIMIZERS.items() if facts.gpu_only])
def test_what_needs_a_gpu_says_so(run: Run, name: str) -> None:
    with pytest.raises(MachineError, match="E-OPTIM-014"):
        run(**keys_of(name))


@pytest.mark.parametrize(
    ("name", "inside"),
    [
        (name, inside)
        for name in ("galore", "apollo")
        for inside in ("adamw_torch", "adafactor", "adamw_8bit")
        if inside in OPTIMIZERS[name].runs
    ],
)
def test_layerwise_gives_the_same_bits(run: Run, tmp_path: Path, name: str, inside: str) -> None:
    keys = {**keys_of(name), "optim": inside, "warmup_steps": 2, "weight_decay": 0.1}
    after = run(output_dir=str(tmp_path / "after"), max_grad_norm=0, **keys)
    within = run(output_dir=str(tmp_path / "within"), **{f"{name}_layerwise": True}, **keys)
    assert same_weights(after, within)
    assert column(after, "lr") == column(within, "lr")


def test_a_layerwise_run_resumes(run: Run, tmp_path: Path) -> None:
    resumes(run, tmp_path, {"max_steps": 7, "galore_layerwise": True, **keys_of("galore")})


@pytest.mark.parametrize("name", ["badam", "galore"])
def test_a_checkpoint_in_the_background_is_the_same(run: Run, tmp_path: Path, name: str) -> None:
    """Of a block that trained before, too: it may change while it is written."""
    resumes(run, tmp_path, {"max_steps": 7, "async_save": True, **keys_of(name)})


def test_pure_bf16_blocks_resume(run: Run, tmp_path: Path) -> None:
    resumes(run, tmp_path, {"max_steps": 7, "pure_bf16": True, **keys_of("badam")})


def test_the_average_is_what_is_judged_and_saved(run: Run, tmp_path: Path) -> None:
    """A run that evaluates and saves goes the way of one that does not; what is saved is the mean of the steps."""
    from safetensors.torch import load_file

    from tunesmith.checkpoints.states import load_tree

    keys = {"max_steps": 6, **keys_of("schedule_free_adamw")}
    plain = run(output_dir=str(tmp_path / "plain"), **keys)
    looks = {"val_size": 0, "eval_dataset": "known", "eval_strategy": "steps", "eval_steps": 2}
    looked = run(output_dir=str(tmp_path / "looked"), save_strategy="steps", save_steps=3, **looks, **keys)
    assert same_weights(plain, looked)
    folder = looked.output_dir / "checkpoint-3"
    states = load_tree(folder, "optimizer")["state"]["state"].values()
    name = "model.layers.0.mlp.up_proj.weight"
    saved = load_file(folder / "model.safetensors")[name]
    (state,) = [one for one in states if one["y"].shape == saved.shape and (one["y"] - saved).abs().max() < 1e-2][:1]
    expected = state["y"].lerp(state["z"], 1 - 1 / 0.9)
    assert (saved - expected).abs().max() < 1e-6
    assert (saved - state["y"]).abs().max() > 1e-5


def test_groups_and_lora_plus_reach_every_optimizer(run: Run, tmp_path: Path) -> None:
    keys = {"loraplus_lr_ratio": 8.0, "lr_groups": {"layers\\.0\\.": {"lr": 0.0}}, "max_steps": 2}
    for name in ("adamw_torch", "muon", "adamw_8bit"):
        result = run(output_dir=str(tmp_path / name), optim=name, **keys)
        from safetensors.torch import load_file

        weights = load_file(result.output_dir / "adapter_model.safetensors")
        moved = {key for key, weight in weights.items() if "lora_B" in key and weight.any()}
        assert moved == {key for key in weights if "lora_B" in key and ".layers.0." not in key}
