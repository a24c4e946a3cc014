"""R11, R12: a resume at every step, and with the same rows split otherwise."""

from __future__ import annotations

import json

import pytest

from tests.faults.kinds import KINDS, STEPS
from tests.faults.sizes import sized
from tests.faults.trial import Bench, Trial

KILLED = -9
AT_EVERY_STEP = {"save_steps": 1}

PLACES = [(kind, "save", step) for kind in KINDS for step in range(1, STEPS + 1)]
"""After the save of every step: the first, within a logging interval, before, at and after the end of an epoch."""
PLACES += [(kind, "evaluate", 10) for kind in KINDS]
PLACES += [(kind, "train_end", STEPS) for kind in KINDS]


@pytest.mark.row("R12")
@pytest.mark.parametrize(("kind", "event", "step"), sized(PLACES, slow=4))
def test_a_resume_at_any_step_gives_the_same_bits(bench: Bench, kind: str, event: str, step: int) -> None:
    whole = bench.uninterrupted(kind, **AT_EVERY_STEP)
    trial = bench.trial(kind, **AT_EVERY_STEP)
    trial.run(at=[[event, step, "kill", None]], code=KILLED)
    trial.check_readable()
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)


@pytest.mark.row("R12")
@pytest.mark.parametrize("kind", sized(list(KINDS), slow=1))
def test_a_finished_run_is_extended_to_what_a_longer_run_gives(bench: Bench, kind: str) -> None:
    """With a schedule that does not depend on the number of steps."""
    constant = {"lr_scheduler_type": "constant_with_warmup"}
    whole = bench.uninterrupted(kind, **constant, max_steps=STEPS + 7)
    trial = bench.trial(kind, **constant)
    trial.finish()
    trial.changes["max_steps"] = STEPS + 7
    trial.finish()
    # Nobody knows how long an epoch of a stream is: the log tells a share of the steps in its place.
    trial.check_equal(whole, *(["epoch"] if kind == "sft-stream" else []))
    bench.remove(trial)


# ---- other processes, the same rows ----

WORKERS = [(kind, before, after) for kind in KINDS for before, after in ((0, 1), (1, 4), (4, 0))]


@pytest.mark.row("R11")
@pytest.mark.parametrize(("kind", "before", "after"), sized(WORKERS, slow=1))
def test_another_number_of_loaders_changes_nothing(bench: Bench, kind: str, before: int, after: int) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind, dataloader_num_workers=before)
    trial.run(at=[["step_begin", 11, "kill", None]], code=KILLED)
    trial.changes["dataloader_num_workers"] = after
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)


def _split(batch: int, accumulation: int) -> dict[str, int]:
    return {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation}


SPLITS: dict[str, list[tuple[int, dict[str, int]]]] = {
    "accumulation 4 to 1": [(1, _split(1, 4)), (1, _split(4, 1))],
    "accumulation 1 to 4": [(1, _split(4, 1)), (1, _split(1, 4))],
    "ranks 1 to 2": [(1, _split(2, 2)), (2, _split(2, 1))],
    "ranks 2 to 1": [(2, _split(2, 1)), (1, _split(2, 2))],
}
"""(number of processes, keys) of the first life and the second: four rows a step in all of them."""
DRAWN = {"lora_dropout": 0.0, "neftune_noise_alpha": None}
"""Dropout and noise draw one number for each place of a micro-batch, so they do depend on the split."""


@pytest.mark.row("R11")
@pytest.mark.parametrize(("kind", "split"), sized([(kind, split) for kind in KINDS for split in SPLITS], slow=1))
def test_the_same_rows_split_otherwise_give_the_same_curve(bench: Bench, kind: str, split: str) -> None:
    """To rounding: sums are made in another order."""
    still = {key: value for key, value in DRAWN.items() if key in KINDS[kind]}
    whole = bench.uninterrupted(kind, **still)
    trial = bench.trial(kind, **still)
    (before, first), (after, second) = SPLITS[split]
    trial.changes |= first
    trial.run(at=[["step_begin", 10, "kill", None]], ranks=before, code=KILLED if before == 1 else 1)
    trial.changes |= second
    trial.finish(ranks=after)
    found, wanted = curve(trial), curve(whole)
    assert [step for step, _ in found] == [step for step, _ in wanted]
    for (_, one), (_, other) in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    bench.remove(trial)


def curve(trial: Trial) -> list[tuple[int, float]]:
    """(step, loss) of every line of the log."""
    lines = [json.loads(line) for line in (trial.output / "trainer_log.jsonl").read_text().splitlines()]
    return [(line["current_steps"], line["loss"]) for line in lines if "loss" in line]
