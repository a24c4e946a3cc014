"""The guarded fetcher against the ways in which others were fooled. Nothing leaves this machine: names are looked up in
a table, public IPs lead to a server of the test, and a canary listens where nobody may come."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.unit.media.network import OTHER, PNG, PUBLIC, Listener, World, leads_to, whole
from tunesmith.core.errors import DataError, TunesmithError, UnavailableError
from tunesmith.media.addresses import is_public
from tunesmith.media.fetch import Fetcher, Policy
from tunesmith.media.kinds import kind_of


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


WITHIN = [
    "http://127.0.0.1/",
    "http://127.0.0.1:80/a.png",
    "https://127.0.0.1/",
    "http://127.1.2.3/",
    "http://[::1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://0.0.0.0/",
    "http://[::]/",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::ffff:169.254.169.254]/",
    "http://[fd00:ec2::254]/",
    "http://[fd00::1]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25lo]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://192.0.0.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://127.0.0.1./",
    "http://127.0.0.01/",
    "http://ok.example@127.0.0.1/",
    "http://127.0.0.1@ok.example/",
    "http://ok.example:80@127.0.0.1/",
    "http://ok.example\\@127.0.0.1/",
    "http:\\\\127.0.0.1/",
    "http://127.0.0.1\\.ok.example/",
    "http://127.0.0.1\t/",
    "http://127.0.0.1\n.ok.example/",
    " http://127.0.0.1/",
    "http://ok.example /",
    "http://127。0。0。1/",
    "http://①②⑦.0.0.1/",
    "http://ok。example/",
    "http://%31%32%37.0.0.1/",
    "http://localhost/",
    "http://LOCALHOST/",
    "http://two.example/",
    "http://within.example/",
    "http://mapped.example/",
    "http://nobody.example/",
    "http://ok.example:22/",
    "http://ok.example:0/",
    "http://ok.example:99999/",
    "http://ok.example:8a/",
    "http://",
    "http:///a.png",
    "//127.0.0.1/",
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://127.0.0.1/etc/passwd",
    "ftp://ok.example/a.png",
    "gopher://127.0.0.1:70/_x",
    "jar:http://ok.example!/",
    "unix:/var/run/docker.sock",
    "/etc/passwd",
    "C:\\secret.png",
    "javascript:alert(1)",
    "",
    "http://" + "a" * 5000,
]


@pytest.mark.parametrize("url", WITHIN)
def test_nobody_is_sent_where_others_cannot_reach(world: World, url: str) -> None:
    world.names |= {
        "localhost": ["127.0.0.1", "::1"],
        "two.example": [PUBLIC, "127.0.0.1"],
        "within.example": ["10.1.2.3"],
        "mapped.example": ["::ffff:127.0.0.1"],
    }
    with pytest.raises(DataError) as caught:
        world.fetcher().get(url)
    assert caught.value.code == "E-MEDIA-001"
    assert world.connects == []
    assert world.canary.count == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("url", ["http://127.0.0.1/", "//127.0.0.1/", "file:///etc/passwd", "http://localhost:22/", ""])
def test_a_redirect_is_an_address_of_its_own(world: World, status: int, url: str) -> None:
    world.answer = leads_to(url, status)
    world.names["localhost"] = ["127.0.0.1"]
    with pytest.raises(TunesmithError) as caught:
        world.fetcher(redirects=2).get("http://ok.example/")
    assert caught.value.code == "E-MEDIA-001"
    assert world.canary.count == 0


def test_three_redirects_are_followed_and_a_fourth_is_not(world: World) -> None:
    left = [3]

    def answer(request: bytes) -> bytes:
        left[0] -= 1
        return leads_to("/next")(request) if left[0] >= 0 else whole(PNG)

    world.answer = answer
    assert world.fetcher().get("http://ok.example/").kind == "image/png"
    left[0] = 4
    with pytest.raises(DataError, match="leads on more than 3 times"):
        world.fetcher().get("http://ok.example/")


def test_a_name_that_changes_its_mind_is_asked_once(world: World) -> None:
    answers = iter([[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]])
    world.names["rebinds.example"] = lambda: next(answers)
    assert world.fetcher().get("http://rebinds.example/").kind == "image/png"
    assert world.connects == [PUBLIC]
    with pytest.raises(DataError):
        world.fetcher().get("http://rebinds.example/")
    assert world.canary.count == 0


def test_what_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{world.canary.port}")
    world.fetcher(ports=(80, 8080)).get("http://ok.example:8080/a%20b.png?size=2#part")
    (request,) = world.origins[0].requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /a%20b.png?size=2 HTTP/1.1"
    assert "Host: ok.example:8080" in lines
    assert "Accept-Encoding: identity" in lines
    assert not any(line.lower().startswith(("cookie", "authorization", "proxy", "referer")) for line in lines)
    assert world.canary.count == 0


def test_all_ips_of_a_name_count_and_the_first_is_used(world: World) -> None:
    world.names["both.example"] = [OTHER, PUBLIC]
    assert world.fetcher().get("http://both.example/").data == PNG
    assert world.connects == [OTHER]


def slowly(data: bytes, pause: float) -> Iterator[bytes]:
    for byte in data:
        time.sleep(pause)
        yield bytes([byte])


def endless() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + PNG
    while True:
        yield b"\0" * 65536


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda request: endless(), "E-MEDIA-003"),
        (lambda request: whole(PNG, "Content-Encoding: gzip"), "E-MEDIA-003"),
        (lambda request: whole(gzip.compress(b"\0" * 10**6), "Content-Encoding: gzip"), "E-MEDIA-003"),
        (lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + PNG, "E-MEDIA-003"),
        (lambda request: whole(b"<html>hello</html>", "Content-Type: image/png"), "E-MEDIA-003"),
        (lambda request: whole(b""), "E-MEDIA-003"),
        (lambda request: whole(b"<svg xmlns='x'/>", "Content-Type: image/svg+xml"), "E-MEDIA-003"),
        (lambda request: b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + PNG, "E-MEDIA-002"),
        (lambda request: whole(PNG, status="404 Not Found"), "E-MEDIA-002"),
        (lambda request: whole(PNG, status="206 Partial"), "E-MEDIA-002"),
        (lambda request: b"", "E-MEDIA-002"),
        (lambda request: b"SSH-2.0-OpenSSH\r\n", "E-MEDIA-002"),
        (lambda request: b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000 + b"\r\n", "E-MEDIA-002"),
        (lambda request: b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10**6 + b"\r\n\r\n", "E-MEDIA-002"),
        (lambda request: whole(b"", status="302 Found"), "E-MEDIA-001"),
    ],
)
def test_what_is_not_taken(world: World, answer: Callable[[bytes], Any], code: str) -> None:
    world.answer = answer
    with pytest.raises(TunesmithError) as caught:
        world.fetcher(most_bytes=300_000, redirects=1).get("http://ok.example/")
    assert caught.value.code == code
    assert world.canary.count == 0


@pytest.mark.parametrize("part", ["head", "body", "silence"])
def test_who_sends_slowly_is_not_waited_for(world: World, part: str) -> None:
    texts = {
        "head": lambda request: slowly(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50, 0.05),
        "body": lambda request: _body_slowly(),
        "silence": lambda request: slowly(b"H", 5),
    }
    world.answer = texts[part]
    began = time.monotonic()
    with pytest.raises(UnavailableError):
        world.fetcher(total_seconds=0.5, read_seconds=0.4).get("http://ok.example/")
    assert time.monotonic() - began < 2


def _body_slowly() -> Iterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 108\r\n\r\n"
    yield from slowly(PNG, 0.05)


def test_https_asks_for_a_certificate_of_the_name(world: World) -> None:
    """The server of the test speaks no TLS, so the handshake fails; and it began with the name."""
    hello: list[bytes] = []

    class Raw(Listener):
        def _serve(self, sock: socket.socket) -> None:
            with sock, suppress(OSError):
                hello.append(sock.recv(4096))

    origin = Raw()
    world.origins.append(origin)
    world.connect = lambda ip, port, seconds: socket.create_connection(("127.0.0.1", origin.port), seconds)  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        world.fetcher().get("https://ok.example/")
    assert b"ok.example" in hello[0]


def test_by_itself_nothing_is_fetched(world: World) -> None:
    with pytest.raises(DataError, match="only data: addresses"):
        Fetcher(Policy(), resolve=world.resolve, connect=world.connect).get("https://ok.example/")
    with pytest.raises(DataError, match="https is needed"):
        world.fetcher(plain_http=False).get("http://ok.example/")
    assert world.connects == []


def test_a_list_of_hosts(world: World) -> None:
    world.names["other.example"] = [PUBLIC]
    fetcher = world.fetcher(hosts={"ok.example"})
    assert fetcher.get("http://OK.example/").kind == "image/png"
    for url in ("http://other.example/", "http://ok.example.other.example/", "http://sub.ok.example/"):
        with pytest.raises(DataError, match="not on the list"):
            fetcher.get(url)


def test_who_asks_is_not_told_what_is_within(world: World) -> None:
    """A name that is not there and one that is, within, give the same words."""
    world.names["within.example"] = ["10.0.0.1"]
    told = []
    for host in ("within.example", "nobody.example"):
        with pytest.raises(DataError) as caught:
            world.fetcher().get(f"http://{host}/")
        told.append(str(caught.value).replace(host, "HOST"))
    assert told[0] == told[1]


IMAGE = base64.b64encode(PNG).decode()


@pytest.mark.parametrize("head", ["data:image/png;base64,", "data:;base64,", "data:image/png;name=a.png;base64,"])
def test_a_data_address(head: str) -> None:
    found = Fetcher(Policy()).get(head + IMAGE)
    assert (found.kind, found.data) == ("image/png", PNG)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("data:image/png," + IMAGE, "E-MEDIA-001"),
        ("data:image/png;base64" + IMAGE, "E-MEDIA-001"),
        ("data:", "E-MEDIA-001"),
        ("data:image/png;charset=\x00;base64," + IMAGE, "E-MEDIA-001"),
        ("data:image/png;base64,not base64!", "E-MEDIA-003"),
        ("data:image/png;base64,é", "E-MEDIA-003"),
        ("data:image/png;base64,AAAA", "E-MEDIA-003"),
        ("data:image/png;base64," + base64.b64encode(PNG + b"\0" * 1000).decode(), "E-MEDIA-003"),
        ("data:text/html;base64," + base64.b64encode(b"<script>").decode(), "E-MEDIA-003"),
    ],
)
def test_a_data_address_that_is_not_taken(url: str, code: str) -> None:
    with pytest.raises(DataError) as caught:
        Fetcher(Policy(most_bytes=500)).get(url)
    assert caught.value.code == code


def test_kinds_are_read_from_the_bytes() -> None:
    riff = b"RIFF\0\0\0\0"
    assert kind_of(riff + b"WAVEfmt ") == "audio/wav"
    assert kind_of(riff + b"WEBPVP8 ") == "image/webp"
    assert kind_of(b"XXXX\0\0\0\0WAVE") is None
    assert kind_of(b"\0\0\0\x18ftypM4A ") == "audio/mp4"
    assert kind_of(b"\0\0\0\x18ftypisom") == "video/mp4"
    assert kind_of(b"%PDF-1.7") is None
    with pytest.raises(DataError, match="it is no audio"):
        Fetcher(Policy(kinds=("audio/",))).get("data:;base64," + IMAGE)


def test_public_ips_are_public() -> None:
    for text in (PUBLIC, OTHER, "8.8.8.8", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"):
        assert is_public(ipaddress.ip_address(text)), text
