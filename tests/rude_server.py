"""A server that answers as a test wrote down, and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Plan:
    """One answer. `body`: an object as JSON, or text as it is; `parts`: sent one by one, each after `before` has been
    called, and then the connection ends."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    parts: Sequence[str] = ()
    before: Callable[[], Any] = lambda: None


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any


def events(*objects: Any, done: bool = True) -> list[str]:
    told = [f"data: {json.dumps(one)}\n\n" for one in objects]
    return [*told, "data: [DONE]\n\n"] if done else told


@contextmanager
def rude_server(*plans: Plan) -> Iterator[tuple[str, list[Asked]]]:
    """(address, what was asked): the plans in their order, the last one again and again."""
    asked: list[Asked] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def _take(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            with lock:
                asked.append(Asked(self.command, self.path, headers, body))
                plan = plans[min(len(asked), len(plans)) - 1]
            with suppress(BrokenPipeError, ConnectionResetError):  # the client has left, as some tests want
                self._answer(plan)

        def _answer(self, plan: Plan) -> None:
            self.send_response(plan.status)
            for name, value in plan.headers.items():
                self.send_header(name, value)
            if plan.parts:
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for part in plan.parts:
                    plan.before()
                    self.wfile.write(part.encode())
                    self.wfile.flush()
                return
            plan.before()
            data = (plan.body if isinstance(plan.body, str) else json.dumps(plan.body)).encode()
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _take

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
