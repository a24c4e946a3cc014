"""Does the checkpoint fit the config, the rows and the model of today? What was trained so far must go on to mean
something; what may change is applied and told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.checkpoints.store import manifest_of
from tunesmith.config.effects import idle_keys
from tunesmith.config.resume import policy_of, resume_values
from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.train.plan import as_before

if TYPE_CHECKING:
    from tunesmith.config import RunConfig, RunPlan

__all__ = ["Change", "as_recorded", "check_config", "check_fact", "facts_of", "recorded"]

_BATCHES = {"fast_path", "flash_attn", "neftune_noise_alpha", "fp16"}
_ORDER = {"disable_shuffling", "train_sampling_strategy"}
_AFRESH = "overwrite_output_dir: true to start afresh"
# What a run derives, and the key that `resume_allow` names for it.
_DERIVED = {"global_batch_size": "global_batch_size", "data": "dataset", "model": "model_name_or_path"}
_WHAT = {
    "global_batch_size": "the rows of a step are not as many as when the checkpoint was made",
    "data": "the rows to train on are not those of the checkpoint",
    "model": "the weights that are not trained are not those of the checkpoint",
}


@dataclass(frozen=True, slots=True)
class Change:
    """A key that holds another value from the step of the resume on."""

    key: str
    before: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.key} {_text(self.before)} -> {_text(self.now)}"


def facts_of(config: RunConfig, plan: RunPlan) -> dict[str, Any]:
    """What a checkpoint records of the run: the values that matter, and how its steps are made."""
    return {
        "config": resume_values(config),
        "global_batch_size": plan.global_batch_size,
        "world_size": plan.world_size,
        "order": plan.order,
        "batches": plan.batches,
    }


def check_config(config: RunConfig, plan: RunPlan) -> list[Change]:
    """What has changed since the checkpoint of the plan and may; told, for the run to record.

    Raises UsageError with all keys that may not change. A checkpoint that records nothing (of another tool) fits.
    """
    manifest = recorded(plan)
    if manifest is None:
        return []
    before, now = manifest["config"], facts_of(config, plan)
    changes = [
        Change(key, before[key], value)
        for key, value in now["config"].items()
        if key in before and before[key] != value
    ]
    idle = idle_keys(config)
    changes = [one for one in changes if one.key not in idle]
    if manifest["global_batch_size"] != now["global_batch_size"]:
        changes.append(Change("global_batch_size", manifest["global_batch_size"], now["global_batch_size"]))
    allowed = set(config.train.resume_allow)
    frozen = [one for one in changes if policy_of(one.key) != "live" and one.key not in allowed]
    if frozen:
        raise UsageError([_problem(one, config, str(plan.resume)) for one in frozen])
    if changes:
        get_logger().info("from step %s on: %s", manifest["step"], "; ".join(map(str, changes)))
    return changes


def as_recorded(plan: RunPlan, config: RunConfig, changes: Sequence[Change]) -> RunPlan:
    """The plan with the order of rows that the checkpoint recorded, unless a key that says it has changed.

    Raises MachineError where the batches cannot be what they were, unless the user has changed how they are made.
    """
    before = recorded(plan)
    if before is None:
        return plan
    changed = {one.key for one in changes}
    allowed = {*config.train.resume_allow, *({"fast_path"} if changed & _BATCHES else ())}
    found = as_before(plan, before, allowed)
    return plan if changed & _ORDER else found


def recorded(plan: RunPlan) -> dict[str, Any] | None:
    """What the checkpoint of the plan recorded of its run; None without one, and where it records nothing."""
    manifest = None if plan.resume is None else manifest_of(Path(plan.resume))
    return manifest if manifest is not None and "config" in manifest else None


def check_fact(name: str, value: Any, plan: RunPlan, allowed: Sequence[str], shown: Mapping[str, Any]) -> None:
    """Compare something that was found out (a digest) with what the checkpoint recorded. `shown`: for people, what is
    known of both by the same names in the manifest.

    Raises UsageError where it differs and `allowed` does not have its key.
    """
    manifest = recorded(plan)
    if manifest is None or manifest.get(name) in (None, value) or _DERIVED[name] in allowed:
        return
    before = manifest.get("counts", {})
    differing = [
        f"{key} was {before[key]:,}, is {shown[key]:,}" for key in shown if key in before and before[key] != shown[key]
    ]
    got = "; ".join(differing) or "as many, but others"
    fix = _fix(",".join([*allowed, _DERIVED[name]]))
    raise UsageError(Problem("E-TRAIN-083", _WHAT[name], f"checkpoint: {plan.resume}", got, fix))


def _problem(change: Change, config: RunConfig, checkpoint: str) -> Problem:
    what = _WHAT.get(change.key, f"{change.key} is not what the checkpoint was made with")
    got = f"was {_text(change.before)}, is {_text(change.now)}"
    where = (
        f"{config.place(change.key)}; checkpoint: {checkpoint}"
        if change.key not in _WHAT
        else f"checkpoint: {checkpoint}"
    )
    return Problem("E-TRAIN-083", what, where, got, _fix(change.key))


def _fix(key: str) -> str:
    return f"as it was, or resume_allow: {key} to go on with it all the same, or {_AFRESH}"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "nothing"
    return "nothing" if value is None else str(value)
