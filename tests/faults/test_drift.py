"""R13: a key changed between a run and its resume is refused with a diff, or applied and told. None is silent."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults import oracle
from tests.faults.kinds import KINDS, keys_of
from tests.faults.sizes import sized
from tests.faults.trial import Bench, Trial

KILLED, REFUSED, CORRUPT = -9, 2, 65
BASE = 15
"""The step of the checkpoint that every case goes on from."""

FROZEN: dict[str, Any] = {
    "dataset": "new",
    "cutoff_len": 48,
    "max_samples": 20,
    "val_size": 5,
    "packing": lambda keys: not keys.get("packing", False),
    "template": "alpaca",
    "train_on_prompt": True,
    "mask_history": True,
    "default_system": "Be brief.",
    "finetuning_type": lambda keys: "full" if keys["finetuning_type"] == "lora" else "lora",
    "lora_rank": 8,
    "lora_alpha": 32,
    "lora_dropout": 0.2,
    "lora_target": "q_proj,v_proj",
    "use_rslora": True,
    "optim": "adafactor",
    "label_smoothing_factor": 0.1,
    "neftune_noise_alpha": 3.0,
    "seed": 8,
    "data_seed": 9,
    "disable_shuffling": True,
    "bf16": True,
    "gradient_accumulation_steps": 1,  # and so the rows of a step
}
"""Key -> another value, or what makes one of the keys of the run."""

ONLY = {"lora_rank": "lora", "lora_alpha": "lora", "lora_dropout": "lora", "lora_target": "lora", "use_rslora": "lora"}
ONLY |= {"train_on_prompt": "sft", "mask_history": "sft", "default_system": "sft", "template": "sft"}
"""Keys that are for some kinds of runs: a word of the kind's keys."""


DERIVED = {"gradient_accumulation_steps": ("global_batch_size", "4", "2")}
"""Key -> what is frozen in its place, what it was and what it is."""
STILL_FIT = {"mask_history", "train_on_prompt", "label_smoothing_factor", "lora_dropout", "seed", "data_seed"}
"""Keys that the states of a checkpoint do not depend on: `resume_allow` goes on with them."""
DRAW_ROWS = {"seed", "data_seed"}
"""The place in a stream means something else with them: nothing can be allowed."""


def _fits(kind: str, key: str) -> bool:
    return ONLY.get(key, "") in f"{KINDS[kind]['finetuning_type']} {KINDS[kind]['stage']}"


def stopped(bench: Bench, kind: str) -> Trial:
    return bench.once("base", kind, lambda trial: trial.run(at=[["step_begin", BASE, "kill", None]], code=KILLED))


@pytest.mark.row("R13")
@pytest.mark.parametrize(
    ("kind", "key"), sized([(kind, key) for kind in KINDS for key in FROZEN if _fits(kind, key)], quick=2, slow=6)
)
def test_what_must_not_change_is_refused_with_a_diff(bench: Bench, kind: str, key: str) -> None:
    trial = stopped(bench, kind).copy("drift")
    keys = keys_of(kind, bench.model, trial.output)
    new = FROZEN[key](keys) if callable(FROZEN[key]) else FROZEN[key]
    before = oracle.state_of(trial.output)
    trial.changes[key] = new
    child = trial.run(code=REFUSED)
    named, *values = DERIVED.get(key, (key, str(keys[key]) if key in keys else None, str(new)))
    assert named in child.text, child.text
    diff = re.search(r"was (.*), is (.*)", child.text)
    assert diff, child.text
    for value, told in zip(values, diff.groups(), strict=True):
        assert value is None or value.lower() in told.lower(), child.text
    assert oracle.state_of(trial.output) == before, "nothing is touched"
    child = trial.start(f"resume_allow={named},dataset")
    if kind == "sft-stream" and key in DRAW_ROWS:
        assert (child.wait(), "E-DATA-113" in child.text) == (CORRUPT, True), child.text
    else:
        assert child.wait() in ((0,) if key in STILL_FIT else (0, REFUSED, CORRUPT)), child.text
    assert f"from step {BASE} on: " in child.text
    bench.remove(trial)


@pytest.mark.row("R13")
@pytest.mark.parametrize("kind", sized(list(KINDS), slow=1))
def test_other_rows_under_the_same_name_are_refused(bench: Bench, tmp_path: Path, kind: str) -> None:
    """A word changed in two rows. Rows of a stream may be mended: it goes on at the same row, and says so."""
    keys = keys_of(kind, bench.model, tmp_path)
    data = tmp_path / "data"
    shutil.copytree(keys["dataset_dir"], data)
    trial = bench.trial(kind, dataset_dir=str(data))
    trial.run(at=[["step_begin", BASE, "kill", None]], code=KILLED)
    name = json.loads((data / "dataset_info.json").read_text())[keys["dataset"]]["file_name"]
    original = (data / name).read_text()
    edit: Callable[[str], str] = lambda text: text.replace(" bee", " fox", 1).replace("frog", "toad", 1)  # noqa: E731
    (data / name).write_text(edit(original))
    assert (data / name).read_text() != original
    if kind == "sft-stream":
        assert f"{name} has changed since the checkpoint" in trial.finish().text
        return
    assert "dataset" in trial.run(code=REFUSED).text
    (data / name).write_text(original)
    trial.finish()
    bench.remove(trial)


# ---- what may change ----


def _column(trial: Trial, name: str) -> dict[int, Any]:
    lines = [json.loads(line) for line in (trial.output / "trainer_log.jsonl").read_text().splitlines()]
    return {line["current_steps"]: line[name] for line in lines if name in line}


def _as_from_the_start(name: str) -> Callable[[Trial, Trial], None]:
    """From the resume on the column is that of a run that had the value from the start."""

    def check(trial: Trial, other: Trial) -> None:
        found, wanted = _column(trial, name), _column(other, name)
        later = {step: value for step, value in wanted.items() if step > BASE}
        assert later
        assert {step: value for step, value in found.items() if step > BASE} == later

    return check


def _in_optimizer(trial: Trial, other: Trial) -> None:
    """The groups of the optimizer are those of a run that had the value from the start."""

    def plain(run: Trial) -> Any:
        return json.loads((oracle.checkpoints(run.output)[-1] / "optimizer.json").read_text())

    assert plain(trial) == plain(other)


def _checkpoints(trial: Trial, other: Trial) -> None:
    found, wanted = ([folder.name for folder in oracle.checkpoints(run.output)] for run in (trial, other))
    assert found == wanted


LIVE: dict[str, tuple[Any, Callable[[Trial, Trial], None] | None]] = {
    "learning_rate": (1e-4, _as_from_the_start("lr")),
    "lr_scheduler_type": ("linear", _as_from_the_start("lr")),
    "warmup_steps": (6, _as_from_the_start("lr")),
    "max_steps": (26, _as_from_the_start("lr")),
    "weight_decay": (0.2, _in_optimizer),
    "adam_beta1": (0.8, _in_optimizer),
    "adam_epsilon": (1e-6, _in_optimizer),
    "logging_steps": (1, lambda trial, other: _same_steps(trial, other, "loss")),
    "eval_steps": (4, lambda trial, other: _same_steps(trial, other, "eval_loss")),
    "save_steps": (2, _checkpoints),
    "save_total_limit": (1, _checkpoints),
    "max_grad_norm": (0.01, None),
}
"""Key -> another value, and how to see in (the resumed run, one that had the value from the start) that it holds; None:
the run ends with other weights."""


def _same_steps(trial: Trial, other: Trial, name: str) -> None:
    found, wanted = ([step for step in _column(run, name) if step > BASE] for run in (trial, other))
    assert found == wanted


@pytest.mark.row("R13")
@pytest.mark.parametrize(("kind", "key"), sized([(kind, key) for kind in KINDS for key in LIVE], quick=1, slow=3))
def test_what_may_change_is_applied_and_told(bench: Bench, kind: str, key: str) -> None:
    value, check = LIVE[key]
    trial = stopped(bench, kind).copy("live")
    trial.changes[key] = value
    child = trial.finish()
    told = re.search(rf"{key} (\S+) -> (\S+)", child.text)
    assert told, child.text
    assert float(told[2]) == value if isinstance(value, int | float) else told[2] == value
    events = json.loads((trial.output / "run.json").read_text())["events"]
    (resumed,) = (event for event in events if event["kind"] == "resumed")
    assert resumed["changed"].keys() - {"output_dir"} == {key}  # the folder is a copy
    assert resumed["changed"][key][1] == value
    if check is None:
        assert any(
            ".safetensors" in name for name in oracle.differences(trial.output, bench.uninterrupted(kind).output)
        )
    else:
        check(trial, bench.once("other", kind, lambda one: one.finish(), **{key: value}))
    bench.remove(trial)
