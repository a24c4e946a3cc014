"""One run in a folder of its own, started as often as it takes. The tests are written in these words."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults import oracle
from tests.faults.forks import Child, ForkServer
from tests.faults.kinds import write_config

__all__ = ["Bench", "Trial"]


@dataclass(slots=True)
class Trial:
    """A run of a kind: its config and `output_dir`, and a cache of prepared data of its own."""

    bench: Bench
    kind: str
    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def start(self, *words: str, **how: Any) -> Child:
        """Start the command of the run, with further words; `how` as in ForkServer.start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "config.json"
        write_config(config, self.kind, self.bench.model, self.output, **self.changes)
        environment = {"TUNESMITH_DATA_CACHE": str(self.folder / "data"), **how.pop("environment", {})}
        return self.bench.server.start(["train", str(config), *words], environment=environment, **how)

    def run(self, *words: str, code: int = 0, **how: Any) -> Child:
        """Start the command and wait for its end, which has to be this exit code (-9: killed)."""
        child = self.start(*words, **how)
        found = child.wait()
        assert found == code, f"exit {found}, not {code}:\n{child.text[-3000:]}"
        return child

    def check_readable(self) -> None:
        """What a reader finds now is whole."""
        damage = oracle.visible_damage(self.output)
        assert not damage, damage

    def finish(self, *words: str, **how: Any) -> Child:
        """The same command again, to its end. Nothing that was begun and not finished is left."""
        child = self.run(*words, **how)
        self.check_readable()
        left = [path.name for path in self.output.glob(".*.draft")]
        staged = list((self.output / ".staging").glob("*"))
        assert not left + staged, f"left behind: {left} {staged}"
        return child

    def check_equal(self, wanted: Trial, *without: str) -> None:
        """`without`: entries of the log that need not be equal."""
        unlike = oracle.differences(self.output, wanted.output, without)
        assert not unlike, unlike

    def copy(self, name: str) -> Trial:
        """A run that goes on from what this one has left."""
        other = self.bench.trial(self.kind, name, **self.changes)
        shutil.copytree(self.folder, other.folder)
        return other


class Bench:
    """The fork server, the model of all runs, and the runs that were left alone."""

    def __init__(self, folder: Path) -> None:
        from tests.faults.kinds import make_model

        self.folder = folder
        self.model = make_model(folder / "model")
        self.server = ForkServer(folder)
        self._seconds: dict[str, float] = {}
        self._whole: dict[str, Trial] = {}
        self._count = 0

    def trial(self, kind: str, name: str = "trial", **changes: Any) -> Trial:
        self._count += 1
        return Trial(self, kind, self.folder / f"{name}{self._count}", changes)

    def uninterrupted(self, kind: str, **changes: Any) -> Trial:
        """The run of this kind that nothing happens to; made once. It teaches the server what runs import."""

        def make(trial: Trial) -> None:
            names = self.folder / "modules.txt"
            trial.finish(learn=names)
            self.server.ask({"learn": str(names)})

        return self.once("whole", kind, make, **changes)

    def seconds_of(self, kind: str) -> float:
        """How long a run of this kind takes here and now."""
        if kind not in self._seconds:
            self.uninterrupted(kind)
            trial, begun = self.trial(kind, "timed"), time.monotonic()
            trial.run()
            self._seconds[kind] = time.monotonic() - begun
        return self._seconds[kind]

    def once(self, what: str, kind: str, make: Callable[[Trial], Any], **changes: Any) -> Trial:
        """A trial that several tests begin with, made when it is first asked for."""
        name = f"{what} {kind} {sorted(changes.items())}"
        if name not in self._whole:
            trial = self.trial(kind, what, **changes)
            make(trial)
            self._whole[name] = trial
        return self._whole[name]

    def remove(self, trial: Trial) -> None:
        shutil.rmtree(trial.folder, ignore_errors=True)

    def close(self) -> None:
        self.server.close()
