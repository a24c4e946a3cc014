"""`tunesmith runs ls|show|tail`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.__main__ import main
from tunesmith.core.process import ProcessId
from tunesmith.runs import manifest

MakeRun = Callable[..., Path]


@pytest.fixture
def tunesmith(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`tunesmith("runs", "ls")` -> standard output; the exit code must be `code`."""

    def run(*words: str, code: int = 0) -> str:
        assert main(["runs", *words]) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return run


def test_ls(make_run: MakeRun, tunesmith: Callable[..., str]) -> None:
    assert tunesmith("ls") == "no run yet: tunesmith train begins one\n"
    make_run("ab12", name="first", tags=["good"])
    make_run("cd34", name="a-name-that-is-...longer-than-a-column", status="running", losses=(123456.0,) * 3)
    lines = tunesmith("ls").splitlines()
    assert lines[0].split() == ["id", "name", "status", "step", "loss", "eval", "age"]
    assert lines[1].split()[:6] == ["cd34", "a-name-that-is-...", "running", "3/3", "1.23e+05", "-"]
    assert lines[2].split()[:6] == ["ab12", "first", "finished", "2/2", "1.0000", "-"]
    assert all(len(line) <= 80 for line in lines)
    assert [one["id"] for one in json.loads(tunesmith("ls", "--status", "running", "--json"))] == ["cd34"]
    assert [one["id"] for one in json.loads(tunesmith("ls", "--tag", "good", "--json"))] == ["ab12"]
    assert tunesmith("ls", "--tag", "good", "--status", "running") == "no such run\n"
    assert "E-RUN-003" in tunesmith("ls", "--status", "runing", code=2)


def test_show(make_run: MakeRun, tunesmith: Callable[..., str]) -> None:
    folder = make_run(
        "ab12",
        losses=(2.0, 1.0, 1.5),
        name="first",
        metrics={"train_loss": 1.5, "train_steps_per_second": 3.0},
        warnings=["key x is without effect"],
        checks={"self_proof": {"holds": True}},
    )
    for step, best in ((2, ""), (10, "checkpoint-2")):
        (folder / f"checkpoint-{step}").mkdir()
        state = {"best_model_checkpoint": f"/elsewhere/{best}" if best else None}
        (folder / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    (folder / "anomalies.jsonl").write_text("{}\n{}\n")
    manifest.event(folder, "resumed", checkpoint="c", changed={"learning_rate": [0.1, 0.2]})
    text = tunesmith("show", "first")
    for told in (
        "status     finished, exit code 0, ",
        "best       loss 1.0000 at step 2",
        "last       loss 1.5000 at step 3",
        "kept       checkpoint-2 (best), checkpoint-10",
        "anomalies  2 in anomalies.jsonl",
        "checks     self_proof holds",
        "train_loss  1.5",
        "learning_rate: 0.1 -> 0.2",
        "key x is without effect",
    ):
        assert told in text
    assert "train_steps_per_second" not in text
    found = json.loads(tunesmith("show", "ab", "--json"))
    assert found["best"] == {"loss": {"step": 2, "value": 1.0}}
    assert [one["name"] for one in found["checkpoints"]] == ["checkpoint-2", "checkpoint-10"]
    assert found["metrics"]["train_steps_per_second"] == 3.0


def test_show_a_run_that_died_says_what_to_do(make_run: MakeRun, tunesmith: Callable[..., str]) -> None:
    make_run("ab12", status="running", process={**ProcessId.of().to_dict(), "started": "before"})
    assert "died: its process is gone" in tunesmith("show", "ab12")


def test_show_a_run_whose_folder_is_gone(make_run: MakeRun, tunesmith: Callable[..., str]) -> None:
    import shutil

    folder = make_run("ab12")
    tunesmith("ls")
    shutil.rmtree(folder)
    assert "gone: the folder is no more" in tunesmith("show", "ab12")


def test_tail(make_run: MakeRun, tunesmith: Callable[..., str]) -> None:
    folder = make_run("ab12", losses=tuple(float(n) for n in range(20)))
    with (folder / "trainer_log.jsonl").open("a") as log:
        log.write('{"current_steps": 20, "total_steps": 20, "eval_loss": 1.25, "eval_tokens": 7}\n{"current_st')
    lines = tunesmith("tail", "ab12").splitlines()
    assert len(lines) == 10
    assert lines[-2:] == ["step 20/20  loss 19.0000", "step 20/20  eval_loss 1.2500"]
    assert tunesmith("tail", "ab12", "-n", "1", "--json") == (
        '{"current_steps": 20, "total_steps": 20, "eval_loss": 1.25, "eval_tokens": 7}\n'
    )
    assert tunesmith("tail", "ab12", "-n", "0") == ""


def test_tail_follows_until_the_run_has_ended(make_run: MakeRun, tunesmith: Callable[..., str]) -> None:
    """Another process logs, half a line at first, and then says that it has finished."""
    folder = make_run("ab12", status="running")
    program = """
import sys, time
from pathlib import Path
from tunesmith.runs.manifest import changing
folder = Path(sys.argv[1])
for piece in ('{"current_steps": 3, ', '"total_steps": 9, "loss": 0.5}\\n', '{"current_steps": 4, "loss": 0.25}\\n'):
    with (folder / "trainer_log.jsonl").open("a") as log:
        log.write(piece)
    time.sleep(0.7)
with changing(folder) as found:
    found["status"] = "finished"
"""
    writer = subprocess.Popen([sys.executable, "-c", program, str(folder)])
    lines = tunesmith("tail", "-f", "-n", "1", "ab12").splitlines()
    assert writer.wait(timeout=30) == 0
    assert lines == ["step 2/2  loss 1.0000", "step 3/9  loss 0.5000", "step 4/?  loss 0.2500"]


def test_listing_loads_no_torch() -> None:
    program = "import sys; from tunesmith.__main__ import main; main(['runs', 'ls']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
