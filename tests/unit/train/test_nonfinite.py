"""Steps that are not finite: told with their rows, never saved, and left out as if they had never been."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tests.run_logs import column, curve, log, same_weights
from tunesmith.core.errors import ConfigError, DivergedError
from tunesmith.train.nonfinite import assert_finite
from tunesmith.train.trainer import Trainer

pytestmark = pytest.mark.row("R8")

Run = Callable[..., Any]
BROKEN = 4  # the step that is not finite, of 8
POLICIES = ("skip", "rollback")


@pytest.fixture
def run(tiny_model: Path, tiny_data: Path, tmp_path: Path, torch_one_thread: None) -> Run:
    """Two epochs of 16 chats, 4 in a step; dropout, so that chance matters."""
    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "lora_dropout": 0.1,
        "use_cpu": True,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


# ---- what is broken: each takes (Trainer, loss of a micro-batch) at the step BROKEN ----


def in_loss(value: float) -> Callable[[Any, Any], Any]:
    def spoil(original: Any, self: Any, *arguments: Any, **keywords: Any) -> Any:
        return original(self, *arguments, **keywords) * value

    return spoil


def once_in_one_gradient(original: Any, self: Any, *arguments: Any, **keywords: Any) -> Any:
    loss = original(self, *arguments, **keywords)
    weight = [one for one in self.model.parameters() if one.requires_grad][-1]
    handle = weight.register_hook(lambda gradient: (handle.remove(), gradient * float("nan"))[1])
    return loss


FAULTS = {"nan": in_loss(float("nan")), "inf": in_loss(float("inf")), "gradient": once_in_one_gradient}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`broken(fault, steps)`: the loss of these steps is computed by the fault."""

    def install(fault: Any, steps: tuple[int, ...] = (BROKEN,)) -> None:
        original = Trainer.compute_loss

        def compute_loss(self: Any, *arguments: Any, **keywords: Any) -> Any:
            if self.state.global_step + 1 in steps:
                return fault(original, self, *arguments, **keywords)
            return original(self, *arguments, **keywords)

        monkeypatch.setattr(Trainer, "compute_loss", compute_loss)

    return install


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which the step BROKEN is never made, in a way that has nothing in common with ours: no forward, no
    backward, and no step of the optimizer."""
    from transformers import Trainer as Theirs

    def install(patch: pytest.MonkeyPatch) -> None:
        original, norm = Theirs.training_step, Theirs._get_grad_norm

        def training_step(self: Any, model: Any, inputs: Any, *others: Any) -> Any:
            if self.state.global_step + 1 != BROKEN:
                return original(self, model, inputs, *others)
            self.optimizer.optimizer.step, stepping = lambda *_: None, self.optimizer.optimizer.step

            def again(*arguments: Any) -> Any:
                self.optimizer.optimizer.step = stepping

            self.optimizer.optimizer.step = again
            return torch.zeros(())

        def get_norm(self: Any, model: Any, grad_norm: Any = None) -> Any:
            return torch.zeros(()) if self.state.global_step + 1 == BROKEN else norm(self, model, grad_norm=grad_norm)

        patch.setattr(Theirs, "training_step", training_step)
        patch.setattr(Theirs, "_get_grad_norm", get_norm)

    return install  # type: ignore[return-value]


def anomalies(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "anomalies.jsonl").read_text().splitlines()]


def all_finite(folder: Path) -> bool:
    files = list(folder.rglob("*.safetensors"))
    return all(
        torch.isfinite(one).all() for file in files for one in load_file(file).values() if one.is_floating_point()
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_stop_ends_the_run_and_tells_the_rows(run: Run, broken: Any, tmp_path: Path, fault: str) -> None:
    broken(FAULTS[fault])
    with pytest.raises(DivergedError) as caught:
        run(save_strategy="steps", save_steps=1)
    assert (caught.value.code, caught.value.exit_code) == ("E-TRAIN-003", 76)
    out = tmp_path / "out"
    (line,) = anomalies(out)
    assert (line["step"], line["action"], line["weights_finite"]) == (BROKEN, "stop", True)
    assert line["kind"] == ("nonfinite_gradient" if fault == "gradient" else "nonfinite_loss")
    assert len(line["rows"][0][0]) == len(line["places"][0][0]) == 4
    assert (out / "checkpoint-3").is_dir()
    assert not (out / "adapter_model.safetensors").exists()
    assert all_finite(out)


SAVES = {"save_strategy": "steps", "save_steps": 2}
MATRIX = [(fault, policy, saves) for fault in FAULTS for policy in POLICIES for saves in ({}, SAVES)]
QUICK = [("nan", "skip", {}), ("gradient", "rollback", SAVES)]


@pytest.mark.parametrize(
    ("fault", "policy", "saves"),
    [pytest.param(*one, marks=[] if one in QUICK else pytest.mark.slow) for one in MATRIX],
)
def test_skip_and_rollback_equal_a_run_without_that_step(
    run: Run, broken: Any, without: Any, tmp_path: Path, fault: str, policy: str, saves: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        without(patch)
        reference = run(output_dir=str(tmp_path / "without"))
    broken(FAULTS[fault])
    found = run(on_nonfinite=policy, **saves)
    assert same_weights(found, reference)
    made = [line for line in log(reference) if line.get("current_steps") != BROKEN and "loss" in line]
    lines = {line["current_steps"]: line for line in log(found) if "loss" in line}
    assert sorted(lines) == [line["current_steps"] for line in made]
    for line in made:
        assert (lines[line["current_steps"]]["loss"], lines[line["current_steps"]]["grad_norm"]) == (
            line["loss"],
            line["grad_norm"],
        )
    losses = [line["loss"] for line in made]
    if policy == "skip":
        assert found.metrics["train_loss"] == pytest.approx(sum(losses) / 7)
        assert column(found, "tokens")[-1] < column(reference, "tokens")[-1], "its tokens were not trained on"
    assert [line["action"] for line in anomalies(found.output_dir)] == [policy]


@pytest.mark.parametrize("policy", ["skip", pytest.param("rollback", marks=pytest.mark.slow)])
def test_a_resume_leaves_out_the_same_step(run: Run, broken: Any, tmp_path: Path, policy: str) -> None:
    broken(FAULTS["nan"])
    keys = {"on_nonfinite": policy, "save_strategy": "steps", "save_steps": 3}
    whole = run(**keys)
    assert json.loads((whole.output_dir / "checkpoint-6" / "left_out.json").read_text()) == {"steps": [BROKEN]}
    for step in (3, 6):
        checkpoint = str(whole.output_dir / f"checkpoint-{step}")
        again = run(output_dir=str(tmp_path / f"from{step}"), resume_from_checkpoint=checkpoint, **keys)
        assert same_weights(whole, again)


def test_one_bad_row_is_named(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The row that is third in the order of the second step."""
    guilty: list[Any] = []
    computed = Trainer._computed

    def spoiled(self: Any, model: Any, inputs: Any) -> Any:
        output = computed(self, model, inputs)
        row = self.train_dataset[int(self.sampler.rows(0)[1][2])]["input_ids"]
        text = inputs["input_ids"][0].tolist()
        held = any(text[at : at + len(row)] == row.tolist() for at in range(len(text)))
        guilty[:] = [str(self.train_dataset.origin(int(self.sampler.rows(0)[1][2])))]
        return output if not held else type(output)(**{**vars_of(output), "loss_sum": output.loss_sum * float("nan")})

    monkeypatch.setattr(Trainer, "_computed", spoiled)
    with pytest.raises(DivergedError):
        run()
    (line,) = anomalies(tmp_path / "out")
    assert (line["step"], line["guilty"]) == (2, guilty)
    assert guilty[0] in line["places"][0][0]


def vars_of(output: Any) -> dict[str, Any]:
    from dataclasses import fields

    return {one.name: getattr(output, one.name) for one in fields(output)}


@pytest.mark.parametrize("policy", ["stop", *POLICIES])
@pytest.mark.parametrize("keys", [{}, {"finetuning_type": "full", "max_grad_norm": 0.0}], ids=["lora", "full"])
def test_a_learning_rate_that_wrecks_the_model_ends_the_run(
    run: Run, tmp_path: Path, policy: str, keys: dict[str, Any]
) -> None:
    with pytest.raises(DivergedError) as caught:
        run(learning_rate=1e30, on_nonfinite=policy, save_strategy="steps", save_steps=1, warmup_steps=0, **keys)
    assert caught.value.exit_code == 76
    assert all_finite(tmp_path / "out")
    if policy != "stop":
        assert caught.value.code in {"E-TRAIN-067", "E-TRAIN-066"}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_budget(run: Run, broken: Any, policy: str) -> None:
    """One step in a run of eight."""
    broken(FAULTS["nan"], (2, 6))
    with pytest.raises(DivergedError) as caught:
        run(on_nonfinite=policy)
    problem = caught.value.problems[0]
    assert (problem.code, problem.where) == ("E-TRAIN-067", "step 6")
    assert problem.got == "2 steps of 8, 1 in a row; at most 1, and 3 in a row"


def test_three_in_a_row_are_left_out_and_a_fourth_is_not(
    run: Run, broken: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.train.nonfinite.SHARE", 0.5)
    broken(FAULTS["nan"], (2, 3, 4, 6))
    assert [step for step, _ in enumerate(curve(run(on_nonfinite="skip")))] == [0, 1, 2, 3]
    broken(FAULTS["nan"], (5,))
    with pytest.raises(DivergedError, match="4 in a row"):
        run(on_nonfinite="skip", overwrite_output_dir=True)


def test_the_steps_in_backward(run: Run, broken: Any, without: Any, tmp_path: Path) -> None:
    """Weights have been changed by then: going back mends them, skipping cannot."""
    keys = {"optimizer_in_bwd": True, "max_grad_norm": 0.0, "finetuning_type": "full"}
    with pytest.raises(ConfigError, match="comes too late"):
        run(on_nonfinite="skip", **keys)
    broken(FAULTS["gradient"])
    found = run(on_nonfinite="rollback", save_strategy="steps", save_steps=2, **keys)
    keys["optimizer_in_bwd"] = False
    assert same_weights(found, run(on_nonfinite="skip", output_dir=str(tmp_path / "after"), **keys))


@pytest.mark.parametrize(
    "form", [{"streaming": True, "buffer_size": 5, "max_steps": 8}, {"packing": True, "cutoff_len": 80}]
)
def test_streams_and_packs_tell_their_rows(run: Run, broken: Any, tmp_path: Path, form: dict[str, Any]) -> None:
    broken(FAULTS["nan"], (2,))
    found = run(on_nonfinite="rollback", **form)
    (line,) = anomalies(found.output_dir)
    assert len(line["rows"][0][0]) == 4
    assert len(line["places"][0][0]) >= 4
    assert all("new" in place for place in line["places"][0][0])
    skipped = run(on_nonfinite="skip", output_dir=str(tmp_path / "skip"), **form)
    assert same_weights(found, skipped)


def test_weights_that_are_not_finite_are_refused() -> None:
    model = torch.nn.Linear(2, 2)
    assert_finite(model)
    with torch.no_grad():
        model.bias[1] = float("inf")
    with pytest.raises(DivergedError) as caught:
        assert_finite(model)
    assert (caught.value.code, caught.value.problems[0].where) == ("E-TRAIN-066", "weight bias")
    model.bias.requires_grad_(False)
    assert_finite(model)


@pytest.mark.slow
def test_packed_weights_are_not_called_broken(run: Run, broken: Any) -> None:
    """Bits of four-bit weights are not finite as bfloat16, and the first step did not diverge by that."""
    broken(FAULTS["nan"], steps=(1,))
    with pytest.raises(DivergedError) as caught:
        run(quantization_bit=4, bnb_4bit_quant_storage="bfloat16")
    assert caught.value.code == "E-TRAIN-003"


@pytest.mark.slow
def test_a_loss_spike_is_told_and_changes_nothing(run: Run, broken: Any, tmp_path: Path) -> None:
    keys = {"num_train_epochs": 7, "learning_rate": 1e-5}
    plain = run(output_dir=str(tmp_path / "plain"), **keys)

    def higher(original: Any, self: Any, *arguments: Any, **keywords: Any) -> Any:
        loss = original(self, *arguments, **keywords)
        return loss + (50 * loss).detach()  # another number, the same gradient

    broken(higher, (25,))
    spiked = run(**keys)
    assert same_weights(plain, spiked)
    (line,) = anomalies(spiked.output_dir)
    assert (line["kind"], line["step"], line["action"]) == ("loss_spike", 25, "none")
    assert line["deviations"] > 10
