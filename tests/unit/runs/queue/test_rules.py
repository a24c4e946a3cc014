"""What an exit code means for a job, and which job is next."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core import errors
from tunesmith.runs.queue.job import Attempt, Job, State, moment
from tunesmith.runs.queue.rules import (
    MOST_INTERRUPTIONS,
    in_vain,
    may_start,
    pause_after,
    settle,
    something_to_do,
    verdict,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(number: int = 1, state: State = "running", **others: object) -> Job:
    values: dict[str, object] = {
        "number": number,
        "name": str(number),
        "created": moment(NOW),
        "command": [],
        "directory": "",
        "source": None,
        "overrides": [],
        "output_dir": None,
        "devices": [],
        "retries": 2,
        "retries_left": 2,
        "after": [],
        "order": number,
        "state": state,
        "attempts": [Attempt(1, moment(NOW))] if state == "running" else [],
    }
    return Job(**{**values, **others})  # type: ignore[arg-type]


def end(one: Job, code: int | None, step: int | None = None, by_user: bool = False) -> None:
    settle(one, code, step=step, by_user=by_user, now=NOW, unit=10.0)


def again(one: Job) -> None:
    one.state = "running"
    one.attempts.append(Attempt(len(one.attempts) + 1, moment(NOW)))


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (0, "done"),
        (2, "failed"),
        (65, "failed"),
        (66, "failed"),
        (73, "failed"),
        (76, "failed"),
        (78, "failed"),
        (1, "queued"),
        (69, "queued"),
        (70, "queued"),
        (74, "queued"),
        (75, "queued"),
        (130, "queued"),
        (-signal.SIGKILL, "queued"),
        (-signal.SIGSEGV, "queued"),
        (-signal.SIGTERM, "queued"),
        (None, "queued"),
    ],
)
def test_what_an_exit_code_means(code: int | None, state: State) -> None:
    one = job()
    end(one, code)
    assert one.state == state
    assert (one.attempts[0].exit_code, one.attempts[0].ended) == (code, moment(NOW))
    one = job(retries=0, retries_left=0)
    end(one, code)
    assert one.state == ("failed" if verdict(code) == "again" else state)


def test_every_exit_code_of_the_errors_is_judged() -> None:
    """69, 74: a service or a disk may come back. 75 asks for it. The others stay wrong."""
    codes = {kind.exit_code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "exit_code")}
    judged = {code: verdict(code) for code in codes - {1}}
    assert {code for code, found in judged.items() if found == "again"} == {69, 74}
    assert {code for code, found in judged.items() if found == "interrupted"} == {75}


def test_pauses_grow_to_a_quarter_of_an_hour() -> None:
    assert [pause_after(count, 10.0) for count in range(1, 6)] == [10, 40, 160, 640, 900]


def test_failures_are_tried_again_after_longer_and_longer_pauses() -> None:
    one = job()
    waits = []
    for _ in range(3):
        end(one, 70)
        waits.append(one.not_before)
        again(one)
    assert waits == [moment(NOW + timedelta(seconds=10)), moment(NOW + timedelta(seconds=40)), None]
    end(one, 70)
    assert one.state == "failed"


def test_an_interruption_costs_no_retry_unless_it_comes_over_and_over_without_progress() -> None:
    one = job()
    for _ in range(MOST_INTERRUPTIONS):
        end(one, None)
        assert (one.state, one.retries_left) == ("queued", 2)
        again(one)
    for left in (1, 0):
        end(one, None)
        assert (one.state, one.retries_left) == ("queued", left)
        again(one)
    end(one, None)
    assert one.state == "failed"


def test_a_run_that_comes_further_each_time_is_interrupted_as_often_as_it_takes() -> None:
    one = job()
    for count in range(1, 40):
        end(one, 75, step=10 * count)
        assert (one.state, one.retries_left, one.not_before) == ("queued", 2, None)
        again(one)


@pytest.mark.parametrize(
    ("wish", "code", "state"),
    [
        ("pause", 75, "paused"),
        ("pause", 70, "paused"),
        ("pause", 0, "done"),
        ("pause", 65, "failed"),
        ("requeue", 75, "queued"),
        ("requeue", -signal.SIGTERM, "queued"),
        ("remove", 75, "stopped"),
        ("remove", 0, "done"),
    ],
)
def test_what_the_user_wants_decides_where_the_run_could_go_on(wish: str, code: int, state: State) -> None:
    one = job(wish=wish)
    end(one, code)
    assert (one.state, one.retries_left, one.interruptions) == (state, 2, 0)


def test_a_run_that_somebody_stopped_is_not_queued_again() -> None:
    one = job()
    end(one, 75, by_user=True)
    assert one.state == "stopped"
    one = job()
    end(one, -signal.SIGKILL, by_user=True)  # it did not leave when it was asked to
    assert (one.state, one.retries_left) == ("stopped", 2)
    one = job()
    end(one, 0, by_user=True)
    assert one.state == "done"


def numbers(jobs: list[Job], now: datetime = NOW) -> list[int]:
    return [one.number for one in may_start(jobs, now)]


def test_one_at_a_time_without_devices() -> None:
    assert numbers([job(1, "queued"), job(2, "queued")]) == [1]
    assert numbers([job(1), job(2, "queued")]) == []
    assert numbers([job(1, devices=["0"]), job(2, "queued")]) == []
    assert numbers([job(1), job(2, "queued", devices=["0"])]) == []


def test_side_by_side_on_other_devices() -> None:
    jobs = [job(n, "queued", devices=list(devices)) for n, devices in enumerate(["0", "1", "0", "23"], 1)]
    assert numbers(jobs) == [1, 2, 4]


def test_who_waits_for_devices_is_not_overtaken_by_those_who_need_a_part_of_them() -> None:
    jobs = [job(1, devices=["0"]), job(2, "queued", devices=["0", "1"]), job(3, "queued", devices=["1"])]
    assert numbers(jobs) == []
    jobs = [job(1, devices=["0"]), job(2, "queued"), job(3, "queued", devices=["1"])]
    assert numbers(jobs) == []


def test_who_waits_for_a_time_or_a_job_lets_others_pass() -> None:
    later = moment(NOW + timedelta(seconds=10))
    jobs = [job(1, "queued", not_before=later), job(2, "failed"), job(3, "queued", after=[2]), job(4, "queued")]
    assert numbers(jobs) == [4]
    assert numbers(jobs, NOW + timedelta(seconds=10)) == [1]
    assert numbers([job(1, "done"), job(2, "queued", after=[1])]) == [2]


@given(
    st.lists(
        st.tuples(st.sampled_from(["queued", "running", "done", "failed", "paused"]), st.sets(st.sampled_from("0123"))),
        max_size=8,
    )
)
def test_no_two_running_jobs_share_a_device_and_none_starves(drawn: list[tuple[State, set[str]]]) -> None:
    """Whatever runs already (also two on one device, as after --devices was thought over)."""
    jobs = [job(n, state, devices=sorted(devices)) for n, (state, devices) in enumerate(drawn, 1)]
    running = [one for one in jobs if one.state == "running"]
    started = list(may_start(jobs, NOW))
    everything = set("0123")
    for index, one in enumerate(started):
        for other in running + started[:index]:
            assert (set(one.devices) or everything).isdisjoint(other.devices or everything)
    waiting = [one for one in jobs if one.state == "queued"]
    if waiting and not running:
        assert waiting[0] in started


def test_who_waits_in_vain() -> None:
    jobs = [
        job(1, "failed"),
        job(2, "queued", after=[1]),
        job(3, "queued", after=[2]),
        job(4, "done"),
        job(5, "queued", after=[4]),
    ]
    assert in_vain(jobs) == {2, 3}
    assert something_to_do(jobs, paused=False)
    assert not something_to_do(jobs[:4], paused=False)
    assert not something_to_do(jobs, paused=True)
    assert something_to_do([*jobs, job(6)], paused=True)
