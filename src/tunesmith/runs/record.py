"""Keeps `run.json` while a run goes on: `with recording(config, plan) as record: ...`

What the record cannot write after its beginning is a warning: a run is worth more than its record.
"""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import PreemptedError, StorageError, TunesmithError, exit_code_of
from tunesmith.core.log import get_logger, is_main_process
from tunesmith.core.process import ProcessId
from tunesmith.core.secrets import redact_words
from tunesmith.runs import manifest as manifests
from tunesmith.runs import registry
from tunesmith.runs.facts import config_digest, hardware, seeds, versions
from tunesmith.runs.saved import final_files

if TYPE_CHECKING:
    from tunesmith.config import RunConfig, RunPlan

__all__ = ["Record", "recording"]

_SECONDS = 10.0  # between two notes of how far it is
_REPLACES = "replaces"  # the record of the run whose files are still in the folder while a fresh start prepares


class Record:
    """The record of a run in `folder`. Processes other than the main one write nothing. `beside`: what the run does
    (eval, predict) in the folder of a training run, whose record it only adds to. `made`: the folders that were made
    for the record; None where there was a record before."""

    def __init__(
        self, folder: Path, *, silent: bool = False, beside: str = "", made: Sequence[Path] | None = None
    ) -> None:
        self.folder, self._silent, self._beside, self._made = folder, silent, bool(beside), made
        self.prefix = f"{beside}_" if beside else ""
        """Before the names of files that the training run has written too."""
        self._noted = time.monotonic()
        self._warned = self._prepared = False
        self._steps: dict[str, int] = {}

    def event(self, kind: str, **facts: Any) -> None:
        """Add what happened, with the step that is done unless `facts` has one."""
        self._change(lambda found: manifests.add_event(found, kind, **{**self._place(), **facts}))

    def keep(self, **fields: Any) -> None:
        """Set fields of the manifest; of a run beside another, only its metrics."""
        self._change(lambda found: self._set(found, fields))

    def prepared(self, **fields: Any) -> None:
        """The data is ready, and what an earlier run left in the folder is gone."""

        def change(found: dict[str, Any]) -> None:
            earlier = found.pop(_REPLACES, None)
            if earlier is not None:
                registry.forget(earlier["id"])
            self._set(found, fields)

        self._prepared = True
        self._change(change)

    def saved(self) -> None:
        """The weights are saved: keep the sizes and hashes of the files that the run ends with."""
        if not self._silent and not self._beside:
            self.keep(saved=final_files(self.folder))

    def on_steps(self, done: int, total: int) -> None:
        """So many optimizer steps are done; written now and then."""
        first = not self._steps
        self._steps = {"done": done, "total": total}
        if first or time.monotonic() - self._noted >= _SECONDS:
            self._noted = time.monotonic()
            self.keep(steps=self._steps)

    def ended(self, error: BaseException | None) -> None:
        """How the run ended. One that was refused for its input or for the machine leaves no record, and a fresh start
        that failed before it replaced anything the earlier one."""
        if self._made is not None and _is_refusal(error) and not self._prepared:
            self._withdraw()
            return
        code = 0 if error is None else exit_code_of(error)
        stopped = isinstance(error, KeyboardInterrupt | PreemptedError)
        status = "finished" if error is None else "stopped" if stopped else "failed"
        facts: dict[str, Any] = {"exit_code": code}
        if error is not None and not stopped:
            facts["error"] = _described(error)

        def change(found: dict[str, Any]) -> None:
            earlier = found.pop(_REPLACES, None)
            if earlier is not None:
                registry.forget(found["id"])
                found.clear()
                found.update(earlier)
                manifests.add_event(found, "not_replaced", **facts)
                return
            if self._beside:
                manifests.add_event(found, f"{status}_beside", **facts)
                return
            manifests.add_event(found, status, **self._place(), **facts)
            steps = {"steps": self._steps} if self._steps else {}
            self._set(found, {"status": status, "exit_code": code, "error": facts.get("error"), **steps})

        self._change(change)

    def _withdraw(self) -> None:
        with suppress(OSError), manifests.locked(self.folder):
            found = manifests.read(self.folder)
            if found is not None:
                registry.forget(found["id"])
            manifests.remove(self.folder)
        for folder in self._made or ():
            with suppress(OSError):  # not empty
                folder.rmdir()

    def _set(self, found: dict[str, Any], fields: Mapping[str, Any]) -> None:
        metrics = {**found.get("metrics", {}), **fields.get("metrics", {})}
        found.update({"metrics": metrics} if self._beside else {**fields, "metrics": metrics})

    def _place(self) -> dict[str, Any]:
        return {"step": self._steps["done"]} if self._steps else {}

    def _change(self, change: Any) -> None:
        if self._silent:
            return
        try:
            with manifests.changing(self.folder) as found:
                change(found)
        except OSError as error:
            if not self._warned:
                self._warned = True
                get_logger().warning("the record of the run cannot be written: %s", error)


@contextmanager
def recording(config: RunConfig, plan: RunPlan) -> Generator[Record]:
    """Record a run from its plan to its end, however that comes. Raises OSError where the record cannot be begun."""
    record = _begin(config, plan)
    try:
        yield record
    except BaseException as error:
        record.ended(error)
        raise
    record.ended(None)


def _begin(config: RunConfig, plan: RunPlan) -> Record:
    folder = Path(plan.output_dir)
    if not is_main_process():
        return Record(folder, silent=True)
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with manifests.locked(folder):
        earlier = manifests.read(folder)
        if earlier is not None:
            earlier = earlier.get(_REPLACES) or earlier
        beside = ""
        if earlier is not None and earlier["kind"] == "train" and not config.train.do_train:
            found, beside = earlier, _kind(config)
            manifests.add_event(found, "started_beside", what=beside, process=ProcessId.of().to_dict())
        else:
            found = _beginning(config, plan, earlier)
        manifests.write(folder, found)
    try:
        registry.register(found["id"], folder)
    except OSError as error:
        get_logger().warning("the run is not in the list of runs: %s", error)
    return Record(folder, beside=beside, made=made if earlier is None else None)


def _beginning(config: RunConfig, plan: RunPlan, earlier: dict[str, Any] | None) -> dict[str, Any]:
    """The manifest of a run that begins: a new one, or the one that it goes on with."""
    fields: dict[str, Any] = {
        "name": str(config.train.value("run_name") or Path(plan.output_dir).absolute().name),
        "kind": _kind(config),
        "status": "preparing",
        "exit_code": None,
        "error": None,
        "process": ProcessId.of().to_dict(),
        "command": redact_words(sys.argv),
        "cwd": os.getcwd(),
        "config": config.to_flat(secrets="redact"),
        "config_digest": config_digest(config.to_flat()),
        "plan": plan.to_dict(),
        "versions": versions(),
        "hardware": hardware(plan),
        "seeds": seeds(config),
        "warnings": list(config.warnings),
    }
    if earlier is not None and (_goes_on(plan) or _did_nothing(earlier)):
        facts = {"checkpoint": plan.resume, "changed": _changed(earlier["config"], fields["config"])}
        manifests.add_event(earlier, "resumed" if plan.resume else "started", **(facts if plan.resume else {}))
        return {**earlier, **fields}
    begun = {
        "format": manifests.FORMAT,
        "id": secrets.token_hex(4),
        "name": fields["name"],
        "tags": [],
        "created": manifests.now(),
        **fields,
        "data": [],
        "template_digest": None,
        "model": {"name": config.model.model_name_or_path, "revision": None},
        "events": [],
        "checks": {},
        "steps": {"done": 0, "total": 0},
        "metrics": {},
    }
    if earlier is not None:
        begun[_REPLACES] = earlier
    facts = {"checkpoint": plan.resume} if plan.resume else {}
    manifests.add_event(begun, "resumed" if plan.resume else "started", **facts)
    return begun


def _kind(config: RunConfig) -> str:
    """train, eval or predict: the first of them that the run does."""
    return "train" if config.train.do_train else "eval" if config.train.do_eval else "predict"


def _goes_on(plan: RunPlan) -> bool:
    return plan.resume is not None and Path(plan.resume).absolute().parent == Path(plan.output_dir).absolute()


def _did_nothing(earlier: Mapping[str, Any]) -> bool:
    """Whether a start is another try of one that ended before its first step."""
    return earlier["status"] != "finished" and not earlier["steps"]["done"]


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Keys whose values differ, with both."""
    keys = sorted({*before, *after})
    return {key: [before.get(key), after.get(key)] for key in keys if before.get(key) != after.get(key)}


def _is_refusal(error: BaseException | None) -> bool:
    """Whether a run ended for what it was given: nothing happened that a record could tell."""
    return isinstance(error, TunesmithError) and not isinstance(error, PreemptedError | StorageError)


def _described(error: BaseException) -> dict[str, str]:
    if isinstance(error, TunesmithError):
        return {"code": error.code, "what": error.problems[0].what}
    return {"code": type(error).__name__, "what": str(error).partition("\n")[0][:500]}
