"""Bytes from an address that somebody else has written: a client of the API, a row of a dataset.

fetcher = Fetcher(Policy(remote=True))
fetcher.get("https://example.org/cat.png").kind      # "image/png"

A server that fetches what it is told is a way into the network that it stands in. So an address is read once, its name
is looked up once, every IP that it has must be public, and the connection goes to the one that was looked at. Each
redirect is an address of its own. Proxies of the environment are not asked. By itself nothing but `data:` is taken.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import TypeAlias
from urllib.parse import urljoin

from tunesmith._version import __version__
from tunesmith.core.errors import DataError, Problem, UnavailableError
from tunesmith.media.addresses import Target, is_public, read_target, refused
from tunesmith.media.kinds import kind_of

__all__ = ["Fetcher", "Media", "Policy", "connect", "resolve"]

Resolve: TypeAlias = Callable[[str, int], Sequence[str]]
Connect: TypeAlias = Callable[[str, int, float], socket.socket]

_DATA = re.compile(r"data:[A-Za-z0-9!#$&^_.+/-]{0,100}(?:;[A-Za-z0-9_-]+=[A-Za-z0-9_.-]+){0,4};base64,", re.ASCII)
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Policy:
    """What may be fetched. Sizes are bytes and seconds.

    remote      fetch at all, beside reading `data:` addresses
    plain_http  also without TLS
    hosts       these names and no others; None: all
    kinds       beginnings of the types that are taken
    """

    remote: bool = False
    plain_http: bool = False
    hosts: Collection[str] | None = None
    ports: Collection[int] = (80, 443)
    kinds: tuple[str, ...] = ("image/", "audio/", "video/")
    most_bytes: int = 20_000_000
    redirects: int = 3
    connect_seconds: float = 3.0
    read_seconds: float = 10.0
    total_seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Media:
    """`kind`: the media type, found in the bytes themselves."""

    data: bytes
    kind: str


def resolve(host: str, port: int) -> list[str]:
    """All IPs of a name, as the system knows them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def connect(ip: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((ip, port), timeout=seconds)


class Fetcher:
    """`resolve` and `connect` are the two ways to the network, for tests to stand in."""

    def __init__(self, policy: Policy, *, resolve: Resolve = resolve, connect: Connect = connect) -> None:
        self.policy, self._resolve, self._connect = policy, resolve, connect

    def get(self, url: str) -> Media:
        """Raises DataError for an address that is not fetched (E-MEDIA-001) and for bytes that are not taken
        (E-MEDIA-003), UnavailableError (E-MEDIA-002) for what does not come."""
        if url[:5].lower() == "data:":
            return self._checked(_from_data(url, self.policy.most_bytes), url)
        if not self.policy.remote:
            raise refused("nothing is fetched here, only data: addresses are read", url)
        deadline = time.monotonic() + self.policy.total_seconds
        here = url
        for _ in range(self.policy.redirects + 1):
            found = self._ask(here, deadline)
            if isinstance(found, bytes):
                return self._checked(found, url)
            here = found
        raise refused(f"it leads on more than {self.policy.redirects} times", url)

    def _ask(self, url: str, deadline: float) -> bytes | str:
        """The bytes, or the address that it leads to."""
        target = self._allowed(url)
        ip = self._pinned(target, url)
        with _network(url), self._connected(target, ip, deadline) as connection:
            headers = {
                "Host": target.authority,
                "User-Agent": f"tunesmith/{__version__}",
                "Accept": "image/*, audio/*, video/*",
                "Accept-Encoding": "identity",
                "Connection": "close",
            }
            connection.request("GET", target.path, headers=headers)
            with connection.getresponse() as answer:
                if answer.status in _REDIRECTS:
                    return urljoin(url, answer.headers.get("Location", ""))
                if answer.status != 200:
                    raise _unavailable(f"the server says {answer.status}", url)
                return self._read(answer, url, deadline)

    def _allowed(self, url: str) -> Target:
        target = read_target(url)
        if target.scheme == "http" and not self.policy.plain_http:
            raise refused("https is needed", url)
        if target.port not in self.policy.ports:
            raise refused(f"port {target.port} is not one of those that are fetched from", url)
        if self.policy.hosts is not None and target.host not in self.policy.hosts:
            raise refused("its host is not on the list of those that are fetched from", url)
        return target

    def _pinned(self, target: Target, url: str) -> str:
        """The IP to connect to. One message for a name that is not there and for one that is within a network: who asks
        is not told what there is."""
        try:
            ips = [ipaddress.ip_address(ip) for ip in self._resolve(target.host, target.port)]
        except (OSError, ValueError, UnicodeError):
            ips = []
        if not ips or not all(is_public(ip) for ip in ips):
            raise refused("its host is not one that everybody can reach", url)
        return str(ips[0])

    @contextmanager
    def _connected(self, target: Target, ip: str, deadline: float) -> Iterator[HTTPConnection]:
        """A connection that is cut at the deadline, however slowly bytes come in until then."""
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock = self._connect(ip, target.port, min(self.policy.connect_seconds, left))
        ways = [sock]
        timer = threading.Timer(deadline - time.monotonic(), _cut, [ways])
        timer.daemon = True
        timer.start()
        connection = HTTPConnection(target.host, target.port)
        try:
            sock.settimeout(self.policy.read_seconds)
            if target.scheme == "https":
                ways[0] = tls = self._tls.wrap_socket(sock, server_hostname=target.host, do_handshake_on_connect=False)
                tls.do_handshake()
            connection.sock = ways[0]
            yield connection
        finally:
            timer.cancel()
            connection.close()
            ways[0].close()

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def _read(self, answer: HTTPResponse, url: str, deadline: float) -> bytes:
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _not_taken("it is compressed", url)
        told = answer.headers.get("Content-Length", "")
        if told.isdigit() and int(told) > self.policy.most_bytes:
            raise _too_large(self.policy, url)
        data = bytearray()
        while piece := answer.read1(_PIECE):
            data += piece
            if len(data) > self.policy.most_bytes:
                raise _too_large(self.policy, url)
        if (told.isdigit() and len(data) < int(told)) or time.monotonic() > deadline:
            raise _unavailable("it broke off", url)
        return bytes(data)

    def _checked(self, data: bytes, url: str) -> Media:
        if len(data) > self.policy.most_bytes:
            raise _too_large(self.policy, url)
        kind = kind_of(data)
        if kind is None or not kind.startswith(self.policy.kinds):
            raise _not_taken("it is no " + ", ".join(kind.rstrip("/") for kind in self.policy.kinds), url)
        return Media(data, kind)


def _cut(ways: Sequence[socket.socket]) -> None:
    """End the connection below TLS, whose own way of ending it is not for another thread."""
    with suppress(OSError):
        socket.socket.shutdown(ways[0], socket.SHUT_RDWR)


@contextmanager
def _network(url: str) -> Iterator[None]:
    """What the network does wrong, as a problem."""
    try:
        yield
    except (OSError, HTTPException, ValueError) as error:
        raise _unavailable(type(error).__name__, url) from error


def _from_data(url: str, most_bytes: int) -> bytes:
    match = _DATA.match(url)
    if match is None:
        raise refused("a data: address has the form data:TYPE;base64,BYTES", url[:80])
    text = url[match.end() :]
    if len(text) > most_bytes * 4 // 3 + 4:
        raise _not_taken(f"it has more than {most_bytes:,} bytes", url[:80])
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise _not_taken("it is not base64", url[:80]) from None


def _unavailable(what: str, url: str) -> UnavailableError:
    fix = "check the address, or send the file itself as a data: address"
    return UnavailableError(Problem("E-MEDIA-002", f"this address gives nothing: {what}", got=url[:200], fix=fix))


def _too_large(policy: Policy, url: str) -> DataError:
    return _not_taken(f"it has more than {policy.most_bytes:,} bytes", url)


def _not_taken(what: str, url: str) -> DataError:
    return DataError(Problem("E-MEDIA-003", f"what is at this address is not taken: {what}", got=url[:80]))
