"""A process that imports everything once and forks a child for each run, so that a run costs a second and not ten.

Started by forks.py with the shim loaded. Requests come as JSON lines, one answer each:

    {"start": {...}}                  -> {"pid": 123}      told as `child.live` takes it
    {"wait": 123, "seconds": 1.5}     -> {"status": -9}    null: it still runs
    {"learn": "names.txt"}            -> {"modules": 12}   import what a run had imported

One thread, so that a fork copies a process that is whole. Children lead process groups of their own.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

HEAVY = ("torch", "transformers", "peft", "accelerate", "tunesmith.train.run", "tunesmith.cli.train")


def main() -> None:
    os.environ.pop("LD_PRELOAD", None)  # programs that are started from here are none of our business
    for name in HEAVY:
        importlib.import_module(name)
    gc.freeze()
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    answers.write("{}\n")
    answers.flush()
    for line in requests:
        answers.write(json.dumps(answer(json.loads(line))) + "\n")
        answers.flush()


def answer(request: dict[str, Any]) -> dict[str, Any]:
    if "start" in request:
        return {"pid": start(request["start"])}
    if "wait" in request:
        return {"status": wait(request["wait"], request["seconds"])}
    return {"modules": learn(Path(request["learn"]))}


def start(told: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # whatever the shell of the tests ignores
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        out = os.open(told["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (out, 1), (out, 2)):
            os.dup2(source, target)
        from tests.faults.child import live

        code = live(told)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """How a child ended: its exit code, or minus the signal's number."""
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            return None
        time.sleep(0.002)


def learn(names: Path) -> int:
    before = len(sys.modules)
    for name in names.read_text(encoding="utf-8").splitlines():
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()
    return len(sys.modules) - before


if __name__ == "__main__":
    main()
