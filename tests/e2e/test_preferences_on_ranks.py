"""Runs on preferences in two processes: the curve, the metrics and the weights of one process, up to rounding."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.pairs import steps_of, write_feedback, write_stories
from tests.run_logs import log
from tests.two_ranks import TwoRanks

pytestmark = pytest.mark.slow

KINDS: dict[str, tuple[Callable[..., Path], dict[str, Any]]] = {
    "kto": (write_feedback, {"stage": "kto", "learning_rate": 2e-2}),
    "kto, all weights": (write_feedback, {"stage": "kto", "finetuning_type": "full", "learning_rate": 2e-3}),
    "bco": (write_feedback, {"stage": "kto", "kto_loss": "bco"}),
    "aot": (write_stories, {"stage": "dpo", "pref_loss": "aot"}),
    "rm": (write_stories, {"stage": "rm", "learning_rate": 3e-3}),
}
SHARES = {"kto": {"entropy", "rewards/margins"}, "dpo": {"rewards/margins"}, "rm": {"accuracy", "margin"}}
"""Some of the metrics that a step tells."""


def trained(keys: dict[str, Any]) -> Any:
    import tunesmith

    return tunesmith.train(keys)


@pytest.fixture(scope="module")
def ranks() -> Iterator[TwoRanks]:
    with TwoRanks(["tests.e2e.test_preferences_on_ranks", "tunesmith.train.trainer", "transformers", "peft"]) as found:
        yield found


@pytest.fixture
def keys(stories: Path, tmp_path: Path, torch_one_thread: None, request: pytest.FixtureRequest) -> dict[str, Any]:
    """A run that logs every other step and evaluates 10 rows in uneven batches; its 22 rows end within a step."""
    write, more = KINDS[request.param]
    return {
        "model_name_or_path": str(stories),
        "finetuning_type": "lora",
        "lora_rank": 4,
        "template": "default",
        "dataset": str(write(tmp_path, count=32)),
        "val_size": 10,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "per_device_eval_batch_size": 3,
        "per_device_train_batch_size": 2,
        "max_steps": 8,
        "learning_rate": 1e-2,
        "logging_steps": 2,
        "save_strategy": "no",
        "use_cpu": True,
        **more,
    }


@pytest.mark.parametrize("keys", KINDS, indirect=True)
def test_two_processes_learn_as_one(ranks: TwoRanks, keys: dict[str, Any], tmp_path: Path) -> None:
    one = trained({**keys, "output_dir": str(tmp_path / "one"), "gradient_accumulation_steps": 4})
    two = ranks.call(trained, {**keys, "output_dir": str(tmp_path / "two"), "gradient_accumulation_steps": 2})[0]
    assert len(steps_of(one)) == 4
    for first, second in zip(log(one), log(two), strict=True):
        found, wanted = _metrics(second), _metrics(first)
        assert "eval_loss" in found or SHARES[keys["stage"]] < found.keys()
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            assert value == pytest.approx(wanted[name], rel=1e-4 if name == "grad_norm" else 1e-5, abs=1e-5), name
    assert one.metrics["eval_answers" if keys["stage"] == "kto" else "eval_pairs"] == 10
    if keys["learning_rate"] == 2e-2:
        assert any(line["kl"] > 0 for line in steps_of(one)), "the divergence is more than its lowest value"
    assert_close_weights(one.output_dir, two.output_dir)


def assert_close_weights(one: Path, two: Path) -> None:
    from safetensors.torch import load_file

    name = "adapter_model.safetensors" if (one / "adapter_model.safetensors").exists() else "model.safetensors"
    first, second = load_file(one / name), load_file(two / name)
    assert first.keys() == second.keys()
    apart = sum(float((first[key] - second[key]).double().square().sum()) for key in first)
    assert apart <= 1e-10 * sum(float(one.double().square().sum()) for one in first.values())


@pytest.mark.parametrize("keys", ["kto"], indirect=True)
def test_a_log_tells_the_mean_of_its_steps_also_over_a_resume(keys: dict[str, Any], tmp_path: Path) -> None:
    """Saved in the middle of what a line of the log is about."""
    keys |= {"logging_steps": 4, "save_strategy": "steps", "save_steps": 2, "val_size": 0, "eval_strategy": "no"}
    each = steps_of(trained({**keys, "output_dir": str(tmp_path / "each"), "logging_steps": 1}))
    whole = trained({**keys, "output_dir": str(tmp_path / "whole")})
    told = steps_of(whole)
    assert len(told) == 2
    for number, line in enumerate(told):
        steps = each[4 * number : 4 * number + 4]
        for name in ("loss", "kl", "entropy", "rewards/accuracies"):
            assert line[name] == pytest.approx(sum(one[name] for one in steps) / 4, rel=1e-5, abs=1e-6), name
    (whole.output_dir / "adapter_model.safetensors").unlink()
    shutil.rmtree(whole.output_dir / "checkpoint-8")
    again = steps_of(trained({**keys, "output_dir": str(tmp_path / "whole"), "resume_from_checkpoint": True}))
    assert [_metrics(line) for line in again] == [_metrics(line) for line in told]


def _metrics(line: dict[str, Any]) -> dict[str, float]:
    names = ("loss", "grad_norm", "kl", "entropy", "accuracy", "margin")
    return {name: value for name, value in line.items() if name.removeprefix("eval_") in names or "/" in name}


def test_a_rank_that_is_to_stop_holds_no_other_one_up(ranks: TwoRanks) -> None:
    """It has no batches then; what the other one settles is for a step that is not made."""
    assert ranks.call(settled_of_one) == [[], [[6.0]]]


def settled_of_one() -> list[list[float]]:
    """What the batches of this rank are given: the first rank has none, the other one two units of 2 and 4."""
    import torch
    from accelerate import Accelerator

    from tunesmith.train.whole_step import settle_step

    accelerator, model = Accelerator(cpu=True), torch.nn.Identity()
    objective = SimpleNamespace(
        whole_step=True,
        look=lambda model, batch: batch["input_ids"].float().T,
        settle=lambda looked: looked.sum(0, keepdim=True).expand(len(looked), 1),
    )
    trainer: Any = SimpleNamespace(
        accelerator=accelerator,
        model=model,
        objective=objective,
        output_of=lambda model, batch, find: find(model, batch),
        memory=SimpleNamespace(train=SimpleNamespace(most=None)),
        args=SimpleNamespace(device=accelerator.device, process_index=accelerator.process_index),
    )
    batches = [{"input_ids": torch.tensor([[2, 4]])}] if accelerator.process_index else []
    return [batch["settled"][:1, 0].tolist() for batch in settle_step(trainer, batches)]
