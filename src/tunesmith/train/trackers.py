"""Services that a run reports to (`report_to`), at arm's length: one that is down, slow or faulty changes nothing.

Each of transformers' integrations gets its events in a thread of its own, in order, from a queue that the training loop
only ever puts something into. What an integration raises is told once. A queue that is full drops events, and at the
end of a run a service has `WAIT` seconds to take what is left.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import CallbackHandler

from tunesmith.core.log import get_logger

__all__ = ["WAIT", "Tracker", "Trackers"]

WAIT = 10.0
"""Seconds at the end of a run for all services together."""
_MOST_WAITING = 1000  # events
_INTEGRATIONS = "transformers.integrations"
_EVENTS = [name for name in vars(TrainerCallback) if name.startswith("on_") and name != "on_init_end"]

Event = Callable[[], object]


class Tracker(TrainerCallback):
    """An integration, as a callback that returns at once."""

    def __init__(self, callback: TrainerCallback) -> None:
        self.name = type(callback).__name__.removesuffix("Callback").lower()
        self._callback = callback
        self._queue: queue.Queue[Event | None] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()
        self.dropped = 0

    def put(self, event: str, args: Any, state: Any, control: Any, facts: dict[str, Any]) -> None:
        """Hand an event over, with state and control as they are now: both change with the next step."""
        if getattr(type(self._callback), event) is getattr(TrainerCallback, event):
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"report to {self.name}", daemon=True)
            self._thread.start()
        state, control = copy.copy(state), copy.copy(control)
        facts = {name: dict(one) if name in ("logs", "metrics") and one else one for name, one in facts.items()}
        try:
            self._queue.put_nowait(lambda: getattr(self._callback, event)(args, state, control, **facts))
        except queue.Full:
            self.dropped += 1
            self._tell("full", "does not keep up: some events are not reported to it")

    def _run(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                event()
            except BaseException as error:  # whatever it is, the run goes on
                self._tell("fault", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            get_logger().warning("report_to: %s: %s (the run goes on; this is told once)", self.name, text)

    def finish(self, until: float) -> None:
        """Wait until all events were taken, at most until that time (time.monotonic)."""
        if self._thread is None:
            return
        try:
            self._queue.put(None, timeout=max(until - time.monotonic(), 0.01))
            self._thread.join(max(until - time.monotonic(), 0.01))
        except queue.Full:
            pass
        if self._thread.is_alive():
            left = self._queue.qsize()
            self._tell("end", f"took longer than {WAIT:g} s at the end: about {left:,} events are not reported to it")
        self._thread = None


def _forward(event: str) -> Callable[..., None]:
    def forward(self: Tracker, args: Any, state: Any, control: Any, **facts: Any) -> None:
        self.put(event, args, state, control, facts)

    return forward


for _name in _EVENTS:
    setattr(Tracker, _name, _forward(_name))


class Trackers:
    """Puts Trackers in the place of a handler's integrations."""

    def __init__(self, handler: CallbackHandler) -> None:
        self._all: list[Tracker] = []
        for place, callback in enumerate(handler.callbacks):
            if type(callback).__module__.startswith(_INTEGRATIONS):
                handler.callbacks[place] = tracker = Tracker(callback)
                self._all.append(tracker)

    def finish(self) -> None:
        """At the end of a run, however it ends."""
        until = time.monotonic() + WAIT
        for tracker in self._all:
            tracker.finish(until)
