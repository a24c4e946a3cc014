"""Requests to a running job."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core import control
from tunesmith.core.control import REQUESTS, Wanted


@pytest.mark.parametrize("request_", REQUESTS)
def test_what_is_asked_waits_until_it_is_taken_away(tmp_path: Path, request_: str) -> None:
    assert control.asked(tmp_path) is None
    control.ask(tmp_path, request_)
    assert [path.name for path in (tmp_path / control.FOLDER).iterdir()] == [request_]
    assert control.asked(tmp_path) == request_
    control.clear(tmp_path)
    assert control.asked(tmp_path) is None
    assert control.wanted(tmp_path) == Wanted.NOTHING


def test_two_requests_are_both(tmp_path: Path) -> None:
    control.ask(tmp_path, "save")
    control.ask(tmp_path, "stop")
    assert control.asked(tmp_path) == "stop-and-save"


def test_what_is_no_request_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pause"):
        control.ask(tmp_path, "pause")
    with pytest.raises(FileNotFoundError):
        control.ask(tmp_path / "nowhere", "save")
