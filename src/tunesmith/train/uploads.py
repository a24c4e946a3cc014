"""Uploads of a run to the Hugging Face hub (`push_to_hub`), at arm's length: training never waits for one.

What is uploaded is committed before (`checkpoints/store.py`). Its files are linked into a folder of their own, so that
neither rotation nor the next save touches them, and a process of its own sends them (`uploader.py`). Only the end of
the run waits, for the trained model. Neither records, logs nor config of the run are uploaded.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.checkpoints.store import STAGING, files_of
from tunesmith.core import env
from tunesmith.core.errors import PreemptedError, Problem, UnavailableError
from tunesmith.core.log import get_logger, is_main_process
from tunesmith.core.signals import StopAsked, current_signals

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["UploadSettings", "Uploads", "uploading"]

FIRST_ANSWER = 10.0
"""Seconds that the start of a run waits for the hub."""
_SAY_AGAIN = 30.0
_REPOSITORY, _README = "the repository", "README.md"
_ALLOW = "a token that may write there (hf auth login, HF_TOKEN), hub_model_id: a name you own, or push_to_hub: false"
_CARD = """---
library_name: {library}
{base}tags:
- tunesmith
- {stage}
---
# {name}

Trained with Tunesmith (stage `{stage}`, `finetuning_type: {method}`).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadSettings:
    """name: of the repository, with or without its owner. private: None leaves it to the owner's default. strategy:
    transformers' `hub_strategy`. always: also while the upload before is under way. card: the README.md."""

    name: str
    token: str | None = None
    private: bool | None = None
    strategy: str = "every_save"
    always: bool = False
    revision: str | None = None
    card: str = ""

    @classmethod
    def of(cls, config: RunConfig) -> UploadSettings:
        train, model = config.train, config.model
        name = train.value("hub_model_id") or Path(train.output_dir or "").resolve().name
        if train.push_to_hub_organization and "/" not in name:
            name = f"{train.push_to_hub_organization}/{name}"
        base = model.model_name_or_path or ""
        known = f"base_model: {base}\n" if base and not Path(base).exists() else ""  # the hub refuses a path there
        method = config.method.finetuning_type
        library = "peft" if method == "lora" else "transformers"
        card = _CARD.format(library=library, base=known, name=name, stage=config.objective.stage, method=method)
        return cls(
            name=name,
            token=train.value("hub_token") or model.hf_hub_token,
            private=train.value("hub_private_repo"),
            strategy=train.value("hub_strategy"),
            always=bool(train.value("hub_always_push")),
            revision=train.value("hub_revision"),
            card=card,
        )


@contextmanager
def uploading(config: RunConfig) -> Iterator[Uploads | None]:
    """The uploads of a run whose config asks for them, in the main process; whatever is under way at the end is left.

    Raises UnavailableError where the hub refuses (no token, no right, no such owner).
    """
    if not (config.train.do_train and config.train.value("push_to_hub") and is_main_process()):
        yield None
        return
    with Uploads(UploadSettings.of(config), Path(config.train.output_dir or "")) as uploads:
        yield uploads


class Uploads:
    """Sends checkpoints and the model of one run. Used as a context: its process ends with it."""

    def __init__(self, settings: UploadSettings, output_dir: Path) -> None:
        self._settings, self._output = settings, output_dir
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._under_way: list[tuple[str, Path]] = []
        self._failed: str | None = None
        self._refused: str | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Uploads:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith.train.uploader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C in the terminal is for the run
        )
        threading.Thread(target=self._listen, args=(self._process,), name="uploads", daemon=True).start()
        try:
            self._open()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if (process := self._process) is None:
            return
        self._process = None
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with suppress(OSError):
                pipe.close()
        for _name, folder in self._under_way:
            shutil.rmtree(folder, ignore_errors=True)

    # ---- what a run tells ----

    def checkpoint(self, folder: Path, model_files: Sequence[str]) -> None:
        """A checkpoint was committed; `model_files` are those of it that are no states. Returns at once."""
        strategy = self._settings.strategy
        if strategy == "end":
            return
        self._take_answers()
        if self._under_way and not self._settings.always:
            get_logger().info("%s is not uploaded: the upload before is under way", folder.name)
            return
        try:
            self._send(folder, model_files, None, f"the model of {folder.name}")
            if strategy in ("checkpoint", "all_checkpoints"):
                names = [file.relative_to(folder).as_posix() for file in files_of(folder)]
                to = "last-checkpoint" if strategy == "checkpoint" else folder.name
                self._send(folder, names, to, f"{folder.name} with its states")
        except OSError as error:  # a full disk, where files cannot be linked
            self._warn(str(error))

    def model(self, names: Sequence[str]) -> None:
        """The trained model is in the run's folder. Returns at once."""
        self._send(self._output, names, None, "the trained model")

    def finish(self) -> None:
        """Wait until all is uploaded. A signal ends the wait.

        Raises UnavailableError where the model was not uploaded, PreemptedError after a signal.
        """
        get_logger().info("uploading to %s", self._settings.name)
        said = time.monotonic()
        try:
            with current_signals().interruptible():
                while self._under_way:
                    self._take_answers(wait=0.2)
                    if self._under_way and time.monotonic() > said + _SAY_AGAIN:
                        said = time.monotonic()
                        get_logger().info("still uploading: %s", ", ".join(name for name, _ in self._under_way))
        except StopAsked as asked:
            raise PreemptedError(self._not_uploaded("E-TRAIN-063", str(asked))) from None
        if self._failed is not None:
            raise UnavailableError(self._not_uploaded("E-TRAIN-095", self._failed))

    def _not_uploaded(self, code: str, got: str) -> Problem:
        where = f"the trained model is in {self._output}"
        fix = "the same command uploads it"
        return Problem(code, f"the model was not uploaded to {self._settings.name}", where, got, fix)

    # ---- the process ----

    def _open(self) -> None:
        settings = self._settings
        self._write(
            name=settings.name,
            token=settings.token,
            private=settings.private,
            revision=settings.revision,
            endpoint=env.get("HF_ENDPOINT") or None,
        )
        self._under_way.append((_REPOSITORY, self._output / STAGING / "no-folder"))
        self._take_answers(wait=FIRST_ANSWER)
        if self._refused is not None:
            what, where = "the hub refuses uploads", f"hub_model_id: {settings.name}"
            raise UnavailableError(Problem("E-TRAIN-094", what, where, self._refused, _ALLOW))
        if self._under_way:
            self._warn("it does not answer yet")

    def _send(self, folder: Path, names: Sequence[str], to: str | None, message: str) -> None:
        linked = self._output / STAGING / f"upload-{time.monotonic_ns()}"
        for name in names:
            (linked / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(folder / name, linked / name)
            except OSError:  # a file system without links
                shutil.copyfile(folder / name, linked / name)
        if to is None:
            (linked / _README).unlink(missing_ok=True)  # a link to that of the checkpoint
            (linked / _README).write_text(self._settings.card, encoding="utf-8")
        self._under_way.append((message, linked))
        self._write(folder=str(linked.resolve()), to=to, message=message)

    def _write(self, **line: Any) -> None:
        assert self._process is not None, "used outside of its context"
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # its end is an answer too
            self._process.stdin.write(json.dumps(line) + "\n")
            self._process.stdin.flush()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with suppress(ValueError):  # closed by __exit__
            for line in process.stdout:
                self._answers.put(json.loads(line))
        self._answers.put(None)

    def _take_answers(self, wait: float = 0.0) -> None:
        """Take what the process has answered; where nothing is there, wait so long for one."""
        try:
            answer = self._answers.get(timeout=wait) if wait else self._answers.get_nowait()
        except queue.Empty:
            return
        if answer is None:
            self._failed = "the process that uploads has ended"
            self._forget(len(self._under_way))
            self._answers.put(None)
            return
        self._settle(answer)
        self._take_answers()

    def _settle(self, answer: dict[str, Any]) -> None:
        what = self._under_way[0][0]
        self._forget(1)
        self._failed = answer.get("error")
        if self._failed is None:
            get_logger().info("uploaded %s: %s" if what != _REPOSITORY else "%s for uploads: %s", what, answer["done"])
            return
        if what == _REPOSITORY and answer["refused"]:
            self._refused = self._failed
        self._warn(self._failed)

    def _warn(self, text: str) -> None:
        get_logger().warning("push_to_hub: %s: %s (the run goes on, and tries again)", self._settings.name, text)

    def _forget(self, number: int) -> None:
        for _name, folder in self._under_way[:number]:
            shutil.rmtree(folder, ignore_errors=True)
        del self._under_way[:number]
