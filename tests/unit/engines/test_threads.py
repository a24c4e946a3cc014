"""OpenMP's threads of the thread that loaded a model."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_PROCESS = """
import os, time
import torch
from tunesmith.engines.batching.threads import give_back_threads

def threads():
    return len(os.listdir("/proc/self/task"))

def compute():
    return (torch.ones(2000, 2000) @ torch.ones(2000, 2000)).add(1).sum()

torch.set_num_threads(4)
before = threads()
wanted = compute()
team = threads()
assert team >= before + 3, (before, team)
assert give_back_threads()
deadline = time.monotonic() + 10
while threads() > team - 3 and time.monotonic() < deadline:
    time.sleep(0.01)
assert threads() <= team - 3, (before, team, threads())
assert compute() == wanted and threads() >= team - 1
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torch computes with libgomp on Linux")
def test_a_team_ends_and_comes_again() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "4"}
    command = [sys.executable, "-c", _PROCESS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_engines_that_end_in_any_order_leave_the_compiler_as_it_was() -> None:
    import torch
    import torch._dynamo.testing

    from tunesmith.engines.batching.threads import eagerly

    def compiled() -> int:
        torch.compiler.reset()
        count = torch._dynamo.testing.CompileCounter()
        torch.compile(lambda x: x + 1, backend=count)(torch.ones(2))
        return int(count.frame_count)

    first, second = eagerly(), eagerly()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert compiled() == 0
    second.__exit__(None, None, None)
    assert compiled() == 1
