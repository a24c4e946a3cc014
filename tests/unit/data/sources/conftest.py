"""Stand-ins for the network: a server on this machine that gives files, and one that speaks as the hub does."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest


class Server(ThreadingHTTPServer):
    """Files by path. `asked` are the requests that came: (method, path, range)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.parts = True
        self.tags = True
        self.refused: dict[str, int] = {}
        self.cut: int | None = None
        self.repository: dict[str, bytes] = {}
        self.sha = "a" * 40

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, **files: bytes) -> None:
        """Other files in the repository, and so another commit."""
        self.repository.update(files)
        self.sha = hashlib.sha1(repr(sorted(self.repository.items())).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append((self.command, path, self.headers.get("Range")))
        if path in self.server.refused:
            self._answer(self.server.refused[path], b"")
        elif path.startswith("/api/datasets/owner/name/tree/"):
            folder = unquote(path).split("/", 7)[7:]
            self._answer(200, json.dumps(self._tree("".join(f"{name}/" for name in folder))).encode())
        elif path.startswith("/api/datasets/owner/name"):
            siblings = [{"rfilename": name} for name in self.server.repository]
            told = {"id": "owner/name", "sha": self.server.sha, "siblings": siblings}
            self._answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif path.startswith("/api/"):
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif path.startswith("/datasets/owner/name/resolve/"):
            name = path.split("/", 6)[6]
            self._file(self.server.repository.get(name), {"X-Repo-Commit": self.server.sha})
        else:
            self._file(self.server.files.get(path), {})

    def do_POST(self) -> None:
        self.server.asked.append((self.command, self.path, None))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/paths-info/" in self.path:
            paths = json.loads(body)["paths"]
            told = [
                {"type": "file", "path": path, "size": len(self.server.repository[path]), "oid": "0" * 40}
                for path in paths
                if path in self.server.repository
            ]
            self._answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
        else:
            self._answer(404, b"")

    def _tree(self, folder: str) -> list[dict[str, object]]:
        """What lies directly in a folder of the repository."""
        found: dict[str, dict[str, object]] = {}
        for name, data in self.server.repository.items():
            if name.startswith(folder):
                first, deeper, _ = name.removeprefix(folder).partition("/")
                kind = {"type": "directory"} if deeper else {"type": "file", "size": len(data)}
                found[first] = {"path": folder + first, "oid": "0" * 40, **kind}
        return list(found.values())

    def _file(self, data: bytes | None, headers: dict[str, str]) -> None:
        if data is None:
            self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        if self.server.tags:
            headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        status = 200
        if self.server.parts:
            headers["Accept-Ranges"] = "bytes"
            if wanted := self.headers.get("Range"):
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                end = int(last) + 1 if last else len(data)
                headers["Content-Range"] = f"bytes {first}-{end - 1}/{len(data)}"
                data, status = data[int(first) : end], 206
        self._answer(status, data, headers)

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: self.server.cut])
            if self.server.cut is not None and self.server.cut < len(data):
                self.close_connection = True

    def log_message(self, *_args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield one
    one.shutdown()
    one.server_close()
    thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of ours."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TUNESMITH_CACHE", str(folder))
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(folder / "data"))
    return folder


@pytest.fixture
def hub(server: Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A hub with the dataset owner/name, and an empty cache of the hub's library."""
    from huggingface_hub import HfFileSystem, constants

    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    HfFileSystem.clear_instance_cache()
    return server
