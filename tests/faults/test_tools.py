"""The suite can fail: its tools see what they are there to see."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.faults import oracle, shim
from tests.faults.power_cut import Disk

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shim.compiler() is None, reason="the shim needs Linux and a C compiler"
)
ROOT = Path(__file__).resolve().parents[2]
Armed = Callable[..., tuple[int, list[shim.Point]]]

SAVE = """
with open(root / "a", "wb") as file:
    file.write(b"0123456789")
    file.flush()
    if careful:
        os.fsync(file.fileno())
os.mkdir(root / "folder")
os.rename(root / "a", root / "folder" / "b")
if careful:
    fsync(root / "folder")
    fsync(root)
"""


@pytest.fixture
def armed(tmp_path: Path) -> Armed:
    """`armed(program, careful=..., at=..., ...)`: run it in a process with the shim -> (exit code, points)."""

    def run(program: str, careful: bool = False, **told: Any) -> tuple[int, list[shim.Point]]:
        (tmp_path / "root").mkdir(exist_ok=True)
        (tmp_path / "kept").mkdir(exist_ok=True)
        arm = shim.Arm(str(tmp_path / "root"), journal=str(tmp_path / "journal"), kept=str(tmp_path / "kept"), **told)
        head = "import os, sys\nfrom pathlib import Path\nfrom tests.faults import shim\n"
        head += f"from tunesmith.core.files import fsync\nroot, careful = Path({arm.root!r}), {careful}\n"
        head += f"shim.arm(shim.Arm(**{asdict(arm)!r}))\n"
        env = {
            **os.environ,
            "LD_PRELOAD": str(shim.build(tmp_path)),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        }
        done = subprocess.run([sys.executable, "-c", head + program], env=env, capture_output=True, check=False)
        journal = tmp_path / "journal"
        return done.returncode, shim.read_journal(journal) if journal.exists() else []

    return run


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_call_that_changes_the_folder_is_a_point(armed: Armed, tmp_path: Path) -> None:
    code, points = armed(SAVE, careful=True)
    assert code == 0
    assert [point.call for point in points] == ["truncate", "write", "sync", "mkdir", "rename", "sync", "sync"]
    assert [point.number for point in points] == list(range(1, 8))
    _, points = armed("from safetensors.numpy import save_file; import numpy\n"
                      "save_file({'x': numpy.zeros(9)}, root / 'x.safetensors')")  # fmt: skip
    assert any(point.call == "write" and point.size > 72 for point in points), "written by Rust"


@pytest.mark.parametrize(("at", "left"), [(1, {}), (2, {"a": b""}), (5, {"a": b"0123456789"})])
def test_a_process_is_killed_before_the_call(armed: Armed, tmp_path: Path, at: int, left: dict[str, bytes]) -> None:
    code, _ = armed(SAVE, careful=True, at=at, action="kill")
    assert code == -9
    assert tree(tmp_path / "root") == left


def test_a_process_is_killed_in_the_middle_of_a_write(armed: Armed, tmp_path: Path) -> None:
    code, _ = armed(SAVE, at=2, action="tear")
    assert code == -9
    assert tree(tmp_path / "root") == {"a": b"01234"}


def test_a_full_disk_takes_a_part_and_then_nothing(armed: Armed, tmp_path: Path) -> None:
    program = """
file = os.open(root / "a", os.O_CREAT | os.O_WRONLY)
assert os.write(file, b"0123456789") == 5
for action in (lambda: os.write(file, b"56789"), lambda: os.mkdir(root / "b"), lambda: os.fsync(file)):
    try:
        action()
    except OSError as error:
        assert error.errno == %d
    else:
        sys.exit(3)
os.unlink(root / "a")
"""
    code, _ = armed(program % errno.ENOSPC, at=2, action="fail", error="ENOSPC")
    assert code == 0


@pytest.mark.parametrize(
    ("careful", "model", "left"),
    [
        (False, "nothing", {}),
        (False, "names", {"folder/b": b""}),
        (True, "nothing", {"folder/b": b"0123456789"}),
        (True, "names", {"folder/b": b"0123456789"}),
    ],
)
def test_the_power_takes_what_was_not_synced(
    armed: Armed, tmp_path: Path, careful: bool, model: str, left: dict[str, bytes]
) -> None:
    _, points = armed(SAVE, careful=careful)
    Disk(tmp_path / "root", points).after_the_cut(tmp_path / "kept", tmp_path / "after", model, "seed")
    assert tree(tmp_path / "after") == left


def test_one_bit_of_a_tensor_and_one_line_of_a_log_are_seen(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        save_file({"w": np.arange(4, dtype=np.float32)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "trainer_log.jsonl").write_text(json.dumps({"loss": 0.5, "elapsed_time": name}) + "\n")
    assert oracle.differences(tmp_path / "one", tmp_path / "other") == []
    data = bytearray((tmp_path / "one" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "one" / "model.safetensors").write_bytes(data)
    (tmp_path / "one" / "trainer_log.jsonl").write_text(json.dumps({"loss": 0.5000001}) + "\n")
    log, weights = oracle.differences(tmp_path / "one", tmp_path / "other")
    assert (log[:4], weights) == ("log:", "model.safetensors w: differs")


def test_a_part_of_a_file_is_seen(tmp_path: Path) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    save_file({"w": np.arange(4, dtype=np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "run.json").write_text("{}")
    assert oracle.visible_damage(tmp_path) == []
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:-1])
    assert len(oracle.visible_damage(tmp_path)) == 2
