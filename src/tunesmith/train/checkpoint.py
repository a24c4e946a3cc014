"""Where a run goes on from, and what it may not overwrite."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MissingInputError, OutputError, Problem
from tunesmith.core.log import get_logger, is_main_process
from tunesmith.train.whole import STATE, what_is_torn

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["POSITION", "STATE", "check_writable", "checkpoints", "clear_previous", "find_resume", "read_position"]

POSITION = "stream.json"
"""Where a stream goes on."""

_NAME = re.compile(r"checkpoint-(\d+)")
_RESULTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
_LOGS = (
    "trainer_log.jsonl",
    "trainer_state.json",
    "training_loss.png",
    "generated_predictions.jsonl",
    "self_proof.json",
)


def checkpoints(output_dir: Path) -> list[Path]:
    """Folders `checkpoint-N` that hold a trainer state, oldest first."""
    found = [
        (int(match.group(1)), folder)
        for folder in output_dir.glob("checkpoint-*")
        if (match := _NAME.fullmatch(folder.name)) and (folder / STATE).is_file()
    ]
    return [folder for _, folder in sorted(found)]


def find_resume(config: RunConfig) -> str | None:
    """The checkpoint to go on from, or None for a fresh start.

    `resume_from_checkpoint: path` is taken at its word; `true`, or an output folder that holds checkpoints, means the
    newest whole one. `overwrite_output_dir: true` starts afresh. Raises MissingInputError or OutputError.
    """
    if not config.train.do_train:
        return None
    wanted = config.train.value("resume_from_checkpoint")
    wanted = {"true": True, "false": False}.get(str(wanted).lower(), wanted)
    output_dir = Path(str(config.train.output_dir)).expanduser()
    if isinstance(wanted, str):
        if not (Path(wanted).expanduser() / STATE).is_file():
            near = ", ".join(str(folder) for folder in checkpoints(output_dir)) or "none in the output folder"
            raise MissingInputError(
                Problem(
                    "E-TRAIN-006",
                    "this is no checkpoint to resume from",
                    where="resume_from_checkpoint",
                    got=wanted,
                    fix=f"a folder with {STATE}; there is: {near}",
                )
            )
        if torn := what_is_torn(Path(wanted).expanduser()):
            raise MissingInputError(_torn(wanted, torn, checkpoints(output_dir)))
        return _resumable(Path(wanted).expanduser())
    found = checkpoints(output_dir)
    if wanted is True and not found:
        raise MissingInputError(
            Problem(
                "E-TRAIN-007",
                "there is no checkpoint to resume from",
                where=f"output_dir: {output_dir}",
                fix="leave resume_from_checkpoint out to start from the beginning",
            )
        )
    if wanted is False or (config.train.overwrite_output_dir and wanted is not True):
        return None
    if found:
        newest = _newest_whole(found)
        get_logger().info("resuming from %s (overwrite_output_dir: true starts afresh)", newest)
        return _resumable(newest)
    if any((output_dir / name).exists() for name in _RESULTS):
        raise OutputError(
            Problem(
                "E-TRAIN-008",
                "the output folder already holds a trained model, and no checkpoint to go on from",
                where=f"output_dir: {output_dir}",
                fix="choose another output_dir, or write overwrite_output_dir: true",
            )
        )
    return None


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


def _newest_whole(found: list[Path]) -> Path:
    """Torn checkpoints are passed over and named. Where all are torn, starting afresh would lose work unasked."""
    for folder in reversed(found):
        torn = what_is_torn(folder)
        if torn is None:
            return folder
        get_logger().warning("%s is left out: %s (the run was stopped while it was written)", folder, torn)
    raise MissingInputError(_torn(str(found[-1]), str(what_is_torn(found[-1])), []))


def _torn(folder: str, torn: str, others: list[Path]) -> Problem:
    whole = [str(other) for other in others if what_is_torn(other) is None]
    fix = f"whole ones: {', '.join(whole)}" if whole else "overwrite_output_dir: true starts afresh"
    return Problem("E-TRAIN-014", f"the checkpoint is not whole: {torn}", where=folder, fix=fix)


def _resumable(folder: Path) -> str:
    """The folder as text; says so where a run cannot go on exactly (`save_only_model`)."""
    if not any(folder.glob("optimizer*")):
        get_logger().warning("%s holds no state of the optimizer and of chance: both start anew", folder)
    return str(folder)


def clear_previous(output_dir: Path) -> None:
    """Make the folder; with a fresh start, take away what an earlier run of ours left there (by name only).

    Raises OutputError if the folder cannot be written to.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        if is_main_process():
            for folder in checkpoints(output_dir):
                shutil.rmtree(folder)
            for name in _LOGS:
                (output_dir / name).unlink(missing_ok=True)
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
