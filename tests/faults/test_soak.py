"""R22: hundreds of checkpoints, and the process holds no more than at the beginning."""

from __future__ import annotations

import statistics

import pytest

from tests.faults.sizes import sized
from tests.faults.trial import Bench


@pytest.mark.row("R22")
@pytest.mark.parametrize(("kind", "number"), sized([("sft-lora", 100), ("sft-lora", 500)], slow=1))
def test_many_checkpoints_hold_nothing(bench: Bench, cases: object, kind: str, number: int) -> None:
    """Descriptors and threads stay as many; memory grows by less than 1 % over a thousand checkpoints."""
    trial = bench.trial(kind, max_steps=number, save_steps=1, logging_steps=50, eval_strategy="no", num_train_epochs=1)
    measured = trial.folder / "measured"
    trial.finish(at=[["save", None, "measure", str(measured)]])
    lines = [tuple(map(int, line.split())) for line in measured.read_text().splitlines()]
    assert len(lines) == number
    half = lines[number // 2 :]
    assert len({line[0] for line in half}) == 1, "descriptors"
    assert len({line[1] for line in half}) == 1, "threads"
    quarter = number // 4
    before, after = (statistics.median(line[2] for line in part) for part in (half[:quarter], half[-quarter:]))
    assert after <= before * (1 + 0.01 * max(number / 1000, 0.3)), f"{before} kB, then {after} kB"
    bench.remove(trial)
