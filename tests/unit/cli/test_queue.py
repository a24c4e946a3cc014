"""`tunesmith queue add|ls|rm|pause|resume|run|logs`. What runners do with the jobs is tested in unit/runs/queue."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import fake_jobs
from tunesmith.__main__ import main
from tunesmith.cli.app import VERBS
from tunesmith.core.files import read_json, write_json
from tunesmith.core.process import ProcessId
from tunesmith.runs.queue.job import Attempt, moment
from tunesmith.runs.queue.runner import Runner
from tunesmith.runs.queue.store import Queue

ROOT = Path(__file__).resolve().parents[3]
VERBS_OF_QUEUE = ("add", "ls", "rm", "pause", "resume", "run", "logs")


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Queue:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Queue()


@pytest.fixture
def config(tmp_path: Path, tiny_model: Path) -> Path:
    path = tmp_path / "run.yaml"
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n')
    path.write_text(f"model_name_or_path: {tiny_model}\ndataset: rows.jsonl\noutput_dir: saves/first\nseed: 1\n")
    return path


@pytest.fixture
def add(queue: Queue, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`queue add ... --no-start` -> exit code, what it printed."""

    def run(*words: str) -> tuple[int, str, str]:
        code = main(["queue", "add", *words, "--no-start"])
        return code, *capsys.readouterr()

    return run


def output(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["queue", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("verb", ["", *VERBS_OF_QUEUE])
def test_help_fits_a_screen(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", verb, "--help"] if verb else ["queue"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and "Usage" not in line], "cut off"


def test_add_keeps_the_config_as_it_is_now(queue: Queue, config: Path, add: Any, tmp_path: Path) -> None:
    code, out, err = add(str(config), "learning_rate=1e-4", "--num_train_epochs", "2", "hf_hub_token=s3cret")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "job 1 (first) is queued, none before it",
        "nothing starts it yet: tunesmith queue run",
    ]
    config.write_text("model_name_or_path: other\noutput_dir: other\n")
    kept = (queue.folder / "1" / "config.yaml").read_text()
    assert "learning_rate: 0.0001\n" in kept
    assert "num_train_epochs: 2" in kept
    assert "output_dir: saves/first\n" in kept
    assert "hf_hub_token: s3cret\n" in kept, "the run needs it"
    assert "seed: 1\n" in kept
    job = queue.get(1)
    assert job.command == [sys.executable, "-P", "-m", "tunesmith", "train", str(queue.folder / "1" / "config.yaml")]
    assert (job.source, job.directory) == (str(config), str(tmp_path))
    assert job.output_dir == str(tmp_path / "saves" / "first")
    assert job.overrides == ["learning_rate=1e-4", "num_train_epochs=2", "hf_hub_token=***"]
    assert (job.retries, job.devices, job.after) == (2, [], [])


def test_what_is_kept_loads_as_the_same_config(queue: Queue, config: Path, add: Any) -> None:
    from tunesmith import load_config

    words = ["lora_target=q_proj,v_proj", "stop=[a, 'b,c']", "lr_scheduler_kwargs.min_lr=1e-6"]
    words += ["lr_scheduler_type=cosine_with_min_lr", "finetuning_type=lora"]
    words = [word for word in words if not word.startswith("stop=")]
    assert add(str(config), *words)[0] == 0
    assert load_config(queue.folder / "1" / "config.yaml") == load_config(config, words)


def test_a_wrong_config_is_told_and_not_queued(queue: Queue, config: Path, add: Any) -> None:
    code, _, err = add(str(config), "learning_rat=1", "template=chatmll")
    assert code == 2
    assert 'there is no key "learning_rat"' in err
    code, _, err = add(str(config), "template=chatmll")
    assert (code, "chatml" in err) == (2, True)
    assert add("none.yaml")[0] == 66
    assert queue.jobs() == []


def test_a_run_sees_the_variables_of_who_added_it_but_no_terminal(
    queue: Queue, config: Path, add: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNESMITH_TRIES", "one")
    monkeypatch.setenv("TERM", "xterm")
    assert add(str(config))[0] == 0
    found = read_json(queue.folder / "1" / "environment.json")
    assert found["TUNESMITH_TRIES"] == "one"
    assert found["PATH"] == os.environ["PATH"]
    assert "TERM" not in found


def test_options_of_a_job(queue: Queue, config: Path, add: Any) -> None:
    assert add(str(config))[0] == 0
    words = ["--name", "mine", "--devices", "1,GPU-8d1a", "--retries", "5", "--after", "1", "--front"]
    code, out, err = add(str(config), "seed=3", *words)
    assert (code, err) == (0, "")
    job = queue.get(2)
    assert (job.name, job.devices, job.retries, job.after) == ("mine", ["1", "GPU-8d1a"], 5, [1])
    assert [job.number for job in queue.jobs()] == [2, 1]
    assert "none before it" in out


def test_a_name_from_the_config(queue: Queue, config: Path, add: Any) -> None:
    assert add(str(config), "run_name=north")[0] == 0
    assert queue.get(1).name == "north"


@pytest.mark.parametrize("words", ["--devices a", "--devices 0,0", "--after x", "--retries=-1", "--retries 1,2"])
def test_lists_that_are_none(queue: Queue, config: Path, add: Any, words: str) -> None:
    code, _, err = add(str(config), *words.split())
    assert (code, "E-QUEUE-011" in err) == (2, True)
    assert queue.jobs() == []


def test_the_same_output_dir_is_warned_of(config: Path, add: Any, tmp_path: Path) -> None:
    add(str(config))
    code, out, err = add(str(config), "seed=2", "--json")
    assert code == 0
    (warning,) = json.loads(out)["warnings"]
    assert warning == f"job 1 has the same output_dir: {tmp_path / 'saves' / 'first'}"
    assert err == f"warning: {warning}\n"
    assert add(str(config), "seed=2", "--after", "1,2")[2] == "", "that is meant"


def test_missing_inputs_are_warned_of(config: Path, add: Any) -> None:
    code, _, err = add(str(config), "dataset=later.jsonl")
    assert code == 0
    assert 'no dataset "later.jsonl"' in err


def test_ls(queue: Queue, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert output(capsys, "ls") == "the queue is empty\n"
    fake_jobs.add(queue, "good")
    fake_jobs.add(queue, "bad", command=lambda config: ["/bin/sh", "-c", "echo 'error[E-DATA-003]: a row'; exit 65"])
    fake_jobs.work_off(Runner(queue))
    runs, waits = fake_jobs.add(queue, "runs", output_dir=str(tmp_path / "out"), devices=["0"]), None
    runs.state = "running"
    runs.attempts.append(Attempt(1, moment()))
    queue.write(runs)
    (tmp_path / "out").mkdir()
    log = {"current_steps": 30, "total_steps": 120, "percentage": 25.0, "remaining_time": "0:09:00"}
    (tmp_path / "out" / "trainer_log.jsonl").write_text(json.dumps(log) + "\n" + '{"current_st')
    waits = fake_jobs.add(queue, "waits", after=[2, 3])
    assert output(capsys, "ls").splitlines() == [
        "job  state    steps   left     name",
        "1    done     -       -        good",
        "2    failed   -       -        bad    exit 65, error[E-DATA-003]: a row",
        "3    running  30/120  0:09:00  runs   device 0",
        "4    queued   -       -        waits  waits for 2 (failed), 3 (running)",
        "no runner is at work: tunesmith queue run",
    ]
    found = json.loads(output(capsys, "ls", "--json"))
    assert (found["paused"], found["runner"]) == (False, None)
    jobs = {job["job"]: job for job in found["jobs"]}
    assert jobs[2]["exit_code"] == 65
    assert jobs[3]["steps"] == {"done": 30, "total": 120}
    assert jobs[3]["remaining_time"] == "0:09:00"
    assert (jobs[4]["position"], jobs[4]["waits_in_vain"]) == (1, True)
    assert Path(jobs[1]["attempts"][0]["log"]).read_text() == "this is good None\n"
    assert waits.number == 4


def test_ls_shows_the_last_that_are_done(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        job = fake_jobs.add(queue, f"j{number}")
        job.state = "done"
        queue.write(job)
    lines = output(capsys, "ls").splitlines()
    assert [line.split()[0] for line in lines] == ["job", "3", "4", "5", "and"]
    assert lines[-1] == "and 2 more that are done: --all"
    assert len(output(capsys, "ls", "--all").splitlines()) == 6
    assert output(capsys, "rm", "--done") == "removed 5\n"
    assert queue.jobs() == []


def test_pause_resume_rm(queue: Queue, config: Path, add: Any, capsys: pytest.CaptureFixture[str]) -> None:
    add(str(config))
    assert output(capsys, "pause") == "paused: the queue\n"
    assert "the queue is paused: tunesmith queue resume" in add(str(config), "output_dir=second")[1]
    assert "the queue is paused: tunesmith queue resume" in output(capsys, "ls")
    assert output(capsys, "pause", "1") == "paused: 1\n"
    assert output(capsys, "resume", "1", "--no-start").splitlines()[0] == "resumed: 1"
    assert output(capsys, "resume", "--no-start") == "resumed: the queue\n"
    assert not queue.paused
    assert output(capsys, "rm", "1") == "removed 1\n"
    assert [job.number for job in queue.jobs()] == [2]
    assert main(["queue", "rm"]) == 2
    assert "E-QUEUE-010" in capsys.readouterr().err
    assert main(["queue", "rm", "1"]) == 2
    assert "E-QUEUE-001" in capsys.readouterr().err


def test_logs(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    fake_jobs.add(queue, "a", code=70, retries=1)
    assert main(["queue", "logs", "1"]) == 0
    assert "has not run yet" in capsys.readouterr().err
    fake_jobs.work_off(Runner(queue, pause=0.01))
    assert main(["queue", "logs", "1"]) == 0
    found = capsys.readouterr()
    assert found.out == "this is a None\n" * 2
    assert [line[:13] for line in found.err.splitlines()] == ["== attempt 1,", "== attempt 2,"]
    assert main(["queue", "logs", "7"]) == 2


def test_logs_are_followed_to_the_end_over_all_attempts(queue: Queue) -> None:
    fake_jobs.add(queue, "a", 0.3, code=70, retries=1)
    words = [sys.executable, "-m", "tunesmith", "queue", "logs", "1", "-f"]
    reader = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    fake_jobs.work_off(Runner(queue, pause=0.01))
    assert reader.communicate(timeout=30)[0] == "this is a None\n" * 2
    assert reader.returncode == 0


def test_run_in_the_foreground(queue: Queue, capsys: pytest.CaptureFixture[str]) -> None:
    fake_jobs.add(queue, "a")
    lines = output(capsys, "run", "--once").splitlines()
    assert lines.pop(0).endswith(f" jobs of {queue.folder}")
    assert [line.partition(" job ")[2] for line in lines] == ["1 (a) starts, attempt 1", "1 (a): done"]


def test_a_second_runner_exits_with_a_message(queue: Queue) -> None:
    fake_jobs.add(queue, "a", 20)
    first = fake_jobs.runner_process(queue)
    while not fake_jobs.ledger(queue):
        pass
    words = [sys.executable, "-m", "tunesmith", "queue"]
    second = subprocess.run([*words, "run"], capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert f"error[E-QUEUE-008]: a runner is at work already: process {first.pid} on " in second.stderr
    # A run that is removed saves and leaves; the runner does it, and then has nothing left to do.
    done = subprocess.run([*words, "rm", "1", "--stop"], capture_output=True, text=True, check=True)
    assert done.stdout == "job 1 is removed when it has saved\n"
    assert first.wait(30) == 0
    assert fake_jobs.ledger(queue) == ["start a", "saved a"]
    assert queue.jobs() == []


def test_jobs_run_in_order_after_the_shell_that_queued_them_is_gone(queue: Queue, tmp_path: Path) -> None:
    """Two jobs are added in a shell with a session of its own; then all of that session is killed."""
    program = (
        "import sys; from tests import fake_jobs; from tunesmith.runs.queue.store import Queue;"
        "from tunesmith.runs.queue.runner import start_in_background;"
        "fake_jobs.add(Queue(), sys.argv[1], 1.0); start_in_background(Queue())"
    )
    script = f"{sys.executable} -c '{program}' a\n{sys.executable} -c '{program}' b\necho added\nsleep 100\n"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    shell = subprocess.Popen(
        ["/bin/bash", "-c", script],
        stdout=subprocess.PIPE,
        start_new_session=True,
        env=environment,
        cwd=tmp_path,
    )
    assert shell.stdout is not None
    assert shell.stdout.readline() == b"added\n"
    os.killpg(shell.pid, 9)
    shell.wait()
    shell.stdout.close()
    assert fake_jobs.ledger(queue)[-1:] != ["end b"], "the shell was gone before the jobs were"
    follower = [sys.executable, "-m", "tunesmith", "queue", "logs", "2", "-f"]
    subprocess.run(follower, check=True, timeout=60, capture_output=True)
    assert fake_jobs.ledger(queue) == ["start a", "end a", "start b", "end b"]
    assert {job.state for job in queue.jobs()} == {"done"}
    while queue.has_runner():  # it leaves by itself
        pass


def test_who_stopped_a_run(queue: Queue, tmp_path: Path) -> None:
    from tunesmith.runs.queue.view import asked_by_user

    job = fake_jobs.add(queue, "a", output_dir=str(tmp_path))
    job.attempts.append(Attempt(1, "2026-01-01T12:00:00+00:00", process=ProcessId.of().to_dict()))
    for time, kind, expected in [
        ("2026-01-01T12:00:01Z", "stop_asked", True),
        ("2026-01-01T12:00:01Z", "stopped", False),
        ("2026-01-01T11:59:59Z", "stop_asked", False),
        ("nonsense", "stop_asked", False),
    ]:
        write_json(tmp_path / "run.json", {"events": [{"time": time, "kind": kind}, "x"]})
        assert asked_by_user(job) is expected
    (tmp_path / "run.json").write_text("{")
    assert not asked_by_user(job)


def test_the_page_of_the_queue_names_what_there_is() -> None:
    page = (ROOT / "docs" / "queue.md").read_text(encoding="utf-8")
    commands = re.findall(r"tunesmith (\w+) (\w+)?", page)
    assert {verb for verb, _ in commands} <= set(VERBS)
    assert {sub for verb, sub in commands if verb == "queue" and sub} <= set(VERBS_OF_QUEUE)
    assert "\nExecStart=%h/venv/bin/tunesmith queue run\n" in page
    assert "\n@reboot $HOME/venv/bin/tunesmith queue run\n" in page
    assert "\nKillMode=process\n" in page


def test_the_page_has_the_exit_codes_as_they_are_judged() -> None:
    from tunesmith.runs.queue.rules import MOST_INTERRUPTIONS, pause_after, verdict

    page = (ROOT / "docs" / "queue.md").read_text(encoding="utf-8")
    failed = re.search(r"^\| ([\d, ]+) \| failed:", page, re.MULTILINE)
    assert failed
    told = {int(code) for code in failed[1].split(", ")}
    assert told == {code for code in range(256) if verdict(code) == "failed"}
    assert f"after {', '.join(f'{pause_after(n, 10.0):.0f} s' for n in (1, 2, 3))}, ..." in page
    assert MOST_INTERRUPTIONS == 5
    assert "five in a row" in page
