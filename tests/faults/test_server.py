"""R21, R22: clients that leave in the middle of a stream, and thousands of requests, take nothing from the server."""

from __future__ import annotations

import http.client
import json
import random
import re
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.serving import api

CLIENTS = 16
TOKENS = 48


class Site:
    """A server as a process of its own, with the engine that users have."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.pid, self.address = process.pid, (urlsplit(url).hostname, urlsplit(url).port)

    def post(self, **fields: Any) -> http.client.HTTPConnection:
        """A connection on which a completion was asked for."""
        connection = http.client.HTTPConnection(*self.address, timeout=60)  # type: ignore[arg-type]
        body = {"model": "stories260K", "prompt": "Once upon a time", "max_tokens": TOKENS, **fields}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        return connection

    def whole(self, **fields: Any) -> dict[str, Any]:
        connection = self.post(**fields)
        answer = connection.getresponse()
        found: dict[str, Any] = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, found
        return found

    def metrics(self) -> dict[str, float]:
        connection = http.client.HTTPConnection(*self.address, timeout=20)  # type: ignore[arg-type]
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {name: float(value) for line in lines if line[0] != "#" for name, _, value in [line.rpartition(" ")]}

    def idle(self) -> dict[str, float]:
        """What it counts once nothing runs; fails where that does not come."""
        end = time.monotonic() + 30
        busy = ("running_requests", "waiting_for_slot", "engine_running", "engine_waiting")
        while any((found := self.metrics())[f"tunesmith_{name}"] for name in busy):
            assert time.monotonic() < end, found
            time.sleep(0.02)
        return found

    def held(self) -> tuple[int, int, int]:
        """Descriptors, threads, kilobytes of memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        threads, memory = (int(re.search(rf"^{name}:\s+(\d+)", status, re.M)[1]) for name in ("Threads", "VmRSS"))  # type: ignore[index]
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir())), threads, memory


@pytest.fixture
def site(stories: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # A small cache: what is kept of prompts is full soon, and growth behind it would be seen.
    with api(stories, "kv_cache_gb=0.002", "max_batch_requests=16") as (process, url, _):
        yield Site(process, url)


def at_once(work: Callable[[int], None], number: int) -> None:
    """`work(0)`, `work(1)` ... by so many clients; fails where one of them does."""
    numbers, wrong = iter(range(number)), list[BaseException]()
    lock = threading.Lock()

    def client() -> None:
        while not wrong:
            with lock:
                mine = next(numbers, None)
            if mine is None:
                return
            try:
                work(mine)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


@pytest.mark.row("R21")
@pytest.mark.parametrize(
    "number", [pytest.param(100, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.faults)]
)
def test_streams_that_are_left_take_nothing(site: Site, cases: Callable[[int], None], number: int) -> None:
    """Each stream ends at a random byte, before the first or behind the last one. No slot stays taken, the answers of
    others are what they were, and nothing is left of memory, threads and descriptors."""
    cases(number)
    wanted = site.whole(temperature=0)["choices"]

    def leave(which: int) -> None:
        draw = random.Random(which)
        connection = site.post(stream=True, temperature=0, max_tokens=draw.choice([TOKENS, 4 * TOKENS]))
        left = draw.choice([0, 1, 400, 2000, 10**9])
        with connection.sock as sock:
            while left > 0 and (data := sock.recv(min(left, 4096))) and not data.endswith(b"0\r\n\r\n"):
                left -= len(data)
            if draw.random() < 0.5:  # as a process does that is killed
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    at_once(leave, CLIENTS * 6)
    site.idle()
    before = site.held()
    at_once(leave, number)
    counts = site.idle()
    assert counts["tunesmith_engine_ended_cancelled"] > number / 10
    assert site.whole(temperature=0)["choices"] == wanted
    site.idle()
    descriptors, threads, memory = site.held()
    assert descriptors <= before[0] + 1
    assert threads <= before[1] + 2, "the pool may have grown; by no more"
    assert memory <= before[2] * 1.01, f"{before[2]} kB, then {memory} kB"


@pytest.mark.row("R21")
@pytest.mark.slow
def test_who_leaves_stops_the_model(site: Site) -> None:
    """A long reply that nobody reads any more ends within a few steps, not at its end."""
    connection = site.post(stream=True, max_tokens=400, ignore_eos=True)
    connection.sock.recv(200)
    connection.sock.close()
    begun = site.metrics().get("tunesmith_engine_generated_tokens", 0)
    written = site.idle().get("tunesmith_engine_generated_tokens", 0)
    assert written - begun < 100


@pytest.mark.row("R22")
@pytest.mark.parametrize(
    "number", [pytest.param(1000, marks=pytest.mark.slow), pytest.param(10_000, marks=pytest.mark.faults)]
)
def test_many_requests_hold_nothing(site: Site, cases: Callable[[int], None], number: int) -> None:
    """Descriptors and threads stay as many; memory grows by less than 1 % in a thousand requests."""
    cases(1)
    measured = []

    words = ["Once", "upon", "a", "time", "Lily", "saw", "the", "dog"]
    draw = random.Random(3)
    # Few enough that a tokenizer, which keeps up to 10,000 texts that it has cut, has seen all of them soon.
    prompts = [" ".join(draw.choices(words, k=draw.randint(1, 30))) for _ in range(200)]

    def ask(which: int) -> None:
        draw = random.Random(which)
        n = draw.choice([1, 1, 2])
        site.whole(prompt=draw.choice(prompts), max_tokens=draw.randint(1, 8), seed=which, n=n)

    at_once(ask, 1000)  # what is made once is made
    for _ in range(10):
        at_once(ask, number // 10)
        site.idle()
        measured.append(site.held())
    descriptors, threads, memory = zip(*measured, strict=True)
    for held in (descriptors, threads):  # a connection that is just being closed, a thread of the pool
        assert max(held[5:]) <= max(held[:5]) + 1, measured
    first, last = statistics.median(memory[:3]), statistics.median(memory[-3:])
    assert last <= first * (1 + 0.01 * max(number / 1000, 1)), measured
    print(f"{memory[0]} kB to {memory[-1]} kB in {number} requests")
