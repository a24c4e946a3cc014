"""R7: a file of the newest checkpoint is missing, cut off, changed, or of another step."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import oracle
from tests.faults.kinds import KINDS
from tests.faults.sizes import shares, sized
from tests.faults.trial import Bench, Trial

KILLED, CORRUPT = -9, 65
PARTS = 2


def _flip(file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    data[random.Random(file.name).randrange(len(data))] ^= 1 << 3
    file.write_bytes(data)


def _extra(file: Path, other: Path) -> None:
    (file.parent / f"more-{file.name}").write_bytes(file.read_bytes())


DAMAGE: dict[str, Callable[[Path, Path], None]] = {
    "missing": lambda file, other: file.unlink(),
    "empty": lambda file, other: file.write_bytes(b""),
    "half": lambda file, other: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "one bit": _flip,
    "of another step": lambda file, other: shutil.copyfile(other, file),
    "extra": _extra,
}
"""(file, the file of the same name in the checkpoint before) -> None."""

CASES = [(kind, damage) for kind in KINDS for damage in DAMAGE]


def stopped(bench: Bench, kind: str) -> Trial:
    """A run that was killed after checkpoint 15; number 12 is there too."""
    return bench.once("base", kind, lambda trial: trial.run(at=[["step_begin", 15, "kill", None]], code=KILLED))


def damaged(bench: Bench, kind: str, damage: str) -> list[tuple[str, Trial]]:
    """(file, run whose newest checkpoint has it damaged), for every file that the damage changes."""
    found = []
    base = stopped(bench, kind)
    newest, before = oracle.checkpoints(base.output)[::-1]
    for file in sorted(path for path in newest.rglob("*") if path.is_file()):
        name = file.relative_to(newest)
        same = (before / name).is_file() and (before / name).read_bytes() == file.read_bytes()
        if not (damage == "of another step" and (same or not (before / name).is_file())):
            trial = base.copy("damaged")
            folder = trial.output / newest.name
            DAMAGE[damage](folder / name, trial.output / before.name / name)
            found.append((str(name), trial))
    return found


@pytest.mark.row("R7")
@pytest.mark.parametrize(
    ("kind", "damage", "part", "of"),
    [
        *sized([("sft-lora", "one bit", 1, 9), ("pt-full", "half", 0, 9)], quick=2),
        *sized([(*case, part, PARTS) for case in CASES for part in range(PARTS)], slow=1),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(
    bench: Bench, cases: Callable[[int], None], kind: str, damage: str, part: int, of: int
) -> None:
    whole = bench.uninterrupted(kind)
    chosen = shares(damaged(bench, kind, damage), part, of)
    cases(len(chosen))
    for name, trial in chosen:
        child = trial.run()
        told = [line for line in child.text.splitlines() if "checkpoint-15" in line and name in line]
        assert len(told) == 1, f"{name}: one warning with the reason, not {told}\n{child.text[-1500:]}"
        trial.check_readable()
        trial.check_equal(whole)
        bench.remove(trial)


@pytest.mark.row("R7")
@pytest.mark.parametrize(
    ("kind", "damage", "part", "of"),
    [
        *sized([("sft-lora", "missing", 2, 15)], quick=1),
        *sized([(*case, part, PARTS) for case in CASES for part in range(PARTS)], slow=1),
    ],
)
def test_the_only_checkpoint_damaged_is_an_error_and_no_fresh_start(
    bench: Bench, cases: Callable[[int], None], kind: str, damage: str, part: int, of: int
) -> None:
    chosen = shares(damaged(bench, kind, damage), part, of)
    cases(len(chosen))
    for name, trial in chosen:
        shutil.rmtree(trial.output / "checkpoint-12")
        child = trial.run(code=CORRUPT)
        assert name in child.text, child.text[-1500:]
        assert "checkpoint-15" in child.text
        assert (trial.output / "checkpoint-15").is_dir(), "what is there is left for the user to look at"
        bench.remove(trial)
