"""Clients that leave, clients that are slow, and a server that is asked to stop."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from typing import Any

import pytest

from tests.serving import say

LONG = say(*["word "] * 400)


def ask(host: str, stream: bool = True) -> socket.socket:
    """A connection on which a request was sent."""
    name, port = host.split(":")
    sock = socket.create_connection((name, int(port)), timeout=20)
    body = json.dumps({"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "stream": stream})
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    return sock


def started(engine: Any, count: int = 1) -> None:
    deadline = time.monotonic() + 10
    while len(engine.requests) < count and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(engine.requests) >= count


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_ends_its_reply(site, stream: bool) -> None:
    made = site(LONG, pause=0.02)
    sock = ask(made.host, stream)
    started(made.engine)
    if stream:
        sock.recv(100)
    sock.close()
    assert made.engine.idle(2)
    assert made.engine.handles[0].cancelled.is_set()
    deadline = time.monotonic() + 2
    while made.service.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not made.service.running


def disconnects(site: Any, count: int, clients: int) -> None:
    """`count` streams, of which each ends at a random byte; some are read to the end."""
    made = site(say(*["word "] * 30), pause=0.001, max_concurrent=16)
    draw = random.Random(7)
    plans = [draw.choice([0, 1, 300, 2000, 10**9]) for _ in range(count)]

    def work(mine: list[int]) -> None:
        for most in mine:
            with ask(made.host) as sock:
                seen = 0
                while seen < most and (data := sock.recv(min(4096, most - seen))):
                    seen += len(data)
                    if data.endswith(b"0\r\n\r\n"):
                        break

    threads = [threading.Thread(target=work, args=(plans[index::clients],)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert made.engine.idle(10)
    deadline = time.monotonic() + 10
    while made.service.running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not made.service.running
    assert made.service.slots.waiting == 0
    assert made.chat().status == 200
    assert all(handle.cancelled.is_set() for handle in made.engine.handles)


def test_random_disconnects_leave_nothing_behind(site) -> None:
    disconnects(site, 60, 6)


@pytest.mark.slow
def test_a_thousand_random_disconnects_leave_nothing_behind(site) -> None:
    disconnects(site, 1000, 8)


def test_who_waits_for_a_slot_and_leaves_takes_none(site) -> None:
    made = site(LONG, pause=0.02, max_concurrent=1)
    first = ask(made.host)
    started(made.engine)
    second = ask(made.host)
    deadline = time.monotonic() + 5
    while made.service.slots.waiting < 1 and time.monotonic() < deadline:
        time.sleep(0.005)
    second.close()
    while made.service.slots.waiting and time.monotonic() < deadline:
        time.sleep(0.005)
    assert made.service.slots.waiting == 0
    first.close()
    assert made.engine.idle(2)
    made.engine.script = say("a")
    assert made.chat().status == 200
    assert len(made.engine.requests) == 2


def test_a_full_queue_is_told(site) -> None:
    from tunesmith.serve.limits import Limits

    made = site(LONG, pause=0.02, max_concurrent=1, limits=Limits(queue=0))
    sock = ask(made.host)
    started(made.engine)
    answer = made.chat()
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert answer.headers["retry-after"] == "1"
    sock.close()


def test_a_reply_that_the_engine_does_not_take_ends_those_that_it_took(site) -> None:
    made = site(LONG, pause=0.02)
    made.engine.most_live = 2
    answer = made.chat(n=3)
    assert answer.status == 429
    assert made.engine.idle(2)


def test_a_slow_reader_keeps_nobody_waiting(site) -> None:
    made = site(say(*["x" * 4000] * 200))
    with ask(made.host) as slow:
        slow.recv(1)
        made.engine.script = say("quick")
        for _ in range(5):  # each within the client's patience of 20 s
            assert made.chat().status == 200
            assert made.ask("GET", "/health").status == 200
    assert made.engine.idle(5)


def test_a_server_that_stops_finishes_what_it_has_begun(site) -> None:
    made = site(say(*["word "] * 40), pause=0.01)
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(made.chat()))
    thread.start()
    started(made.engine)
    made.service.draining = True
    assert made.ask("GET", "/health").status == 200
    assert made.ask("GET", "/ready").status == 503
    refused = made.chat()
    assert (refused.status, refused.error["code"]) == (503, "stopping")
    assert refused.headers["retry-after"]
    thread.join(10)
    assert answers[0].json["choices"][0]["message"]["content"] == "word " * 40


def test_an_engine_that_is_closed_is_told(site) -> None:
    made = site(LONG, pause=0.01)
    with ask(made.host) as sock:
        started(made.engine)
        sock.recv(10)
        made.engine.close()
        text = b""
        while data := sock.recv(4096):
            text += data
            if data.endswith(b"0\r\n\r\n"):
                break
    assert b'"code": "stopping"' in text
    assert b"[DONE]" not in text
