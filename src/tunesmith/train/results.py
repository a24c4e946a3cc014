"""What a run leaves behind besides weights: its config, plan, data report and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.files import read_json, write_atomically, write_json
from tunesmith.core.log import is_main_process
from tunesmith.train.checkpoint import make_room

if TYPE_CHECKING:
    from tunesmith.config import RunConfig, RunPlan
    from tunesmith.data import DataReport
    from tunesmith.train.self_proof import SelfProof
    from tunesmith.train.trainer import Trainer

__all__ = ["Result", "record_data", "record_metrics", "record_plan", "record_proof", "record_start"]


@dataclass(frozen=True, slots=True)
class Result:
    """Where a run's files are, and its last metrics by name (`train_loss`, `eval_loss`, ...)."""

    output_dir: Path
    metrics: dict[str, float]
    plan: RunPlan

    def summary_lines(self) -> list[str]:
        """A few lines for people."""
        lines = [f"saved: {self.output_dir}"]
        for name, value in sorted(self.metrics.items()):
            lines.append(f"  {name:32} {value:,.6g}" if isinstance(value, int | float) else f"  {name:32} {value}")
        return lines


def record_start(config: RunConfig, plan: RunPlan, report: DataReport, prefix: str = "", *, fresh: bool) -> None:
    """Make the output folder and write run.yaml (runs again as it is), plan.json and data_report.json; with a prefix
    before their names where those of a training run are there already. `fresh`: what an earlier run left there goes."""
    from tunesmith.config import dump_yaml

    folder = Path(plan.output_dir)
    if fresh and config.train.do_train:
        make_room(folder, keep=str(config.train.value("resume_from_checkpoint")).lower() == "false")
    folder.mkdir(parents=True, exist_ok=True)
    if not is_main_process():
        return
    write_atomically(folder / f"{prefix}run.yaml", dump_yaml(config))
    write_json(folder / f"{prefix}plan.json", plan.to_dict())
    write_json(folder / f"{prefix}data_report.json", report.to_dict())


def record_proof(plan: RunPlan, proof: SelfProof) -> None:
    """Write self_proof.json, from the main process."""
    if is_main_process():
        write_json(Path(plan.output_dir) / "self_proof.json", proof.to_dict())


def record_plan(plan: RunPlan, prefix: str = "") -> None:
    """Write plan.json, from the main process."""
    if is_main_process():
        write_json(Path(plan.output_dir) / f"{prefix}plan.json", plan.to_dict())


def record_data(folder: Path, report: DataReport) -> None:
    """Write data_report.json, from the main process."""
    if is_main_process():
        write_json(folder / "data_report.json", report.to_dict())


def record_metrics(trainer: Trainer, split: str, metrics: dict[str, float], config: RunConfig) -> dict[str, float]:
    """Write `{split}_results.json` and `all_results.json`, and return the metrics."""
    metrics = dict(metrics)
    if split == "train" and config.train.include_effective_tokens_per_second:
        metrics["effective_tokens_per_sec"] = metrics["train_tokens_per_second"]
    parts = {"train": trainer.memory.train, "eval": trainer.memory.evaluation}
    if split in parts:
        metrics |= parts[split].numbers()
    folder = Path(trainer.args.output_dir)
    if trainer.is_world_process_zero():
        write_json(folder / f"{split}_results.json", dict(sorted(metrics.items())))
        together = read_json(folder / "all_results.json") or {}
        write_json(folder / "all_results.json", dict(sorted({**together, **metrics}.items())))
    return metrics
