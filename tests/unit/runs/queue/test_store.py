"""The folder of the queue: jobs are there or not, in their order, and change as the user says."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from tests.fake_jobs import add
from tunesmith.core.errors import OutputError, TunesmithError, UnavailableError, UsageError
from tunesmith.core.files import read_json
from tunesmith.runs.queue import store
from tunesmith.runs.queue.job import Attempt, Job, moment, read_job
from tunesmith.runs.queue.lock import Lock, hold, is_held
from tunesmith.runs.queue.store import Queue


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "queue")


def running(queue: Queue, job: Job) -> Job:
    job.state = "running"
    job.attempts.append(Attempt(1, moment()))
    queue.write(job)
    return job


def states(queue: Queue) -> dict[int, str]:
    return {job.number: job.state for job in queue.jobs()}


def refused(code: str, words: str) -> pytest.RaisesExc[TunesmithError]:
    return pytest.raises(TunesmithError, match=rf"(?s){code}.*{words}")


def test_an_empty_queue(queue: Queue) -> None:
    assert queue.jobs() == []
    assert not queue.paused
    assert not queue.has_runner()
    assert queue.runner() is None


def test_a_job_is_read_as_it_was_written(queue: Queue) -> None:
    job = add(queue, "a", devices=["0", "1"], retries=3, source="/x/run.yaml", overrides=["seed=1"])
    assert queue.get(1) == job
    assert read_job(queue.folder / "1") == job
    running(queue, job)
    assert read_job(queue.folder / "1") == job


def test_others_may_not_read_what_may_hold_tokens(queue: Queue) -> None:
    add(queue, "a")
    assert queue.folder.stat().st_mode & 0o077 == 0


def test_order(queue: Queue) -> None:
    for name in "abc":
        add(queue, name)
    add(queue, "d", front=True)
    add(queue, "e", front=True)
    add(queue, "f")
    assert "".join(job.name for job in queue.jobs()) == "edabcf"


def test_numbers_are_not_used_again(queue: Queue) -> None:
    assert [add(queue, name).number for name in "abc"] == [1, 2, 3]
    queue.remove([3])
    assert add(queue, "d").number == 4
    (queue.folder / "queue.json").unlink()
    assert add(queue, "e").number == 5


def test_many_who_add_at_once(queue: Queue) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=add, args=(queue, f"job{number}")) for number in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert sorted(states(queue)) == list(range(1, 9))


def test_an_addition_that_was_cut_off_is_none(queue: Queue) -> None:
    add(queue, "a")
    torn = queue.folder / "2"
    torn.mkdir()
    (torn / "config.yaml").write_text("")
    assert list(states(queue)) == [1]
    assert add(queue, "b").number == 3
    queue.sweep()
    assert not torn.exists()
    assert sorted(states(queue)) == [1, 3]


def test_a_file_of_another_version_is_told_and_left_alone(queue: Queue) -> None:
    add(queue, "a")
    add(queue, "b")
    path = queue.folder / "1" / "job.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    assert list(states(queue)) == [2]
    assert queue.unreadable() == [path]
    with refused("E-QUEUE-001", "there is: 2"):
        queue.get(1)
    queue.sweep()
    assert path.exists()


def test_what_others_change_is_seen(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were read and have not changed are not read again, but for those that are too new to tell."""
    job = add(queue, "a")
    other = Queue(queue.folder)
    for count in range(100):  # faster than the clock of the file system counts
        job.interruptions = count
        queue.write(job)
        assert other.get(1).interruptions == count
    path = queue.folder / "1" / "job.json"
    os.utime(path, (time.time() - 10, time.time() - 10))
    first = other.get(1)
    assert other.get(1) is first
    queue.write(job)
    assert other.get(1) is not first


def test_pause_and_resume_of_the_queue(queue: Queue) -> None:
    add(queue, "a")
    running(queue, add(queue, "b"))
    assert queue.pause() == []
    assert queue.paused
    assert states(queue) == {1: "queued", 2: "running"}
    assert [job.number for job in queue.pause(now=True)] == [2]
    assert queue.get(2).wish == "requeue"
    queue.resume()
    assert not queue.paused


def test_pause_and_resume_of_a_job(queue: Queue) -> None:
    add(queue, "a")
    job = running(queue, add(queue, "b"))
    queue.pause([1])
    assert states(queue)[1] == "paused"
    assert not queue.paused
    with refused("E-QUEUE-002", "--now"):
        queue.pause([2])
    queue.pause([2], now=True)
    assert queue.get(2).wish == "pause"
    with refused("E-QUEUE-002", "only jobs that are paused or stopped or failed"):
        queue.resume([2])
    job.state, job.retries_left, job.interruptions = "failed", 0, 3
    queue.write(job)
    queue.resume([1, 2])
    assert states(queue) == {1: "queued", 2: "queued"}
    assert (queue.get(2).retries_left, queue.get(2).interruptions) == (2, 0)


def test_what_is_refused_changes_nothing(queue: Queue) -> None:
    add(queue, "a")
    running(queue, add(queue, "b"))
    for change in (lambda: queue.pause([1, 2]), lambda: queue.remove([1, 2]), lambda: queue.remove([1, 9])):
        with pytest.raises(UsageError):
            change()
    assert states(queue) == {1: "queued", 2: "running"}


def test_removal(queue: Queue) -> None:
    add(queue, "a")
    running(queue, add(queue, "b"))
    with refused("E-QUEUE-002", "--stop"):
        queue.remove([2])
    assert [job.number for job in queue.remove([1, 2], stop=True)] == [2]
    assert states(queue) == {2: "running"}
    assert queue.get(2).wish == "remove"
    assert not (queue.folder / "1").exists()
    queue.pause(now=True)
    assert queue.get(2).wish == "remove", "a wish to remove is not lost"
    with refused("E-QUEUE-001", "is being removed"):
        add(queue, "c", after=[2])


def test_a_job_that_others_wait_for_stays(queue: Queue) -> None:
    add(queue, "a")
    add(queue, "b", after=[1])
    with refused("E-QUEUE-003", "others wait for: 2"):
        queue.remove([1])
    queue.remove([1, 2])
    assert states(queue) == {}


def test_a_job_that_is_done_can_go_and_holds_nobody_up(queue: Queue) -> None:
    job = add(queue, "a")
    add(queue, "b", after=[1])
    job.state = "done"
    queue.write(job)
    queue.remove([1])
    assert queue.get(2).after == []


def test_who_waits_for_no_job(queue: Queue) -> None:
    with refused("E-QUEUE-001", "there is no job 4"):
        add(queue, "a", after=[4])
    assert queue.jobs() == []
    assert add(queue, "b").number == 1


def test_a_lock_that_nobody_lets_go(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    add(queue, "a")
    monkeypatch.setattr(store, "_WAIT", 0.1)
    with hold(queue.folder / "lock"), pytest.raises(UnavailableError, match="E-QUEUE-004"):
        add(queue, "b")


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="E-QUEUE-005"):
        add(Queue(tmp_path / "file" / "queue"), "a")


def test_a_lock_is_held_as_long_as_a_child_lives_that_was_given_it(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock")
    assert lock.take()
    assert not Lock(tmp_path / "lock").take(0.05)
    reads, writes = os.pipe()
    if (child := os.fork()) == 0:
        os.close(writes)
        os.read(reads, 1)  # until the other end is closed
        os._exit(0)
    os.close(reads)
    lock.drop()
    assert is_held(tmp_path / "lock")
    os.close(writes)
    os.waitpid(child, 0)
    assert not is_held(tmp_path / "lock")
    assert not is_held(tmp_path / "none")


def test_files_of_a_job_are_for_people_too(queue: Queue) -> None:
    add(queue, "a")
    assert read_json(queue.folder / "1" / "job.json")["format"] == 1
    assert sorted(path.name for path in (queue.folder / "1").iterdir()) == [
        "config.yaml",
        "environment.json",
        "job.json",
        "lock",
    ]
