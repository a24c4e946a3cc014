"""A network of a test: names in a table, servers behind public IPs, and a canary where nobody may come."""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from tunesmith.media.addresses import is_public
from tunesmith.media.fetch import Fetcher, Policy

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
PUBLIC, OTHER = "93.184.216.34", "2606:2800:220:1::1"


class Listener:
    """Counts who comes, and answers with what a test wrote down."""

    def __init__(self, answer: Callable[[bytes], Any] = lambda request: b"") -> None:
        self.count, self.requests = 0, list[bytes]()
        self._answer = answer
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._sock.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._sock.accept()
                self.count += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += sock.recv(4096)
            self.requests.append(request)
            found = self._answer(request)
            for part in [found] if isinstance(found, bytes) else found:
                sock.sendall(part)

    def close(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        self._thread.join(5)


class World:
    """A table of names, a canary at every address of this machine, and a server behind every public one."""

    def __init__(self) -> None:
        self.canary = Listener()
        self.names: dict[str, Any] = {"ok.example": [PUBLIC]}
        self.origins: list[Listener] = []
        self.connects: list[str] = []
        self.answer: Callable[[bytes], Any] = lambda request: whole(PNG)

    def resolve(self, host: str, port: int) -> list[str]:
        found = self.names.get(host)
        if callable(found):
            found = found()
        if found is None:  # an IP means itself; for all other names there is nothing
            try:
                return [str(ipaddress.ip_address(host))]
            except ValueError:
                raise socket.gaierror("no such name") from None
        return list(found)

    def connect(self, ip: str, port: int, seconds: float) -> socket.socket:
        self.connects.append(ip)
        if is_public(ipaddress.ip_address(ip)):
            origin = Listener(self.answer)
            self.origins.append(origin)
            return socket.create_connection(("127.0.0.1", origin.port), seconds)
        return socket.create_connection(("127.0.0.1", self.canary.port), seconds)

    def fetcher(self, **changes: Any) -> Fetcher:
        policy = {"remote": True, "plain_http": True, "read_seconds": 1.0, "total_seconds": 2.0, **changes}
        return Fetcher(Policy(**policy), resolve=self.resolve, connect=self.connect)

    def close(self) -> None:
        for listener in (self.canary, *self.origins):
            listener.close()


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
    return head.encode() + body


def leads_to(url: str, status: int = 302) -> Callable[[bytes], bytes]:
    return lambda request: whole(b"", f"Location: {url}", status=f"{status} Found")
