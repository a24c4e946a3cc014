"""R1, R2, R3: `kill -9` at any time, at every call of the saver, and again and again."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from tests.faults import oracle, shim
from tests.faults.kinds import SAVING, STEPS
from tests.faults.sizes import shares, sized
from tests.faults.trial import Bench, Trial

KILLED = -9
SLICES = 8
"""Kills of R1 for each kind of run, one at a random time of each eighth of it."""
SAVE, RETIRED = 18, 12
"""The save that R2 looks at, and the checkpoint that goes away with it, as two are kept."""
PARTS = 12


@pytest.mark.row("R1")
@pytest.mark.parametrize(
    ("kind", "part"), sized([(kind, part) for kind in SAVING for part in range(SLICES)], quick=2, slow=4)
)
def test_a_run_killed_at_a_random_time_goes_on_to_the_same_bits(bench: Bench, kind: str, part: int) -> None:
    whole = bench.uninterrupted(kind)
    trial = bench.trial(kind)
    child = trial.start()
    moment = (part + random.Random(f"{kind} {part}").random()) / SLICES
    child.over(moment * bench.seconds_of(kind))
    child.kill()
    assert child.wait() in (KILLED, 0)  # 0: this time it was quicker than when it was timed
    trial.check_readable()
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)


def killed_before_the_save(bench: Bench, kind: str) -> Trial:
    """A run of which checkpoints 12 and 15 are left, and whose next life makes number 18."""
    return bench.once("base", kind, lambda trial: trial.run(at=[["step_begin", 15, "kill", None]], code=KILLED))


def points_of_the_save(bench: Bench, kind: str) -> list[shim.Point]:
    """The calls from the first that has to do with checkpoint 18 to the last that takes away number 12."""
    traced = bench.once("traced", kind, lambda trial: trace(bench, trial))
    points = shim.read_journal(traced.folder / "journal")
    named = [f"checkpoint-{SAVE}", f"checkpoint-{RETIRED}"]
    concerned = [point.number for point in points if any(name in point.path + point.other for name in named)]
    assert concerned, "the journal has no call of the save"
    return [point for point in points if concerned[0] <= point.number <= concerned[-1]]


def trace(bench: Bench, trial: Trial) -> None:
    copied = killed_before_the_save(bench, trial.kind).copy("traced")
    trial.folder = copied.folder
    trial.run(arm=shim.Arm(str(trial.output), journal=str(trial.folder / "journal")))


@pytest.mark.row("R2")
@pytest.mark.parametrize(
    ("kind", "part", "of"),
    [
        *sized([("sft-lora", 50, 99), ("pt-full", 20, 60)], quick=2),
        *sized([(kind, part, PARTS) for kind in SAVING for part in range(PARTS)], slow=1),
    ],
)
def test_a_run_killed_at_a_call_of_the_saver_goes_on_to_the_same_bits(
    bench: Bench, cases: Callable[[int], None], kind: str, part: int, of: int
) -> None:
    """Before each call; and in the middle of those that write."""
    whole = bench.uninterrupted(kind)
    points = points_of_the_save(bench, kind)
    wanted = [(point, "kill") for point in points]
    wanted += [(point, "tear") for point in points if point.call == "write" and point.size > 1]
    chosen = shares(wanted, part, of)
    cases(len(chosen))
    failures = []
    for point, action in chosen:
        trial = killed_before_the_save(bench, kind).copy("killed")
        trial.run(arm=shim.Arm(str(trial.output), point.number, action), code=KILLED)
        found = oracle.visible_damage(trial.output)
        trial.finish()
        found += oracle.differences(trial.output, whole.output)
        failures += [f"{action} at {point.call} {point.path}: {found}"] if found else []
        bench.remove(trial)
    assert not failures, failures


@pytest.mark.row("R3")
@pytest.mark.parametrize(
    ("kind", "number"), sized([(list(SAVING)[number % len(SAVING)], number) for number in range(10)], slow=1)
)
def test_a_run_killed_every_few_steps_ends_with_the_same_bits(
    bench: Bench, cases: Callable[[int], None], kind: str, number: int
) -> None:
    """Three to seven steps a life, and at different places of a step."""
    longer = {"max_steps": 3 * STEPS}
    whole = bench.uninterrupted(kind, **longer)
    trial = bench.trial(kind, **longer)
    chance = random.Random(f"again and again {number}")
    kills, step = 0, 0
    while True:
        step = max([0, *map(oracle.step_of, oracle.checkpoints(trial.output))])
        step += chance.randint(3, 7)
        if step > longer["max_steps"]:
            break
        event = chance.choice(["step_begin", "step_end", "log" if step % 2 == 0 else "step_end"])
        trial.run(at=[[event, step, "kill", None]], code=KILLED)
        trial.check_readable()
        kills += 1
    cases(kills)
    trial.finish()
    trial.check_equal(whole)
    bench.remove(trial)
