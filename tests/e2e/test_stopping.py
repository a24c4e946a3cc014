"""A run that is stopped and started again ends as one that never was: to the bit, at any place."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.run_logs import column, curve, log, same_weights
from tunesmith.core import control
from tunesmith.core.errors import PreemptedError
from tunesmith.train.trainer import Trainer

Run = Callable[..., Any]
LORA = {"lora_dropout": 0.1, "num_train_epochs": 2}  # 8 steps; chance matters


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`at(method, call, what)`: before the Trainer's call number `call` of `method`, once, `what()` is done."""

    def install(method: str, call: int, what: Callable[[], object] | int) -> None:
        original, calls = getattr(Trainer, method), [0]

        def wrapped(self: Any, *arguments: Any, **keywords: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                os.kill(os.getpid(), what) if isinstance(what, int) else what()
            return original(self, *arguments, **keywords)

        monkeypatch.setattr(Trainer, method, wrapped)

    return install


def stopped(run: Run, **keys: Any) -> Any:
    """The problem that a run tells when it is stopped."""
    with pytest.raises(PreemptedError) as caught:
        run(**keys)
    assert caught.value.exit_code == 75
    return caught.value.problems[0]


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("number", "keys"),
    [
        (signal.SIGTERM, {}),
        (signal.SIGUSR1, {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}),
        (signal.SIGINT, {"packing": True, "cutoff_len": 80, "num_train_epochs": 5}),
        (signal.SIGTERM, {"finetuning_type": "full", "dataloader_num_workers": 1}),
        (signal.SIGTERM, {"finetuning_type": "full", "optimizer_in_bwd": True, "max_grad_norm": 0.0}),
    ],
    ids=["lora", "accumulation", "packs", "full", "in_backward"],
)
def test_a_signal_in_a_step_loses_nothing(run: Run, at: Any, tmp_path: Path, number: int, keys: dict[str, Any]) -> None:
    keys = {**LORA, **keys}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    split = keys.get("gradient_accumulation_steps", 1)
    at("training_step", 3 * split, number)  # of two micro-batches: before the second
    problem = stopped(run, **keys)
    assert (problem.code, problem.where) == ("E-TRAIN-060", str(tmp_path / "out" / "checkpoint-3"))
    assert problem.got.startswith(f"{signal.Signals(number).name}; saving took")
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert not left & {"adapter_model.safetensors", "model.safetensors", "train_results.json", "all_results.json"}
    again = run(**keys)
    assert again.plan.resume == problem.where
    assert same_weights(whole, again)
    assert curve(again) == curve(whole)


@pytest.mark.parametrize("step", [4, 8])
def test_the_edges_of_epochs(run: Run, at: Any, tmp_path: Path, step: int) -> None:
    """The last step of an epoch, and the last of all: then there is nothing to stop any more."""
    whole = run(output_dir=str(tmp_path / "whole"), **LORA)
    at("training_step", step, signal.SIGTERM)
    if step < 8:
        assert stopped(run, **LORA).where == str(tmp_path / "out" / "checkpoint-4")
    again = run(**LORA)
    assert same_weights(whole, again)
    assert curve(again) == curve(whole)


def test_a_stop_between_checkpoints_of_the_run_itself(run: Run, at: Any, tmp_path: Path) -> None:
    """Where the step is saved already, it is not saved again."""
    keys = {**LORA, "save_strategy": "steps", "save_steps": 3}
    at("training_step", 3, signal.SIGTERM)
    saves: list[int] = []
    at("_save_checkpoint", 1, lambda: saves.append(1))
    at("_save_checkpoint", 2, lambda: saves.append(2))
    problem = stopped(run, **keys)
    assert saves == [1]
    assert problem.got.startswith("SIGTERM; saving took")


BEST = {
    "val_size": 4,
    "eval_strategy": "steps",
    "eval_steps": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "per_device_eval_batch_size": 1,
    "load_best_model_at_end": True,
    "metric_for_best_model": "loss",
    "learning_rate": 2e-2,
    "num_train_epochs": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("evaluation", [1, 2, 4])
def test_an_evaluation_is_given_up_and_made_again(run: Run, at: Any, tmp_path: Path, evaluation: int) -> None:
    """12 rows for training: 3 steps an epoch, 9 in all, an evaluation of 4 batches after every second."""
    keys = {**LORA, **BEST}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    batches: list[int] = []
    computed = Trainer._computed

    def counted(self: Any, model: Any, inputs: Any) -> Any:
        if not model.training:
            batches.append(self.state.global_step)
            if len(batches) == 4 * evaluation - 2:
                os.kill(os.getpid(), signal.SIGTERM)
        return computed(self, model, inputs)

    Trainer._computed = counted  # type: ignore[method-assign]
    try:
        problem = stopped(run, **keys)
        assert len(batches) == 4 * evaluation - 2, "the rest of the evaluation is left out"
        folder = tmp_path / "out" / f"checkpoint-{2 * evaluation}"
        assert problem.where == str(folder)
        assert json.loads((folder / "control.json").read_text()) == {"save": True}
        again = run(**keys)
    finally:
        Trainer._computed = computed  # type: ignore[method-assign]
    assert same_weights(whole, again)
    assert curve(again) == curve(whole)
    assert column(again, "eval_loss") == column(whole, "eval_loss")
    states = [json.loads((one.output_dir / "trainer_state.json").read_text()) for one in (whole, again)]
    assert len({state["best_metric"] for state in states}) == 1
    assert len({Path(state["best_model_checkpoint"]).name for state in states}) == 1
    assert checkpoints(again.output_dir) == checkpoints(whole.output_dir)


def test_the_evaluation_after_the_last_step_is_made_again(run: Run, at: Any, tmp_path: Path) -> None:
    keys = {**LORA, "val_size": 4, "eval_strategy": "steps", "eval_steps": 6}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    at("evaluation_loop", 1, signal.SIGTERM)
    assert stopped(run, **keys).where == str(tmp_path / "out" / "checkpoint-6")
    again = run(**keys)
    assert same_weights(whole, again)
    assert column(again, "eval_loss") == column(whole, "eval_loss")


def test_the_evaluation_that_is_made_again_may_end_the_run(run: Run, at: Any, tmp_path: Path) -> None:
    """Nothing improves, so that the second evaluation ends the run by patience 1."""
    keys = {**LORA, "val_size": 4, "eval_strategy": "steps", "eval_steps": 2, "early_stopping_steps": 1}
    keys |= {"learning_rate": 0.0, "num_train_epochs": 4, "restore_callback_states_from_checkpoint": True}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    assert log(whole)[-1]["current_steps"] == 4
    at("evaluation_loop", 2, signal.SIGTERM)
    stopped(run, **keys)
    again = run(**keys)
    assert log(again)[-1]["current_steps"] == 4
    assert same_weights(whole, again)


@pytest.mark.parametrize("method", ["write_weights", "write_small_states"])
def test_a_signal_in_a_save(run: Run, at: Any, tmp_path: Path, method: str) -> None:
    keys = {**LORA, "save_strategy": "steps", "save_steps": 3}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    at(method, 1, signal.SIGTERM)
    assert stopped(run, **keys).where == str(tmp_path / "out" / "checkpoint-3")
    again = run(**keys)
    assert same_weights(whole, again)
    assert curve(again) == curve(whole)


@pytest.mark.parametrize("place", ["tunesmith.data.build.build_datasets", "tunesmith.models.load.load"])
def test_before_training_nothing_is_saved(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(place if "models" in place else "tunesmith.data.build_datasets", stop)
    assert stopped(run).code == "E-TRAIN-061"
    assert not checkpoints(tmp_path / "out")


def test_a_resumed_run_that_is_stopped_at_once_saves_nothing(run: Run, at: Any, tmp_path: Path) -> None:
    at("training_step", 3, signal.SIGTERM)
    stopped(run, **LORA)
    at("get_train_dataloader", 1, signal.SIGTERM)
    saves: list[int] = []
    at("_save_checkpoint", 1, lambda: saves.append(1))
    assert stopped(run, **LORA).fix == "the same command goes on there"
    assert not saves


def test_what_would_start_afresh_is_told_how_to_go_on(run: Run, at: Any, tmp_path: Path) -> None:
    at("training_step", 3, signal.SIGTERM)
    problem = stopped(run, overwrite_output_dir=True, **LORA)
    assert problem.fix == f"resume_from_checkpoint: {tmp_path / 'out' / 'checkpoint-3'} goes on from there"


# ---- requests ----


def test_save_is_done_after_the_step_and_training_goes_on(run: Run, at: Any, tmp_path: Path) -> None:
    whole = run(output_dir=str(tmp_path / "whole"), **LORA)
    out = tmp_path / "out"
    at("training_step", 3, lambda: control.ask(out, "save"))
    asked = run(**LORA)
    assert checkpoints(out) == ["checkpoint-3"]
    assert control.asked(out) is None
    assert same_weights(whole, asked)
    again = run(output_dir=str(tmp_path / "again"), resume_from_checkpoint=str(out / "checkpoint-3"), **LORA)
    assert same_weights(whole, again)


@pytest.mark.parametrize(
    ("request_", "code", "saved"), [("stop", "E-TRAIN-062", []), ("stop-and-save", "E-TRAIN-060", ["checkpoint-3"])]
)
def test_stop_leaves_after_the_step(
    run: Run, at: Any, tmp_path: Path, request_: str, code: str, saved: list[str]
) -> None:
    out = tmp_path / "out"
    at("training_step", 3, lambda: control.ask(out, request_))
    assert stopped(run, **LORA).code == code
    assert checkpoints(out) == saved
    assert control.asked(out) is None, "it is taken away"
    assert len(curve_of(out)) == 3


def curve_of(folder: Path) -> list[str]:
    return [line for line in (folder / "trainer_log.jsonl").read_text().splitlines() if '"loss"' in line]


def test_what_an_earlier_run_was_asked_is_forgotten(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    control.ask(out, "stop")
    assert len(curve(run(**LORA))) == 8


# ---- streams ----


@pytest.mark.parametrize("workers", [0, 1])
def test_a_signal_while_a_window_is_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Windows of 5 rows: one is made in the middle of the run, and left at once."""
    from tunesmith.data.streaming.encode import WindowEncoder

    keys = {**LORA, "streaming": True, "buffer_size": 5, "max_steps": 8, "preprocessing_num_workers": workers}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    original = WindowEncoder._pieces

    def pieces(self: Any, windows: Any, *others: Any) -> Any:
        def signalled() -> Any:
            for number, window in enumerate(windows):
                if number == 4:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield window

        return original(self, signalled(), *others)

    with monkeypatch.context() as patch:
        patch.setattr(WindowEncoder, "_pieces", pieces)
        problem = stopped(run, **keys)
    assert problem.code == "E-TRAIN-060"
    again = run(**keys)
    assert same_weights(whole, again)
    assert curve(again) == curve(whole)


@pytest.mark.slow
def test_rows_that_are_left_out_of_a_stream_change_nothing(run: Run, at: Any, tiny_data: Path, tmp_path: Path) -> None:
    """A bad row in the third window of five, which `on_bad_row: skip` leaves out: the next row takes its place. The run
    is stopped before that window, in it, and behind it."""
    rows = [line for line in (tiny_data / "new_openai.jsonl").read_text().splitlines() if line.strip()]
    rows[11] = '{"messages": 5}'
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(rows) + "\n")
    keys = {**LORA, "dataset": str(file), "streaming": True, "buffer_size": 5, "max_steps": 8}
    keys |= {"on_bad_row": "skip", "max_bad_rows": 1}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    report = json.loads((whole.output_dir / "data_report.json").read_text())
    assert report["datasets"][0]["rows"] - report["datasets"][0]["kept"] == 1
    for step in (2, 3, 5):
        at("training_step", step, signal.SIGTERM)
        stopped(run, **{**keys, "output_dir": str(tmp_path / f"at{step}")})
        again = run(**{**keys, "output_dir": str(tmp_path / f"at{step}")})
        assert same_weights(whole, again)
        assert curve(again) == curve(whole)


# ---- after training ----


@pytest.mark.parametrize("strategy", ["no", "steps"])
def test_a_signal_in_the_evaluation_after_training(run: Run, at: Any, tmp_path: Path, strategy: str) -> None:
    keys = {**LORA, "val_size": 4, "do_eval": True, "do_train": True, "save_strategy": strategy, "save_steps": 100}
    whole = run(output_dir=str(tmp_path / "whole"), **keys)
    at("evaluation_loop", 1, signal.SIGTERM)
    problem = stopped(run, **keys)
    assert problem.code == "E-TRAIN-063"
    assert checkpoints(tmp_path / "out") == ["checkpoint-6"]
    again = run(**keys)
    assert same_weights(whole, again)
    assert again.metrics["eval_loss"] == whole.metrics["eval_loss"]
