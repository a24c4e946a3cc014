"""`tunesmith queue add|ls|rm|pause|resume|run|logs`: runs that are made one after the other, without a terminal."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load, split, take
from tunesmith.cli.output import print_json
from tunesmith.core import env
from tunesmith.core.errors import MachineError, Problem, UsageError
from tunesmith.core.secrets import redact_words

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.runs.queue.job import Job
    from tunesmith.runs.queue.store import Queue

EPILOG = """\b
Examples:
  tunesmith queue add run.yaml
  tunesmith queue add run.yaml learning_rate=1e-4 output_dir=saves/second
  tunesmith queue add big.yaml --devices 0,1 --after 3
  tunesmith queue ls
  tunesmith queue logs 4 -f
  tunesmith queue pause --now
"""

OPTIONS_OF_ADD = """\b
Options with a value:
  --name NAME      for the list; else run_name, or the name of output_dir
  --devices 0,1    the GPUs that it gets; else all of them, and it runs alone
  --retries N      more tries after failures; else 2
  --after 3,4      jobs that have to be done before
"""

RETRIES = 2

app = make_app(
    help="Runs that are made one after the other, in the background.",
    subcommand_metavar="add|ls|rm|pause|resume|run|logs ...",
    epilog=EPILOG,
)

Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Job_ = Annotated[int, typer.Argument(metavar="JOB", help="Number of a job.", show_default=False)]
Jobs = Annotated[list[int] | None, typer.Argument(metavar="[JOB ...]", help="Numbers of jobs.")]
NoStart = Annotated[bool, typer.Option("--no-start", help="Start no runner.")]


def open_queue() -> Queue:
    """The user's queue. Raises MachineError on systems without process groups and file locks."""
    if os.name != "posix":
        fix = "use WSL, or start runs with tunesmith train"
        raise MachineError(Problem("E-QUEUE-009", "the queue needs Linux or macOS", got=os.name, fix=fix))
    from tunesmith.runs.queue.store import Queue

    return Queue()


# Options with a value are taken from the words (see `arguments.take`).
@app.command(
    cls=Verb, context_settings=WORDS, options_metavar="[CONFIG] [KEY=VALUE ...] [OPTIONS]", epilog=OPTIONS_OF_ADD
)
def add(
    context: typer.Context,
    front: Annotated[bool, typer.Option("--front", help="Before all that wait.")] = False,
    no_start: NoStart = False,
    as_json: Json = False,
) -> None:
    """Check a run's config and put it in the queue.

    The job keeps the config as it is now, with its keys and your environment
    variables; a file that is changed later does not change it. Datasets are
    read when it runs. A runner is started in the background.
    """
    from tunesmith.cli.config import check_template, missing_inputs
    from tunesmith.config import dump_yaml

    queue = open_queue()
    words, options = take(context.args, ("name", "devices", "retries", "after"))
    others, devices = _numbers("after", options.get("after", "")), _devices(options.get("devices", ""))
    (retries,) = _numbers("retries", options.get("retries", "")) or [RETRIES]
    config = load(words, "train")
    check_template(config)
    where = _output_dir(config)
    warnings = [*missing_inputs(config), *_same_folder(queue, where, set(others))]
    for line in warnings:
        print(f"warning: {line}", file=sys.stderr)
    source, overrides = split(words)
    job = queue.add(
        _command,
        config=dump_yaml(config, secrets="keep"),
        directory=Path.cwd(),
        environment=_environment(),
        name=options.get("name") or str(config.train.value("run_name") or Path(where).name),
        source=str(Path(source).expanduser().absolute()) if source else None,
        overrides=redact_words(overrides),
        output_dir=where,
        devices=devices,
        retries=retries,
        after=others,
        front=front,
    )
    _say_added(queue, job, warnings, started=not no_start and _start(queue), as_json=as_json)


def _say_added(queue: Queue, job: Job, warnings: list[str], *, started: bool, as_json: bool) -> None:
    if as_json:
        print_json({"job": job.number, "name": job.name, "runner_started": started, "warnings": warnings})
        return
    jobs = queue.jobs()
    before = sum(one.state == "running" or (one.state == "queued" and one.order < job.order) for one in jobs)
    print(f"job {job.number} ({job.name}) is queued, {before or 'none'} before it")
    if queue.paused:
        print("the queue is paused: tunesmith queue resume")
    elif not started and not queue.has_runner():
        print("nothing starts it yet: tunesmith queue run")


@app.command("ls", cls=Verb)
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Also all that are done, not the last three.")] = False,
    as_json: Json = False,
) -> None:
    """List the jobs: ended, running, and waiting in their order."""
    from tunesmith.cli.queue_table import as_document, lines

    queue = open_queue()
    if as_json:
        print_json(as_document(queue))
        return
    for line in lines(queue, everything):
        print(line)
    for path in queue.unreadable():
        print(f"warning: {path} is damaged, or of another version of Tunesmith", file=sys.stderr)


@app.command("rm", cls=Verb)
def remove(
    jobs: Jobs = None,
    done: Annotated[bool, typer.Option("--done", help="All that are done.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="One that runs: it saves and leaves, then is removed.")] = False,
) -> None:
    """Remove jobs, with what they printed. What a run saved stays where it is."""
    queue = open_queue()
    chosen = [*(jobs or ()), *(job.number for job in queue.jobs() if done and job.state == "done")]
    if not chosen and not done:
        raise UsageError(Problem("E-QUEUE-010", "no job is named", fix="name jobs, or --done"))
    leaving = queue.remove(chosen, stop=stop)
    _say_leaving(queue, leaving, "is removed when it has saved")
    if (gone := len(set(chosen)) - len(leaving)) or not leaving:
        print(f"removed {gone}")


@app.command(cls=Verb)
def pause(
    jobs: Jobs = None,
    now: Annotated[bool, typer.Option("--now", help="What runs saves and leaves, too.")] = False,
) -> None:
    """Start no more jobs, or not these. Those that run go on to their end, unless --now.

    A run that has left goes on from what it saved, after `tunesmith queue resume`.
    """
    queue = open_queue()
    leaving = queue.pause(jobs or (), now=now)
    _say_leaving(queue, leaving, "saves and leaves")
    print(f"paused: {', '.join(map(str, jobs)) if jobs else 'the queue'}")


@app.command(cls=Verb)
def resume(jobs: Jobs = None, no_start: NoStart = False) -> None:
    """Let the queue go on, or jobs.

    Jobs that are paused, stopped or failed are queued again, with all retries.
    """
    queue = open_queue()
    queue.resume(jobs or ())
    print(f"resumed: {', '.join(map(str, jobs)) if jobs else 'the queue'}")
    if jobs and queue.paused:
        print("the queue itself is paused: tunesmith queue resume")
    elif not no_start:
        _start(queue)


@app.command(cls=Verb)
def run(
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left that could run.")] = False,
) -> None:
    """Start jobs in their order, in the foreground.

    One runner is at work at a time; `queue add` starts one in the background.
    Ended by Ctrl-C or SIGTERM it leaves the runs alone: they go on, and the
    next runner takes them over. For a service see docs/queue.md.
    """
    queue = open_queue()
    from tunesmith.runs.queue.runner import Runner

    Runner(queue, say=_say).run(until_empty=once)


@app.command(cls=Verb)
def logs(
    job: Job_,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the job ends.")] = False,
) -> None:
    """Print what the run of a job has printed, attempt by attempt."""
    from tunesmith.cli.queue_table import follow_logs, print_logs

    (follow_logs if follow else print_logs)(open_queue(), job)


# What the verbs are made of


def _command(config: Path) -> list[str]:
    # -P: the folder of the run holds data, not modules.
    return [sys.executable, "-P", "-m", "tunesmith", "train", str(config)]


def _environment() -> dict[str, str]:
    """What the run sees: the variables of this shell but for those of its terminal, as at(1) keeps them."""
    return {name: value for name, value in env.snapshot().items() if name not in _TERMINAL}


_TERMINAL = {"TERM", "DISPLAY", "SHLVL", "_", "OLDPWD", "COLUMNS", "LINES", "WINDOWID", "TMUX", "TMUX_PANE", "STY"}


def _output_dir(config: RunConfig) -> str:
    return str(Path(str(config.train.output_dir)).expanduser().absolute())


def _same_folder(queue: Queue, output_dir: str, before: set[int]) -> list[str]:
    """A second run in one folder goes on from the first; that is seldom what is meant."""
    waiting = [job for job in queue.jobs() if job.state != "done" and job.number not in before]
    same = [str(job.number) for job in waiting if job.output_dir == output_dir]
    return [f"job {', '.join(same)} has the same output_dir: {output_dir}"] if same else []


def _numbers(option: str, text: str) -> list[int]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    several = option == "after"
    if not all(word.isdecimal() for word in words) or (len(words) > 1 and not several):
        what = f"--{option} takes {'numbers of jobs' if several else 'a number'}"
        fix = "as tunesmith queue ls shows them: --after 3,4" if several else f"--{option} 2"
        raise UsageError(Problem("E-QUEUE-011", what, got=text, fix=fix))
    return [int(word) for word in words]


def _devices(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    known = [word for word in words if word.isdecimal() or word.startswith(("GPU-", "MIG-"))]
    if known != words or len(set(words)) != len(words):
        what = "--devices takes numbers or ids of GPUs, each once"
        raise UsageError(Problem("E-QUEUE-011", what, got=text, fix="as nvidia-smi -L shows them: --devices 0,1"))
    return words


def _start(queue: Queue) -> bool:
    from tunesmith.runs.queue.runner import start_in_background

    return start_in_background(queue)


def _say(line: str) -> None:
    """A line of the runner, which goes on when nobody reads it any more (a closed terminal)."""
    with suppress(OSError):
        print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)


def _say_leaving(queue: Queue, leaving: list[Job], what: str) -> None:
    """A runner hands on what is wanted of a run and settles what comes of it."""
    for job in leaving:
        print(f"job {job.number} {what}")
    if leaving:
        _start(queue)
