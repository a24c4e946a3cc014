"""Model FLOPs utilisation: the share of a device's peak that the mathematics of training used.

From a run that measured itself, or from a config and the seconds of a step. The peak is that of the data sheet
(`models/peaks.py`), by the arithmetic of the run.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.core.files import read_json
from tunesmith.core.suggest import did_you_mean

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["Utilisation", "mfu_of_run", "mfu_of_step", "peak_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilisation:
    """mfu: share of `peak_tflops` of a device that `tflops` is. source: what the FLOPs were measured or counted by."""

    mfu: float
    tflops: float
    peak_tflops: float
    device: str
    arithmetic: str
    source: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def peak_of(name: str, arithmetic: str) -> float:
    """TFLOP/s of a device by its name in the table or the name that torch tells of it.

    Raises UsageError where the table does not know it, or no such arithmetic of it.
    """
    from tunesmith.models.peaks import PEAKS, find_peak

    labels = {label.strip().lower(): peak for peak in PEAKS for label in peak.label.split(",")}
    peak = labels.get(name.strip().lower()) or find_peak(name)
    if peak is None:
        fix = did_you_mean(name, [one.label for one in PEAKS]) or "--peak TFLOPS, from the data sheet of its maker"
        raise UsageError(Problem("E-STATS-006", "the peak of this device is not known", "--device", name, fix))
    found = {"bfloat16": peak.bfloat16, "float16": peak.float16, "float32": peak.float32}[arithmetic]
    if found is None:
        what, fix = f"the table has no {arithmetic} of this device", "--peak TFLOPS, from the data sheet of its maker"
        raise UsageError(Problem("E-STATS-006", what, "--device", peak.label, fix))
    return found


def mfu_of_run(folder: Path, *, peak: float | None, device: str | None) -> Utilisation:
    """From train_results.json and plan.json of a run. `device`: as `peak_of` takes it (None: the one that run.json
    recorded); `peak`: TFLOP/s, instead of the table's."""
    results, plan = read_json(folder / "train_results.json"), read_json(folder / "plan.json")
    if not isinstance(results, dict) or not isinstance(plan, dict) or "train_tflops_per_device" not in results:
        what, fix = "the folder holds no figures of a run that has trained", "name the output_dir of a finished run"
        got = "train_results.json and plan.json are needed"
        raise MissingInputError(Problem("E-STATS-007", what, str(folder), got, fix))
    arithmetic = str(plan.get("autocast") or plan["dtype"])
    name = device or _recorded(folder)
    return _share(float(results["train_tflops_per_device"]), peak, name, arithmetic, str(folder))


def mfu_of_step(
    config: RunConfig, seconds: float, *, peak: float | None, device: str | None, devices: int = 1
) -> Utilisation:
    """From the FLOPs of a config's mean step and how long one takes on so many devices."""
    from tunesmith.stats.flops import count_flops
    from tunesmith.train.plan import resolve_plan

    plan = resolve_plan(config)
    tflops = count_flops(config).per_step / seconds / devices / 1e12
    return _share(tflops, peak, device, plan.autocast or plan.dtype, f"{seconds:g} s a step")


def _recorded(folder: Path) -> str | None:
    record = read_json(folder / "run.json")
    hardware = record.get("hardware") if isinstance(record, dict) else None
    found = hardware.get("device_name") if isinstance(hardware, dict) else None
    return None if found is None else str(found)


def _share(tflops: float, peak: float | None, device: str | None, arithmetic: str, source: str) -> Utilisation:
    if peak is None and device is None:
        what = "what the device can do at most is not known: the run was not on a GPU, or none is recorded"
        fix = '--device "H100 SXM", or --peak TFLOPS from a data sheet or a measurement'
        raise UsageError(Problem("E-STATS-006", what, source, fix=fix))
    most = peak if peak is not None else peak_of(str(device), arithmetic)
    return Utilisation(
        mfu=round(tflops / most, 6),
        tflops=round(tflops, 6),
        peak_tflops=most,
        device=device or "(given peak)",
        arithmetic=arithmetic,
        source=source,
    )
