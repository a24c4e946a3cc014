"""Memory that runs out: found before the first step, survived in any step, and a result that it does not change."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests.run_logs import curve, log, same_weights
from tests.scarce_memory import Scarce
from tunesmith.core.errors import MachineError
from tunesmith.train import memory as memory_module

pytestmark = pytest.mark.row("R9")

Run = Callable[..., Any]
FORMS: dict[str, dict[str, Any]] = {
    "flat": {},
    "padded": {"flash_attn": "disabled"},
    "packs": {"packing": True, "cutoff_len": 80},
    "stream": {"streaming": True},
    "accumulated": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
}


@pytest.fixture
def run(tiny_model: Path, tiny_data: Path, tmp_path: Path, torch_one_thread: None) -> Run:
    """16 chats of about 25 tokens, 8 in a step."""
    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
        "finetuning_type": "full",
        "per_device_train_batch_size": 8,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "memory_probe": False,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


def close(one: Any, other: Any) -> None:
    """The first step to a millionth, later ones to a hundred-thousandth: sums in another order."""
    for step, (found, wanted) in enumerate(zip(curve(one), curve(other), strict=True)):
        assert found == pytest.approx(wanted, rel=1e-5 if step else 1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_running_out_changes_neither_loss_nor_gradient(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, form: str
) -> None:
    whole = run(output_dir=str(tmp_path / "whole"), **FORMS[form])
    scarce = Scarce(90).install(monkeypatch)
    halved = run(output_dir=str(tmp_path / "halved"), **FORMS[form])
    close(halved, whole)
    failed = [tokens for tokens in scarce.seen if tokens < 0]
    assert failed, "memory did run out"
    numbers = json.loads((halved.output_dir / "train_results.json").read_text())
    assert numbers["train_memory_halvings"] == len(failed)
    assert numbers["train_tokens_at_once"] == -failed[-1] // 2
    assert "train_memory_halvings" not in whole.metrics
    assert [line["tokens"] for line in log(halved) if "loss" in line] == [
        line["tokens"] for line in log(whole) if "loss" in line
    ]


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_it_equals_smaller_micro_batches_from_the_start(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[BaseException]
) -> None:
    small = run(output_dir=str(tmp_path / "small"), per_device_train_batch_size=2, gradient_accumulation_steps=4)
    Scarce(90, error=error).install(monkeypatch)
    close(run(output_dir=str(tmp_path / "halved")), small)


def test_a_step_begins_anew_with_its_chance_and_without_its_gradients(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With dropout, the bits are those of a run that has the smaller parts from the start. The second batch of the
    first step fails, so that the first one is made again as well."""
    keys = {"finetuning_type": "lora", "lora_dropout": 0.3, "fast_path": "off", "max_steps": 2, **FORMS["accumulated"]}
    scarce = Scarce(50, spared=1).install(monkeypatch)
    halved = run(output_dir=str(tmp_path / "halved"), **keys)
    one, two, again = scarce.seen[:3]
    assert one > 0 > two
    assert abs(again) <= -two // 2, "from the beginning of the step"
    limit = halved.metrics["train_tokens_at_once"]
    monkeypatch.setattr(memory_module, "read_limits", lambda checkpoint: {"train": limit})
    scarce.spared = 0
    scarce.seen.clear()
    small = run(output_dir=str(tmp_path / "small"), **keys)
    assert min(scarce.seen) > 0
    assert same_weights(halved, small)
    assert [loss for loss, _ in curve(halved)] == pytest.approx([loss for loss, _ in curve(small)], rel=1e-6)


def test_a_resumed_run_goes_on_with_the_smaller_parts(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    keys = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4, "finetuning_type": "lora", "lora_dropout": 0.3}
    scarce = Scarce(90).install(monkeypatch)
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    checkpoint = whole.output_dir / "checkpoint-2"
    assert json.loads((checkpoint / "memory.json").read_text()) == {"train": whole.metrics["train_tokens_at_once"]}
    scarce.seen.clear()
    resumed = run(output_dir=str(tmp_path / "resumed"), resume_from_checkpoint=str(checkpoint), **keys)
    assert min(scarce.seen) > 0, "memory does not run out again"
    assert same_weights(whole, resumed)


def test_evaluation_is_halved_by_itself(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keys = {"val_size": 6, "eval_strategy": "epoch", "compute_accuracy": True, "max_steps": 2}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    scarce = Scarce(10**9, most_evaluated=70).install(monkeypatch)
    halved = run(output_dir=str(tmp_path / "halved"), fast_path="off", **keys)
    assert min(scarce.seen) < 0
    for name in ("eval_loss", "eval_accuracy", "eval_tokens"):
        assert halved.metrics[name] == pytest.approx(whole.metrics[name], rel=1e-5)
    assert halved.metrics["eval_memory_halvings"] == sum(tokens < 0 for tokens in scarce.seen)
    assert "train_memory_halvings" not in halved.metrics


def test_a_single_row_that_does_not_fit_is_an_error_with_advice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Scarce(10).install(monkeypatch)
    with pytest.raises(MachineError) as caught:
        run(disable_gradient_checkpointing=True)
    problem = caught.value.problems[0]
    assert (problem.code, problem.where) == ("E-TRAIN-030", "step 1")
    assert problem.fix is not None
    for helps in ("cutoff_len: ", "disable_gradient_checkpointing: false", "bf16: true", "finetuning_type: lora"):
        assert helps in problem.fix


def test_weights_that_change_in_the_backward_pass_allow_no_second_attempt(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Scarce(90).install(monkeypatch)
    with caplog.at_level(logging.INFO, "tunesmith"), pytest.raises(MachineError, match="cannot be begun anew"):
        run(optim="adafactor", max_steps=20, memory_probe=True, optimizer_in_bwd=True, max_grad_norm=0)
    assert "the memory of a step is not tried first: optimizer_in_bwd: true" in caplog.text


def test_an_optimizer_without_room_is_an_error_with_advice(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*arguments: Any, **others: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(MachineError, match="the states of the optimizer do not fit") as caught:
        run()
    assert "optim: adafactor" in str(caught.value)


def test_other_errors_travel(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Scarce(90, error=KeyError).install(monkeypatch)
    with pytest.raises(KeyError):
        run()


# ---- the probe ----


def test_the_probe_finds_it_before_the_first_step(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With it the only failures come first, and no step is made twice; without it they come where the rows are."""
    keys = {"per_device_train_batch_size": 2, "max_steps": 16}
    scarce = Scarce(10**9).install(monkeypatch)
    run(output_dir=str(tmp_path / "all"), fast_path="off", **keys)
    largest = max(scarce.seen)
    assert len(scarce.seen) == 16
    scarce = Scarce(largest - 1).install(monkeypatch)
    with caplog.at_level(logging.INFO, "tunesmith"):
        result = run(output_dir=str(tmp_path / "probed"), fast_path="off", memory_probe=True, **keys)
    assert scarce.seen[0] == -largest
    assert min(scarce.seen[1:]) > 0
    assert "before step 1: out of memory" in caplog.text
    assert f"the largest micro-batch is tried first: {largest} tokens" in caplog.text
    assert result.metrics["train_memory_halvings"] == 1
    scarce.seen.clear()
    run(output_dir=str(tmp_path / "unprobed"), fast_path="off", **keys)
    assert scarce.seen[0] > 0
    assert min(scarce.seen) == -largest


@pytest.mark.parametrize(
    ("form", "method"),
    [*(pytest.param(form, "lora", marks=pytest.mark.slow) for form in FORMS), ("flat", "full")],
)
def test_the_probe_leaves_no_trace(run: Run, tmp_path: Path, form: str, method: str) -> None:
    dropout = {"lora_dropout": 0.3} if method == "lora" else {}
    keys = {"max_steps": 12, "finetuning_type": method, **dropout, **FORMS[form], "per_device_train_batch_size": 2}
    keys |= {"save_strategy": "steps", "save_steps": 11}
    plain = run(output_dir=str(tmp_path / "plain"), **keys)
    probed = run(output_dir=str(tmp_path / "probed"), memory_probe=True, **keys)
    resumed = run(
        output_dir=str(tmp_path / "resumed"),
        resume_from_checkpoint=str(probed.output_dir / "checkpoint-11"),
        **{**keys, "memory_probe": True, "max_steps": 12},
    )
    assert same_weights(plain, probed)
    assert same_weights(plain, resumed)
    assert curve(plain) == curve(probed)
    assert [line["tokens"] for line in log(plain)] == [line["tokens"] for line in log(probed)]


def test_a_short_run_is_not_probed(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tunesmith"):
        run(memory_probe=True)
    assert "the memory of a step is not tried first: the run has 3 micro-batches" in caplog.text


def test_a_stream_is_probed_at_its_capacity(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = Scarce(10**9).install(monkeypatch)
    run(streaming=True, cutoff_len=40, max_steps=12, per_device_train_batch_size=2, memory_probe=True, fast_path="off")
    assert scarce.seen[0] == 2 * 40
    assert max(scarce.seen[1:]) <= 80
