"""The runner and the keepers, with real processes: every job once, also if one of them is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fake_jobs import add, ledger, runner_process, work, work_off
from tunesmith.core.errors import UsageError
from tunesmith.core.files import read_json, write_json
from tunesmith.core.process import ProcessId
from tunesmith.runs.queue import runner as module
from tunesmith.runs.queue.job import Attempt, moment
from tunesmith.runs.queue.lock import is_held
from tunesmith.runs.queue.rules import MOST_INTERRUPTIONS
from tunesmith.runs.queue.runner import Runner
from tunesmith.runs.queue.store import Queue


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


@pytest.fixture
def runner(queue: Queue) -> Iterator[Runner]:
    made = Runner(queue, pause=0.01)
    yield made
    for keeper in made._keepers.values():  # a test that failed leaves nothing behind
        keeper.kill()
        keeper.wait()


def states(queue: Queue) -> dict[str, str]:
    return {job.name: job.state for job in queue.jobs()}


def begun(queue: Queue, name: str) -> bool:
    return f"start {name}" in ledger(queue)


def known(queue: Queue, number: int) -> bool:
    """Whether the process of a running job is written into its file."""
    attempt = queue.get(number).last
    return attempt is not None and attempt.process is not None and attempt.ended is None


def of(queue: Queue, number: int, what: str, attempt: int = 1) -> Any:
    return read_json(queue.folder / str(number) / f"{attempt}.{what}.json")


def kill(values: dict[str, Any]) -> None:
    with suppress(ProcessLookupError):  # it has just ended
        os.kill(ProcessId.from_dict(values).pid, signal.SIGKILL)


def test_jobs_run_one_after_the_other_in_their_order(queue: Queue, runner: Runner) -> None:
    for name in "abc":
        add(queue, name, 0.05)
    work_off(runner)
    assert ledger(queue) == [f"{word} {name}" for name in "abc" for word in ("start", "end")]
    assert states(queue) == {"a": "done", "b": "done", "c": "done"}
    attempt = queue.get(1).attempts[0]
    assert (attempt.exit_code, attempt.starts) == (0, 1)
    assert not ProcessId.from_dict(attempt.process).is_alive
    assert (queue.folder / "1" / "1.log").read_text() == "this is a None\n"


def test_a_run_is_a_process_group_of_its_own_without_a_terminal(queue: Queue, runner: Runner) -> None:
    add(queue, "a", 20, retries=0)
    work(runner, lambda: begun(queue, "a") and known(queue, 1))
    pid = queue.get(1).attempts[0].process["pid"]
    assert os.getpgid(pid) == pid
    keeper = of(queue, 1, "process")["keeper"]["pid"]
    assert os.getsid(pid) == keeper != os.getsid(0)
    os.kill(pid, signal.SIGKILL)
    work(runner, lambda: queue.get(1).state != "running")


def test_disjoint_devices_run_side_by_side(queue: Queue, runner: Runner) -> None:
    add(queue, "a", 1.0, devices=["0"])
    add(queue, "b", 0.0, devices=["2", "1"])
    add(queue, "c", 0.0)
    work_off(runner)
    lines = ledger(queue)
    assert lines.index("end b") < lines.index("end a") < lines.index("start c")
    assert (queue.folder / "2" / "1.log").read_text() == "this is b 2,1\n"


def test_a_failure_is_tried_again_and_a_wrong_config_is_not(queue: Queue, runner: Runner) -> None:
    add(queue, "a", code=70, retries=1)
    add(queue, "b", code=65, retries=1)
    work_off(runner)
    assert sorted(ledger(queue)).count("start a") == 2
    assert ledger(queue).count("start b") == 1
    assert states(queue) == {"a": "failed", "b": "failed"}
    assert [attempt.exit_code for attempt in queue.get(1).attempts] == [70, 70]


def test_who_waits_for_a_job_that_failed_is_left(queue: Queue, runner: Runner) -> None:
    add(queue, "a", code=65)
    add(queue, "b", after=[1])
    add(queue, "c")
    work_off(runner)
    assert states(queue) == {"a": "failed", "b": "queued", "c": "done"}


def test_a_run_that_is_killed_is_queued_again(queue: Queue, runner: Runner) -> None:
    add(queue, "a", 1.0)
    work(runner, lambda: begun(queue, "a") and known(queue, 1))
    kill(queue.get(1).attempts[0].process)
    work(runner, lambda: queue.get(1).attempts[0].ended is not None)
    assert (queue.get(1).attempts[0].exit_code, queue.get(1).retries_left) == (-signal.SIGKILL, 1)
    work_off(runner)
    assert ledger(queue) == ["start a", "start a", "end a"]


def test_helpers_of_a_run_that_was_killed_end_with_it(queue: Queue, runner: Runner) -> None:
    script = "import os, time; os.fork(); print('here', flush=True); time.sleep(30)"
    add(queue, "a", retries=0, command=lambda config: [sys.executable, "-S", "-c", script])
    work(runner, lambda: known(queue, 1) and (queue.folder / "1" / "1.log").read_text() != "")
    kill(queue.get(1).attempts[0].process)
    work(runner, lambda: queue.get(1).state == "failed")
    work(runner, lambda: not is_held(queue.folder / "1" / "lock"), seconds=5)


def test_a_program_that_is_gone_fails_and_says_so(queue: Queue, runner: Runner, tmp_path: Path) -> None:
    add(queue, "a", command=lambda config: [str(tmp_path / "no-python")])
    add(queue, "b", directory=tmp_path / "no-folder")
    work_off(runner)
    assert states(queue) == {"a": "failed", "b": "failed"}
    for number, name in ((1, "no-python"), (2, "no-folder")):
        text = (queue.folder / str(number) / "1.log").read_text()
        assert "error[E-QUEUE-007]: the run cannot be started: No such file or directory" in text
        assert name in text


# The user's wishes


def test_pause_now_has_a_run_save_and_go_on_after_resume(queue: Queue, runner: Runner) -> None:
    add(queue, "a", 1.5)
    add(queue, "b")
    work(runner, lambda: begun(queue, "a"))
    queue.pause(now=True)
    work_off(runner)
    assert ledger(queue) == ["start a", "saved a"]
    assert states(queue) == {"a": "queued", "b": "queued"}
    queue.resume()
    work_off(runner)
    assert ledger(queue)[2:] == ["start a", "end a", "start b", "end b"]
    assert queue.get(1).retries_left == 2


def test_a_job_that_is_paused_lets_others_pass(queue: Queue, runner: Runner) -> None:
    add(queue, "a", 20)
    add(queue, "b")
    work(runner, lambda: begun(queue, "a"))
    queue.pause([1], now=True)
    work_off(runner)
    assert states(queue) == {"a": "paused", "b": "done"}


def test_rm_stop_has_a_run_save_and_removes_its_job(queue: Queue, runner: Runner) -> None:
    add(queue, "a", 20)
    work(runner, lambda: begun(queue, "a"))
    queue.remove([1], stop=True)
    work_off(runner)
    assert ledger(queue) == ["start a", "saved a"]
    assert queue.jobs() == []
    assert not (queue.folder / "1").exists()


def test_a_run_that_the_user_stopped_otherwise_is_not_started_again(
    queue: Queue, runner: Runner, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    add(queue, "a", 0.2, code=75, output_dir=str(out))
    work(runner, lambda: begun(queue, "a"))
    write_json(out / "run.json", {"events": [{"time": moment(), "kind": "stop_asked"}]})
    work_off(runner)
    assert states(queue) == {"a": "stopped"}


# What is killed, and what comes after


def test_a_runner_that_is_killed_leaves_the_run_alone_and_the_next_one_takes_it_over(queue: Queue) -> None:
    add(queue, "a", 0.8)
    add(queue, "b")
    first = runner_process(queue)
    while not begun(queue, "a"):
        time.sleep(0.01)
    first.kill()
    first.wait()
    time.sleep(0.1)
    assert queue.get(1).state == "running"
    second = runner_process(queue)
    assert second.wait(30) == 0
    assert ledger(queue) == ["start a", "end a", "start b", "end b"]
    assert states(queue) == {"a": "done", "b": "done"}


def test_an_exit_code_is_learnt_also_when_nobody_was_there(queue: Queue, runner: Runner) -> None:
    add(queue, "a", 0.1, code=65)
    work(runner, lambda: begun(queue, "a"))
    while is_held(queue.folder / "1" / "lock"):
        time.sleep(0.01)
    work_off(Runner(queue))
    assert (queue.get(1).state, queue.get(1).attempts[0].exit_code) == ("failed", 65)


@pytest.mark.parametrize("seed", [1, 2])
def test_runners_that_are_killed_at_any_time_lose_no_job_and_run_none_twice(queue: Queue, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"j{number}" for number in range(5)]
    for name in names:
        add(queue, name, chance.uniform(0.0, 0.3))
    killed = 0
    for _ in range(200):
        process = runner_process(queue)
        try:
            process.wait(chance.uniform(0.15, 0.7))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        else:
            break
    assert killed > 0
    assert ledger(queue) == [f"{word} {name}" for name in names for word in ("start", "end")]
    assert set(states(queue).values()) == {"done"}
    assert [len(job.attempts) for job in queue.jobs()] == [1] * 5


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 12))])
def test_whatever_is_killed_no_job_is_lost_and_none_runs_beside_itself(queue: Queue, seed: int) -> None:
    """Runner, keepers and runs are killed at random, one at a time, until all jobs are done."""
    chance = random.Random(seed)
    for number in range(4):
        add(queue, f"j{number}", chance.uniform(0.05, 0.3), retries=1000)
    runner = runner_process(queue)
    for _ in range(15):
        time.sleep(chance.uniform(0.0, 0.4))
        victims = []
        with suppress(ProcessLookupError):
            victims.append(ProcessId.of(runner.pid).to_dict())
        for job in queue.jobs():
            for path in (queue.folder / str(job.number)).glob("*.process.json") if job.state == "running" else ():
                victims += [one for one in (read_json(path) or {}).values() if one]
        living = [one for one in victims if ProcessId.from_dict(one).is_alive]
        if living:
            kill(chance.choice(living))
        if runner.poll() is not None:
            runner = runner_process(queue)
    assert runner.wait(60) == 0 or runner_process(queue).wait(60) == 0
    lines = ledger(queue)
    assert not [line for line in lines if line.startswith("overlap")]
    assert set(states(queue).values()) == {"done"}
    assert {f"end {name}" for name in states(queue)} <= set(lines)


@pytest.mark.slow
def test_who_adds_while_background_runners_come_and_go_is_served(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    chance = random.Random(1)
    started = []
    for number in range(12):
        add(queue, f"j{number}")
        started.append(module.start_in_background(queue))
        time.sleep(chance.uniform(0.0, 3.0))
    assert True in started[1:], "none has left in between"
    while queue.has_runner():
        time.sleep(0.05)
    assert set(states(queue).values()) == {"done"}
    assert ledger(queue) == [f"{word} j{number}" for number in range(12) for word in ("start", "end")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_writing_down_a_start_and_starting(
    queue: Queue, runner: Runner, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """The job counts as running already: the next runner sends a keeper again, and only one of two begins."""
    started = []
    original = module._detached

    def cut_off(*arguments: Any) -> Any:
        if when == "after":
            started.append(original(*arguments))
        raise KeyboardInterrupt

    add(queue, "a", 0.3)
    monkeypatch.setattr(module, "_detached", cut_off)
    with pytest.raises(KeyboardInterrupt):
        runner.turn()
    monkeypatch.setattr(module, "_detached", original)
    assert queue.get(1).state == "running"
    work_off(Runner(queue, pause=0.01))
    for keeper in started:
        keeper.wait(20)
    assert ledger(queue) == ["start a", "end a"]
    assert len(queue.get(1).attempts) == 1


def test_of_many_keepers_of_one_attempt_one_begins(queue: Queue, runner: Runner) -> None:
    job = add(queue, "a", 0.2)
    job.state = "running"
    job.attempts.append(Attempt(1, moment()))
    queue.write(job)
    words = [sys.executable, "-P", "-m", "tunesmith.runs.queue.keeper", str(queue.folder / "1"), "1"]
    keepers = [subprocess.Popen(words) for _ in range(5)]
    assert [keeper.wait(30) for keeper in keepers] == [0] * 5
    assert ledger(queue) == ["start a", "end a"]
    assert subprocess.run(words, check=False).returncode == 0  # late, after it has ended
    work_off(runner)
    assert ledger(queue) == ["start a", "end a"]
    assert subprocess.run(words, check=False).returncode == 0  # later still, after it was settled
    assert ledger(queue) == ["start a", "end a"]


def test_a_run_whose_keeper_was_killed_is_not_started_beside_itself(queue: Queue, runner: Runner) -> None:
    add(queue, "a", 1.0)
    work(runner, lambda: begun(queue, "a") and known(queue, 1))
    kill(of(queue, 1, "process")["keeper"])
    for _ in range(20):
        runner.turn()
        time.sleep(0.01)
    assert queue.get(1).state == "running", "the run lives"
    work_off(runner)
    assert "overlap a" not in ledger(queue)
    assert ledger(queue)[:2] == ["start a", "end a"]
    assert queue.get(1).attempts[0].exit_code is None, "nobody was there to see it"
    assert states(queue) == {"a": "done"}


def test_after_a_reboot_what_ran_is_queued_again_without_costing_a_retry(queue: Queue) -> None:
    add(queue, "a", 0.5, retries=0)
    for count in range(1, MOST_INTERRUPTIONS + 1):
        runner = Runner(queue, pause=0.001)
        work(runner, lambda count=count: len(ledger(queue)) == count and known(queue, 1))  # type: ignore[misc]
        record = of(queue, 1, "process", count)
        kill(record["keeper"])  # the power goes
        kill(record["process"])
        for keeper in runner._keepers.values():
            keeper.wait()
    work(runner, lambda: len(queue.get(1).attempts) > MOST_INTERRUPTIONS)
    assert queue.get(1).interruptions == MOST_INTERRUPTIONS
    work_off(runner)
    assert states(queue) == {"a": "done"}
    assert ledger(queue) == ["start a"] * (MOST_INTERRUPTIONS + 1) + ["end a"]


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_that_got_the_number_of_a_run_is_not_taken_for_it(
    queue: Queue, runner: Runner, bystander: subprocess.Popen[bytes]
) -> None:
    """After a reboot numbers are given anew: the job does not wait for the other, and the other is not asked to go."""
    job = add(queue, "a")
    forged = {"pid": bystander.pid, "started": "another boot:12345", "host": ProcessId.of().host}
    job.state = "running"
    job.attempts.append(Attempt(1, moment(), process=forged))
    job.wish = "requeue"
    queue.write(job)
    write_json(queue.folder / "1" / "1.process.json", {"keeper": forged, "process": forged})
    work_off(runner)
    assert bystander.poll() is None
    assert states(queue) == {"a": "done"}
    assert [attempt.exit_code for attempt in queue.get(1).attempts] == [None, 0]


def test_while_the_lock_is_held_a_forged_number_is_not_sent_a_signal(
    queue: Queue, runner: Runner, bystander: subprocess.Popen[bytes]
) -> None:
    add(queue, "a", 0.7)
    work(runner, lambda: known(queue, 1))
    job = queue.get(1)
    job.attempts[0].process = {**job.attempts[0].process, "pid": bystander.pid}
    queue.write(job)
    queue.pause([1], now=True)
    work_off(runner)
    assert bystander.poll() is None
    assert ledger(queue) == ["start a", "end a"]


def test_a_keeper_that_never_comes_up_is_not_sent_for_ever(
    queue: Queue, runner: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = []

    def nothing(words: list[str], log: Any) -> subprocess.Popen[bytes]:
        sent.append(words)
        process = subprocess.Popen(["/bin/false"])
        process.wait()
        return process

    monkeypatch.setattr(module, "_detached", nothing)
    add(queue, "a")
    work_off(runner)
    assert len(sent) == 3
    assert states(queue) == {"a": "failed"}


def test_a_full_disk_stops_nothing(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    runner = Runner(queue, say=said.append)
    add(queue, "a")
    monkeypatch.setattr(queue, "write", lambda job: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert runner.turn()
    assert runner.turn()
    assert "No space left" in said[-1]
    monkeypatch.undo()
    assert states(queue) == {"a": "queued"}
    work_off(runner)
    assert ledger(queue) == ["start a", "end a"]


# One runner


def test_a_second_runner_says_that_there_is_one(queue: Queue) -> None:
    add(queue, "a", 1.0)
    first = runner_process(queue)
    while not begun(queue, "a"):
        time.sleep(0.01)
    with pytest.raises(UsageError, match=rf"(?s)E-QUEUE-008.*process {first.pid} "):
        Runner(queue).run()
    assert queue.has_runner()
    assert queue.runner().pid == first.pid
    assert first.wait(30) == 0
    assert not queue.has_runner()


def test_sigterm_ends_a_runner_between_two_turns_and_no_run(queue: Queue) -> None:
    add(queue, "a", 1.0)
    first = runner_process(queue)
    while not begun(queue, "a"):
        time.sleep(0.01)
    first.send_signal(signal.SIGHUP)  # a terminal that is closed
    time.sleep(0.1)
    assert first.poll() is None
    first.terminate()
    assert first.wait(10) == 0
    assert queue.get(1).state == "running"
    assert runner_process(queue).wait(30) == 0
    assert ledger(queue) == ["start a", "end a"]


def test_who_adds_while_a_runner_leaves_finds_that_it_has_left(queue: Queue) -> None:
    """It decides under the lock of the queue, so that no job is added in between and forgotten."""
    held = []
    runner = Runner(queue)
    original = queue.jobs

    def jobs() -> Any:
        held.append(is_held(queue.folder / "lock"))
        return original()

    queue.jobs = jobs  # type: ignore[method-assign]
    runner.run(until_empty=True)
    assert held
    assert all(held)
    assert not queue.has_runner()


def test_a_job_file_tells_what_a_reader_needs(queue: Queue, runner: Runner) -> None:
    add(queue, "a", devices=["0"])
    work_off(runner)
    values = json.loads((queue.folder / "1" / "job.json").read_text())
    assert values["state"] == "done"
    assert values["attempts"][0]["exit_code"] == 0
    assert values["attempts"][0]["process"]["host"] == ProcessId.of().host
