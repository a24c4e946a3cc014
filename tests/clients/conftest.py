"""`tunesmith api` in a process of its own, for clients in an environment of their own (`make test-clients`)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
KEY = "a-key-for-the-tests-of-clients"
MODEL = "tiny"


class Served(NamedTuple):
    url: str
    key: str
    model: str


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The tiny model with a template that has tools, and a context that they fit into. SERVER_PYTHON: the interpreter
    that has Tunesmith."""
    python = os.environ["SERVER_PYTHON"]
    model = tmp_path_factory.mktemp("model") / "tiny"
    shutil.copytree(ROOT / "tests" / "assets" / "tiny-llama", model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    command = [python, "-m", "tunesmith", "api", "--model_name_or_path", str(model), "template=qwen", "use_cpu=true"]
    settings = {"API_PORT": "0", "API_KEY": KEY, "API_MODEL_NAME": MODEL, "PYTHONUNBUFFERED": "1"}
    with _running(command, settings) as url:
        yield Served(url, KEY, MODEL)


@pytest.fixture(scope="session")
def scripted() -> Iterator[Served]:
    """An engine that says at once what was written down: what is tested is the server."""
    with _running([os.environ["SERVER_PYTHON"], "-m", "tests.clients.serve_scripted"], {}) as url:
        yield Served(url.removesuffix("/v1"), KEY, MODEL)


@contextmanager
def _running(command: list[str], settings: dict[str, str]) -> Iterator[str]:
    others = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # which is the clients'
    process = subprocess.Popen(
        command, env={**others, **settings}, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said: list[str] = []
    try:
        yield _address(process, said)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
    assert process.returncode == 0, "".join(said)


def _address(process: subprocess.Popen[str], said: list[str]) -> str:
    """From its greeting; what comes behind it is read on, so that the pipe never fills."""
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"at (http://127\.0\.0\.1:\d+/v1)", line):
            threading.Thread(target=lambda: said.extend(process.stdout or ()), daemon=True).start()
            return found[1]
    raise AssertionError("the server did not start:\n" + "".join(said))
