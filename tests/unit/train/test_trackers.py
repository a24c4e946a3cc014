"""Services that are down, slow or faulty: the run is that without them, and takes no longer."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState

import tunesmith
from tests.run_logs import curve, same_weights
from tunesmith.train import trackers
from tunesmith.train.trackers import Tracker

pytestmark = pytest.mark.row("R16")

Run = Callable[..., Any]


class Service(TrainerCallback):
    """Stands for an integration; `does` is what happens when it is told something."""

    does: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        type(self).does()
        self.heard.append(("begin", state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        type(self).does()
        self.heard.append(("log", state.global_step))


Service.__module__ = "transformers.integrations.integration_utils"


@pytest.fixture
def run(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, torch_one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Four steps, reported to `Service`."""
    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Service]]:
    """`service(does)`: every run reports to one that does this -> those that were made."""

    def install(does: Callable[[], None]) -> list[Service]:
        made: list[Service] = []

        def init(self: Service) -> None:
            self.heard = []
            made.append(self)

        monkeypatch.setattr(Service, "does", staticmethod(does))
        monkeypatch.setattr(Service, "__init__", init)
        monkeypatch.setattr("transformers.trainer.get_reporting_integration_callbacks", lambda _: [Service])
        return made

    return install


def refuse() -> None:
    raise ConnectionRefusedError("nobody listens at port 9")


def test_all_events_arrive_in_order(run: Run, service: Any) -> None:
    made = service(lambda: time.sleep(0.02))
    run()
    assert made[0].heard[:5] == [("begin", 0), ("log", 1), ("log", 2), ("log", 3), ("log", 4)]


@pytest.mark.parametrize("error", [refuse, lambda: sys.exit(1)], ids=["refused", "exits"])
def test_a_service_that_raises_is_told_once(
    run: Run, service: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, error: Callable[[], None]
) -> None:
    plain = run(output_dir=str(tmp_path / "plain"))
    service(error)
    logging.getLogger("tunesmith").propagate = True
    with caplog.at_level(logging.WARNING, "tunesmith"):
        reported = run()
    told = [line for line in caplog.messages if line.startswith("report_to: service: ")]
    assert len(told) == 1
    assert same_weights(plain, reported)
    assert curve(plain) == curve(reported)


def test_a_service_that_hangs_does_not_hold_the_run(
    run: Run, service: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "WAIT", 0.3)
    service(lambda: time.sleep(30))
    logging.getLogger("tunesmith").propagate = True
    begin = time.monotonic()
    with caplog.at_level(logging.WARNING, "tunesmith"):
        metrics = run().metrics
    assert time.monotonic() - begin < 25, "it waited for none of the calls of 30 s"
    assert metrics["train_steps_per_second"] > 0.2
    assert "service: took longer than 0.3 s at the end" in caplog.text


def test_what_does_not_fit_into_the_queue_is_dropped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "_MOST_WAITING", 5)
    service = Service()
    monkeypatch.setattr(Service, "does", staticmethod(lambda: time.sleep(0.05)))
    tracker = Tracker(service)
    begin = time.monotonic()
    for step in range(20):
        tracker.on_log(None, TrainerState(global_step=step), TrainerControl(), logs={"loss": 1.0})  # type: ignore[attr-defined]
    assert time.monotonic() - begin < 0.05
    tracker.finish(time.monotonic() + 5)
    assert tracker.dropped == 20 - len(service.heard)
    assert [step for _, step in service.heard][:5] == [0, 1, 2, 3, 4]


def test_what_it_is_told_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next step changes state and logs while a slow service still has the event before it."""
    seen: list[tuple[int, Any]] = []

    class Slow(Service):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            time.sleep(0.05)
            seen.append((state.global_step, logs["loss"]))

    tracker, state, logs = Tracker(Slow()), TrainerState(global_step=1), {"loss": 1.0}
    for step in (1, 2):
        state.global_step, logs["loss"] = step, float(step)
        tracker.on_log(None, state, TrainerControl(), logs=logs)  # type: ignore[attr-defined]
    state.global_step, logs["loss"] = 3, 3.0
    tracker.finish(time.monotonic() + 5)
    assert seen == [(1, 1.0), (2, 2.0)]


def test_a_folder_that_tensorboard_cannot_write_to(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR")
    plain = run(output_dir=str(tmp_path / "plain"))
    (tmp_path / "file").write_text("no folder")
    logging.getLogger("tunesmith").propagate = True
    with caplog.at_level(logging.WARNING, "tunesmith"):
        reported = run(report_to="tensorboard", logging_dir=str(tmp_path / "file" / "board"))
    assert "report_to: tensorboard: NotADirectoryError" in caplog.text
    assert same_weights(plain, reported)
