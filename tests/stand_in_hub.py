"""A server on this machine that takes uploads as the Hugging Face hub does: repositories, files and commits.

`mode` is how it answers: "well", "refuse" (403), "broken" (500) or "hang" (nothing, until it is closed).
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["StandInHub"]


class StandInHub(ThreadingHTTPServer):
    """`commits`: of each the branch, the message and the files by path. `made`: what repositories were asked for."""

    daemon_threads = True

    def __init__(self, mode: str = "well") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = mode
        self.commits: list[tuple[str, str, dict[str, bytes]]] = []
        self.made: list[dict[str, Any]] = []
        self.branches: list[str] = []
        self.tokens: set[str | None] = set()
        self.objects: dict[str, bytes] = {}
        self.closed, self.asked = threading.Event(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def close(self) -> None:
        self.closed.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: StandInHub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self._answer_to(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        self._answer_to(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_GET(self) -> None:
        self._answer_to(b"")

    def do_HEAD(self) -> None:
        self._answer_to(b"")

    def _answer_to(self, body: bytes) -> None:
        hub = self.server
        hub.asked.set()
        if hub.mode == "hang":
            hub.closed.wait(60)
            self.close_connection = True
            return
        if hub.mode in ("refuse", "broken"):
            self._answer({"error": "no"}, 403 if hub.mode == "refuse" else 500)
            return
        path = self.path.split("?")[0]
        if path.startswith("/objects/"):
            hub.objects[path.rpartition("/")[2]] = body
            self._answer({})
            return
        hub.tokens.add(self.headers.get("Authorization"))
        if path == "/api/validate-yaml":
            self._answer({"warnings": [], "errors": []})
        elif path == "/api/repos/create":
            told = json.loads(body)
            hub.made.append(told)
            owner = told.get("organization") or "someone"
            self._answer({"url": f"{hub.address}/{owner}/{told['name']}"})
        elif "/branch/" in path:
            hub.branches.append(path.rpartition("/")[2])
            self._answer({})
        elif "/preupload/" in path:
            wanted = json.loads(body)["files"]
            modes = [{"path": one["path"], "uploadMode": _mode(one["path"]), "shouldIgnore": False} for one in wanted]
            self._answer({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            self._answer({"transfer": "basic", "objects": [self._place(one) for one in json.loads(body)["objects"]]})
        elif "/commit/" in path:
            branch = path.rpartition("/")[2]
            lines = [json.loads(line) for line in body.splitlines() if line]
            hub.commits.append((branch, lines[0]["value"]["summary"], dict(map(self._file, lines[1:]))))
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            oid = f"{len(hub.commits):040x}"
            self._answer({"commitUrl": f"{hub.address}/{name}/commit/{oid}", "commitOid": oid})
        else:
            self._answer({"error": f"the stand-in knows no {path}"}, 404)

    def _place(self, one: dict[str, Any]) -> dict[str, Any]:
        href = f"{self.server.address}/objects/{one['oid']}"
        return {"oid": one["oid"], "size": one["size"], "actions": {"upload": {"href": href}}}

    def _file(self, line: dict[str, Any]) -> tuple[str, bytes]:
        told = line["value"]
        if line["key"] == "lfsFile":
            return told["path"], self.server.objects[told["oid"]]
        return told["path"], base64.b64decode(told["content"])

    def _answer(self, content: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def _mode(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"
