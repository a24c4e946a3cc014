"""Where a run goes on from, and what it may not overwrite."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tunesmith.checkpoints.plain import STATE, what_is_torn
from tunesmith.checkpoints.store import MANIFEST, committed, remove, set_aside, step_of, sweep, verify
from tunesmith.core.errors import DataError, MissingInputError, OutputError, Problem
from tunesmith.core.files import read_json
from tunesmith.core.log import get_logger, is_main_process
from tunesmith.train.callbacks.names import ANOMALIES_NAME, GENERATIONS_NAME

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = [
    "POSITION",
    "STATE",
    "check_writable",
    "find_resume",
    "in_main_process",
    "make_room",
    "read_position",
    "what_is_wrong",
]

POSITION = "stream.json"
"""Where a stream goes on."""

T = TypeVar("T")

_RESULTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
_LOGS = (
    "trainer_log.jsonl",
    "trainer_state.json",
    "training_loss.png",
    "generated_predictions.jsonl",
    "self_proof.json",
    ANOMALIES_NAME,
    GENERATIONS_NAME,
)
_OURS = "progress.json"
"""A file of every checkpoint that has a manifest; one without it is of another tool, or of transformers alone."""


def what_is_wrong(folder: Path) -> str | None:
    """Why a checkpoint cannot be taken, in words that name the file; None for one that is whole.

    Without a manifest it is one of transformers' own layout (LlamaFactory's, say): no file of it may be cut off.
    """
    if (folder / MANIFEST).exists() or (folder / _OURS).exists():
        return verify(folder)
    return what_is_torn(folder)


def find_resume(config: RunConfig) -> str | None:
    """The checkpoint to go on from, or None for a fresh start. Only for whoever holds the lock of the folder: what a
    killed run left is swept.

    `resume_from_checkpoint: path` is that checkpoint or an error. `true` and `auto` are the newest whole one, or the
    start where there is none. Left out, it is the same, but `overwrite_output_dir: true` starts afresh; `false`
    always does. Raises MissingInputError (66), DataError (65) where there are checkpoints and none is whole, or
    OutputError (73).
    """
    if not config.train.do_train:
        return None
    output_dir = Path(str(config.train.output_dir)).expanduser()
    for rescued in sweep(output_dir):
        get_logger().info("%s was complete but for its name, and has it now", rescued)
    wanted = _wanted(config)
    if isinstance(wanted, str):
        return _named(Path(wanted).expanduser(), output_dir)
    if wanted is False or (config.train.overwrite_output_dir and wanted is not True):
        return None
    if found := committed(output_dir):
        newest = _newest_whole(found)
        get_logger().info("resuming from %s (overwrite_output_dir: true starts afresh)", newest)
        return _resumable(newest)
    if wanted is True:
        get_logger().info("there is no checkpoint in %s yet: this is the start", output_dir)
    elif any((output_dir / name).exists() for name in _RESULTS) and not _was_stopped(output_dir):
        what = "the output folder already holds a trained model, and no checkpoint to go on from"
        fix = "choose another output_dir, or write overwrite_output_dir: true"
        raise OutputError(Problem("E-TRAIN-008", what, f"output_dir: {output_dir}", fix=fix))
    return None


def _wanted(config: RunConfig) -> bool | str | None:
    wanted = config.train.value("resume_from_checkpoint")
    found: bool | str | None = {"true": True, "auto": True, "false": False}.get(str(wanted).lower(), wanted)
    return found


def _was_stopped(output_dir: Path) -> bool:
    """Whether the run that wrote into this folder did not come to its end."""
    record = read_json(output_dir / "run.json")
    return isinstance(record, dict) and record.get("status") not in (None, "finished")


def _named(folder: Path, output_dir: Path) -> str:
    """A checkpoint that the user names. Those behind it belong to another course of the run."""
    if not folder.is_dir() or not any((folder / name).is_file() for name in (STATE, MANIFEST)):
        near = ", ".join(map(str, committed(output_dir))) or "none in the output folder"
        what = "this is no checkpoint to resume from"
        fix = f"a folder with {STATE}; there is: {near}"
        raise MissingInputError(Problem("E-TRAIN-006", what, "resume_from_checkpoint", str(folder), fix))
    if wrong := what_is_wrong(folder):
        raise DataError(_torn(folder, wrong, committed(output_dir)))
    inside = folder.resolve().parent == output_dir.resolve()
    step = step_of(folder) if inside else -1
    later = [one for one in committed(output_dir) if step is not None and (step_of(one) or 0) > step]
    if aside := set_aside(output_dir, later):
        get_logger().info("later checkpoints are of another course of the run: they are in %s now", aside)
    return _resumable(folder)


def _newest_whole(found: list[Path]) -> Path:
    """Torn checkpoints are passed over and named. Where all are torn, starting afresh would lose work unasked."""
    reasons = {}
    for folder in reversed(found):
        reasons[folder] = what_is_wrong(folder)
        if reasons[folder] is None:
            return folder
        get_logger().warning("%s is left out: %s", folder, reasons[folder])
    raise DataError(_torn(found[-1], str(reasons[found[-1]]), []))


def _torn(folder: Path, wrong: str, others: list[Path]) -> Problem:
    whole = [str(other) for other in others if what_is_wrong(other) is None]
    fix = f"whole ones: {', '.join(whole)}" if whole else "overwrite_output_dir: true starts afresh"
    return Problem("E-TRAIN-014", f"the checkpoint is not whole: {wrong}", str(folder), fix=fix)


def _resumable(folder: Path) -> str:
    """The folder as text; says so where a run cannot go on exactly."""
    if not any(folder.glob("optimizer*")):
        get_logger().warning("%s holds no state of the optimizer and of chance: both start anew", folder)
    elif not (folder / MANIFEST).exists():
        get_logger().warning(
            "%s has no %s: what it holds cannot be verified, nor compared with this config", folder, MANIFEST
        )
    return str(folder)


def in_main_process(find: Callable[[], T]) -> T:
    """What `find` gives in the main process, in all of them; or its error."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    if PartialState().num_processes == 1:
        return find()
    told: list[Any] = [None, None]
    if is_main_process():
        try:
            told[0] = find()
        except Exception as error:
            told[1] = error
    broadcast_object_list(told)
    if told[1] is not None:
        raise told[1]
    found: T = told[0]
    return found


def read_position(checkpoint: str | None, *, streaming: bool) -> dict[str, Any] | None:
    """Where the stream of a checkpoint goes on; None for a fresh start, and without streaming.

    Raises MissingInputError where a run and its checkpoint do not both stream.
    """
    if checkpoint is None:
        return None
    file = Path(checkpoint) / POSITION
    if file.is_file() != streaming:
        if streaming and not any(Path(checkpoint).glob("optimizer*")):  # save_only_model: all else starts anew as well
            return None
        what = "the checkpoint holds no place in a stream" if streaming else "the checkpoint is of a run that streams"
        fix = f"streaming: {'false' if streaming else 'true'}, or overwrite_output_dir: true to start afresh"
        raise MissingInputError(Problem("E-TRAIN-017", what, where=checkpoint, fix=fix))
    found: dict[str, Any] | None = json.loads(file.read_text("utf-8")) if streaming else None
    return found


def make_room(output_dir: Path, *, keep: bool) -> None:
    """A fresh start: take away what an earlier run of ours left in the folder (by name only), or with `keep` move it
    aside. Raises OutputError if the folder cannot be written to."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if not is_main_process():
            return
        logs = [output_dir / name for name in _LOGS if (output_dir / name).exists()]
        found = committed(output_dir)
        if keep and found:
            get_logger().info("earlier checkpoints are in %s now", set_aside(output_dir, [*found, *logs]))
            return
        for folder in found:
            remove(folder)
        for file in logs:
            file.unlink(missing_ok=True)
        sweep(output_dir)
    except OSError as error:
        raise _not_writable(output_dir, error.strerror) from error


def check_writable(output_dir: Path) -> None:
    """Raises OutputError where the folder could not be made, before hours go into the data. Makes nothing."""
    there = next(folder for folder in (output_dir.absolute(), *output_dir.absolute().parents) if folder.exists())
    if not there.is_dir():
        raise _not_writable(output_dir, f"{there.name} is a file, not a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise _not_writable(output_dir, f"no permission to write to {there}")


def _not_writable(output_dir: Path, reason: str | None) -> OutputError:
    what = "the output folder cannot be written to"
    return OutputError(
        Problem("E-TRAIN-009", what, f"output_dir: {output_dir}", got=reason, fix="choose another output_dir")
    )
