"""Progress: plain lines in a pipe, a live line on a terminal, nothing from other processes."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tunesmith.core.log import get_logger
from tunesmith.train.callbacks.progress import ProgressDisplay, event_text

LOGS = {"loss": 1.23456, "learning_rate": 9.5e-5, "grad_norm": 1.0, "tokens": 512, "tokens_per_second": 1234.5}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def state(step: int, main: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, max_steps=20, is_world_process_zero=main)


@pytest.fixture
def messages() -> Iterator[list[str]]:
    """What the package's logger says."""
    seen: list[str] = []
    logger = get_logger()
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield seen
    logger.removeHandler(handler)
    logger.setLevel(level)


def play(display: ProgressDisplay, main: bool = True) -> None:
    display.on_train_begin(None, state(0, main), None)
    display.on_step_begin(None, state(0, main), None)
    display.on_step_end(None, state(10, main), None)
    display.on_log(None, state(10, main), None, LOGS)
    display.on_prediction_step(None, state(10, main), None, eval_dataloader=[1, 2])
    display.on_evaluate(None, state(10, main), None)
    display.on_log(None, state(10, main), None, {"eval_loss": 2.0, "eval_runtime": 1.0})
    display.on_log(None, state(20, main), None, {"train_runtime": 1.0, "train_loss": 1.0})
    display.on_train_end(None, state(20, main), None)


def test_plain_lines_away_from_a_terminal(messages: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    play(ProgressDisplay())
    assert messages == [
        "step 10/20  loss 1.2346  lr 9.50e-05  1,234 tok/s  ETA 0:00:00",
        "step 10/20  held-out loss 2.0000",
    ]


def test_other_processes_are_silent(messages: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    play(ProgressDisplay(), main=False)
    assert messages == []
    assert screen.getvalue() == ""


@pytest.mark.parametrize("colour", [True, False])
def test_a_live_line_on_a_terminal(messages: list[str], monkeypatch: pytest.MonkeyPatch, colour: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    play(ProgressDisplay())
    assert sys.stderr is screen
    text = screen.getvalue()
    for piece in ("10/20", "loss 1.2346", "lr 9.50e-05", "1,234 tok/s", "ETA"):
        assert piece in text
    assert ("\x1b[36m" in text) == colour  # cyan
    assert messages == ["step 10/20  held-out loss 2.0000"]
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is given back


def test_utilisation_is_shown_where_known_and_waiting_where_it_matters() -> None:
    known = {**LOGS, "mfu": 0.3146, "seconds": 10.0, "data_wait_seconds": 0.237}
    assert "1,234 tok/s  MFU 31 %  data wait 2.4 %  ETA" in event_text(known, 1, 2, "0:00:01")
    assert "1,234 tok/s  MFU 4.0 %  ETA" in event_text({**known, "mfu": 0.04, "data_wait_seconds": 0.09}, 1, 2, "-")
    assert "1,234 tok/s  ETA" in event_text({**LOGS, "seconds": 0.0, "data_wait_seconds": 0.0}, 1, 2, "-")


def test_losses_of_several_evaluation_sets_are_named() -> None:
    logs = {"eval_new_facts_loss": 1.0, "eval_loss": 2.0}
    assert event_text(logs, 3, 9, "-") == "step 3/9  held-out loss (new_facts) 1.0000  held-out loss 2.0000"
