"""What a forked child does: arm the shim, put what happens at steps into the run, run the command line, and end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults import shim

__all__ = ["ACTIONS", "At", "live"]

At = list[Any]
"""[event, step, action, argument]: `on_<event>` of transformers' callbacks, where `state.global_step` is `step`, or at
every step where that is None."""


def _kill(_: Any, state: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _signal(number: int, state: Any) -> None:
    os.kill(os.getpid(), number)


def _wait(door: str, state: Any) -> None:
    """Say that one has come here, and wait until one may go on: files DOOR.here and DOOR.open."""
    Path(f"{door}.here").touch()
    until = time.monotonic() + 60
    while not Path(f"{door}.open").exists():
        assert time.monotonic() < until, f"nobody opened {door}"
        time.sleep(0.01)


def _clock(seconds: float, state: Any) -> None:
    shim.shift_clock(seconds)


def _zone(name: str, state: Any) -> None:
    os.environ["TZ"] = name
    time.tzset()


def _measure(path: str, state: Any) -> None:
    """A line of what the process holds: descriptors, threads, kilobytes of memory."""
    status = Path("/proc/self/status").read_text()
    memory = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    with open(path, "a") as file:
        file.write(f"{len(os.listdir('/proc/self/fd'))} {threading.active_count()} {memory}\n")


def _remove(path: str, state: Any) -> None:
    Path(path).unlink()


def _cut(path: str, state: Any) -> None:
    """Leave the first half of a file."""
    os.truncate(path, os.path.getsize(path) // 2)


def _exchange(paths: list[str], state: Any) -> None:
    """Put the first file in the place of the second."""
    Path(paths[1]).write_bytes(Path(paths[0]).read_bytes())


ACTIONS: dict[str, Callable[[Any, Any], None]] = {
    "kill": _kill,
    "signal": _signal,
    "wait": _wait,
    "clock": _clock,
    "zone": _zone,
    "measure": _measure,
    "remove": _remove,
    "cut": _cut,
    "exchange": _exchange,
}


def live(told: dict[str, Any]) -> int:
    """Run `tunesmith WORDS...` as told; returns the exit code."""
    os.environ.update(told["environment"])
    os.chdir(told["cwd"])
    if told["ranks"] == 1:
        return _one(told)
    return _ranks(told)


def _one(told: dict[str, Any]) -> int:
    if told["arm"] is not None:
        shim.arm(shim.Arm(**told["arm"]))
    if told["at"]:
        _watch(told["at"])
    from tunesmith.cli.main import run

    code = run(told["words"])
    if told["learn"]:
        Path(told["learn"]).write_text("\n".join(sys.modules), encoding="utf-8")
    return code


def _ranks(told: dict[str, Any]) -> int:
    """The same in several processes, as torchrun starts, watches and ends them; 1 if one failed. What is told to happen
    happens to the last rank."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=told["ranks"],
        run_id=str(os.getpid()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.1,
        start_method="fork",
    )
    try:
        codes = elastic_launch(config, _rank)(told)
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return max(codes.values())


def _rank(told: dict[str, Any]) -> int:
    """In a process that torchrun has started."""
    if int(os.environ["RANK"]) != told["ranks"] - 1:
        told = {**told, "arm": None, "at": []}
    code = _one(told)
    if code:
        sys.exit(code)
    return code


def _watch(at: list[At]) -> None:
    """Have every Trainer of this process do at its steps what is told."""
    from transformers import TrainerCallback

    from tunesmith.train.trainer import Trainer

    class Watcher(TrainerCallback):
        pass

    def meet(event: str) -> Callable[..., None]:
        def met(self: Any, args: Any, state: Any, control: Any, **_: Any) -> None:
            for told, step, action, argument in at:
                if told == event and step in (None, state.global_step):
                    ACTIONS[action](argument, state)

        return met

    for event in {told[0] for told in at}:
        setattr(Watcher, f"on_{event}", meet(event))
    original = Trainer.train

    def train(self: Any, *arguments: Any, **keywords: Any) -> Any:
        self.add_callback(Watcher())
        return original(self, *arguments, **keywords)

    Trainer.train = train  # type: ignore[method-assign]
