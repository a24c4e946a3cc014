"""Who may ask, from where, and how much."""

from __future__ import annotations

import logging
import socket
import time
from typing import Any

import pytest

from tests.serving import say
from tunesmith.core.errors import MachineError
from tunesmith.serve.app import ROUTES
from tunesmith.serve.auth import BackOff, read_keys
from tunesmith.serve.gate import OPEN_PATHS
from tunesmith.serve.limits import LIMITS, Limits
from tunesmith.serve.settings import Settings

KEY, OTHER = "a-key-of-the-tests-1", "b-key-of-the-tests-2"


def keys(*texts: str) -> Any:
    return read_keys(",".join(texts), "API_KEY")[0]


# ---- the form of keys ----


@pytest.mark.parametrize(
    "text",
    ["k" * 15, "k" * 257, "k" * 15 + "é", "k" * 16 + " ", "k" * 8 + "\n" + "k" * 9, f"{KEY},", f"{KEY}, {OTHER}"],
)
def test_a_malformed_key_is_refused_and_never_shown(text: str) -> None:
    with pytest.raises(MachineError) as caught:
        read_keys(text, "API_KEY")
    assert caught.value.exit_code == 78
    assert "kkk" not in str(caught.value)
    assert KEY not in str(caught.value)


def test_keys_that_are_right() -> None:
    for text in ("k" * 16, "!" * 256, f"{KEY},{OTHER}", f"{KEY}\n{OTHER}"):
        assert read_keys(text, "API_KEY")[1] == []
    found, notes = read_keys(KEY + "\n", "API_KEY")
    assert found.know(KEY.encode())
    assert len(notes) == 1
    assert not read_keys("", "API_KEY")[0]


def test_keys_are_kept_as_digests() -> None:
    found = keys(KEY, OTHER)
    assert found.know(KEY.encode())
    assert found.know(OTHER.encode())
    assert not found.know(KEY[:-1].encode())
    assert not found.know("schlüssel".encode())
    assert KEY not in repr(found)


def test_comparing_takes_as_long_for_any_key() -> None:
    """Medians of 1,000 tries: a key that is wrong from the first byte, from the last, and of another length."""
    found = keys(KEY)
    medians = []
    for tried in (b"X" + KEY.encode()[1:], KEY.encode()[:-1] + b"X", KEY.encode()):
        times = []
        for _ in range(1000):
            began = time.perf_counter_ns()
            found.know(tried)
            times.append(time.perf_counter_ns() - began)
        medians.append(sorted(times)[500])
    assert max(medians) - min(medians) < 2000  # ns; a call takes about as long


# ---- settings ----


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[Settings, list[str]]:
    for name in ("API_HOST", "API_PORT", "API_KEY", "API_KEY_FILE", "API_MODEL_NAME", "MAX_CONCURRENT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    notes: list[str] = []
    return Settings.from_env("named", notes.append), notes


def test_without_variables_it_is_for_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = settings(monkeypatch)
    assert (found.host, found.port, found.model_name, found.max_concurrent) == ("127.0.0.1", 8000, "named", None)
    assert not found.keys
    assert notes == []


def test_variables_of_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "keys").write_text(f"{OTHER}\n", encoding="utf-8")
    found, notes = settings(
        monkeypatch,
        API_HOST="0.0.0.0",
        API_PORT="0",
        API_KEY=KEY + "\n",
        API_KEY_FILE=str(tmp_path / "keys"),
        API_MODEL_NAME="my/model",
        FASTAPI_ROOT_PATH="/models/first/",
        MAX_CONCURRENT="3",
    )
    assert (found.host, found.port, found.model_name) == ("0.0.0.0", 0, "my/model")
    assert (found.root_path, found.max_concurrent) == ("/models/first", 3)
    assert found.keys.know(KEY.encode())
    assert found.keys.know(OTHER.encode())
    assert found.hosts is None
    assert len(notes) == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"API_HOST": "0.0.0.0"},
        {"API_HOST": "::"},
        {"API_HOST": "0.0.0.0", "API_KEY": "\n"},
        {"API_KEY": "short"},
        {"API_PORT": "eighty"},
        {"API_PORT": "65536"},
        {"MAX_CONCURRENT": "0"},
        {"API_MODEL_NAME": "a b"},
        {"FASTAPI_ROOT_PATH": "no-slash"},
    ],
)
def test_what_cannot_be_right_is_no_start(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    with pytest.raises(MachineError) as caught:
        settings(monkeypatch, **variables)
    assert caught.value.exit_code == 78


# ---- every route ----


def paths() -> list[tuple[str, str]]:
    return [(method, path.replace("{name:path}", "x").replace("{name}", "x")) for method, path, _ in ROUTES]


def test_every_route_but_health_and_ready_needs_a_key(site) -> None:
    made = site(keys=keys(KEY, OTHER))
    made.service.adapter_dir = None
    good = {"Authorization": f"Bearer {KEY}"}
    for method, path in [*paths(), ("GET", "/nowhere"), ("OPTIONS", "/v1/models"), ("GET", "/docs")]:
        answer = made.ask(method, path)
        if path in OPEN_PATHS:
            assert answer.status == 200
            continue
        assert answer.status in (401, 429), path
        assert answer.error["code"] in ("invalid_api_key", "too_many_wrong_keys")
        assert made.ask(method, path, headers=good).status not in (401, 429), path


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}x",
        f"Basic {KEY}",
        KEY,
        "Bearer schlüssel-nicht-ascii",
        f"Bearer {KEY} {KEY}",
        f"Token {KEY}",
    ],
)
def test_a_wrong_key(site, header: str) -> None:
    answer = site(keys=keys(KEY)).ask("GET", "/v1/models", headers={"Authorization": header})
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.error["code"] == "invalid_api_key"


def test_every_key_opens_and_the_scheme_has_no_case(site) -> None:
    made = site(keys=keys(KEY, OTHER))
    for header in (f"Bearer {KEY}", f"bearer {OTHER}"):
        assert made.ask("GET", "/v1/models", headers={"Authorization": header}).status == 200
    assert made.ask("GET", f"/v1/models?api_key={KEY}").status == 401


def test_who_guesses_has_to_wait_and_who_knows_has_not() -> None:
    now = [1000.0]
    guard = BackOff(lambda: now[0])
    assert [guard.refuse("a").status for _ in range(5)] == [401] * 5
    answer = guard.refuse("a")
    assert (answer.status, answer.headers["Retry-After"]) == (429, "2")
    assert guard.refuse("b").status == 401
    now[0] += 1.1
    assert guard.refuse("a").status == 401
    now[0] += 1.1
    assert guard.refuse("a").status == 429  # two seconds now
    now[0] += 700
    assert guard.refuse("a").status == 401
    for index in range(3000):
        guard.refuse(str(index))
    assert len(guard._wrong) <= BackOff.remembered


# ---- from where ----


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("localhost:{port}", 200),
        ("LOCALHOST", 200),
        ("[::1]:{port}", 200),
        ("evil.example:{port}", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:{port}", 403),
        ("", 403),
        ("169.254.169.254", 403),
    ],
)
def test_a_name_that_was_bound_to_this_machine_by_others_is_refused(site, host: str, status: int) -> None:
    made = site()
    answer = made.ask("GET", "/v1/models", headers={"Host": host.format(port=made.host.rpartition(":")[2])})
    assert answer.status == status
    if status == 403:
        assert answer.error["code"] == "wrong_host"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1", "http://127.0.0.1", "file://"]
)
def test_pages_of_other_sites_are_refused(site, origin: str) -> None:
    made = site(say("a"))
    for method, path in (("GET", "/v1/models"), ("OPTIONS", "/v1/chat/completions")):
        answer = made.ask(method, path, headers={"Origin": origin})
        assert answer.status == 403
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert made.chat(headers={"Origin": origin}).status == 403
    assert made.engine.requests == []
    assert made.chat(headers={"Origin": f"http://{made.host}"}).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_a_form_could_send_is_refused(site, kind: str) -> None:
    made = site()
    answer = made.chat(headers={"Content-Type": kind})
    assert answer.status == 415
    assert answer.error["code"] == "unsupported_media_type"
    assert made.engine.requests == []


# ---- how much ----


def test_what_is_no_path_and_no_method(site) -> None:
    made = site()
    assert made.ask("GET", "/nowhere").error["code"] == "not_found"
    for path in ("/docs", "/redoc", "/v1", "/v1/models/", "/v1/chat/completions/"):
        assert made.ask("GET", path).status == 404, path
    answer = made.ask("GET", "/v1/chat/completions")
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert made.ask("PUT", "/v1/adapters", {}).status == 405


SMALL = Limits(body_bytes=2000, header_bytes=1000, idle_seconds=0.4, body_seconds=1.5, generation_seconds=0.5)


def test_the_size_of_a_body(site) -> None:
    made = site(say("a"), limits=SMALL)
    empty = len(b'{"model": "tiny", "messages": [{"role": "user", "content": ""}]}')
    assert made.chat("x" * (2000 - empty)).status == 200
    answer = made.chat("x" * (2001 - empty))
    assert (answer.status, answer.error["code"]) == (413, "too_large")


def test_the_size_of_a_body_that_does_not_tell_it(site) -> None:
    made = site(limits=SMALL)
    with socket.create_connection(made.host.split(":"), timeout=10) as sock:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(3):
            sock.sendall(b"400\r\n" + b" " * 1024 + b"\r\n")
        assert b" 413 " in sock.recv(4096).split(b"\r\n")[0]


def test_the_size_of_headers(site) -> None:
    made = site(limits=SMALL)
    assert made.ask("GET", "/health", headers={"X-Long": "x" * 700}).status == 200
    answer = made.ask("GET", "/health", headers={"X-Long": "x" * 1000})
    assert answer.status in (400, 431)
    answer = made.ask("GET", "/health?" + "x" * 990)
    assert answer.status in (400, 431)


def test_a_body_that_does_not_come(site) -> None:
    made = site(limits=SMALL)
    with socket.create_connection(made.host.split(":"), timeout=10) as sock:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        sock.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        assert b" 408 " in sock.recv(4096).split(b"\r\n")[0]


@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_headers_that_do_not_end(site, before: bytes) -> None:
    made = site(limits=SMALL)
    with socket.create_connection(made.host.split(":"), timeout=10) as sock:
        if before:
            sock.sendall(before)
            assert b"200 OK" in sock.recv(4096)
        sock.sendall(b"GET /health HTTP/1.1\r\n")
        began = time.monotonic()
        try:
            while time.monotonic() - began < 5:
                sock.sendall(b"X: y\r\n")
                time.sleep(0.05)
        except OSError:  # closed by the other end
            pass
        assert time.monotonic() - began < 3
    assert made.ask("GET", "/health").status == 200


def nested(depth: int) -> bytes:
    return b'{"model": "tiny", "messages": ' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b'{"model": NaN}', "NaN"),
        (b'{"model": Infinity}', "Infinity"),
        (b"\xff\xfe", "UTF-8"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"null", "object"),
        (nested(LIMITS.json_depth + 1), "levels"),
        (nested(100_000), "levels"),
        (b'{"model": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"model": ' + b"9" * 5000 + b"}", "JSON"),
        (b'{"model": "tiny", "seed": 1e400}', ""),
    ],
)
def test_a_body_that_is_none(site, body: bytes, word: str) -> None:
    answer = site().ask("POST", "/v1/chat/completions", body)
    assert answer.status == 400, answer.text
    assert word in answer.error["message"]


def test_a_body_of_the_deepest_kind(site) -> None:
    answer = site().ask("POST", "/v1/chat/completions", nested(LIMITS.json_depth))
    assert answer.status == 400
    assert "levels" not in answer.text


def test_an_answer_that_takes_too_long(site) -> None:
    made = site(say(*"a" * 500), limits=SMALL, pause=0.01)
    answer = made.chat()
    assert (answer.status, answer.error["code"]) == (504, "timeout")
    assert made.chat(stream=True).text.splitlines()[-2].startswith('data: {"error"')
    assert made.engine.idle()


# ---- ids and logs ----


def test_request_ids(site) -> None:
    made = site(say("a"))
    assert made.chat(headers={"X-Request-Id": "my-own.1"}).headers["x-request-id"] == "my-own.1"
    for bad in ("x" * 65, "a b", "<script>"):
        assert made.chat(headers={"X-Request-Id": bad}).headers["x-request-id"].startswith("req_")
    assert made.ask("GET", "/nowhere").headers["x-request-id"].startswith("req_")


def test_no_log_and_no_answer_has_a_prompt_or_a_key(site, caplog: pytest.LogCaptureFixture) -> None:
    def fails(*_: Any) -> Any:
        raise RuntimeError("the canary-prompt is in the message of an error")

    caplog.set_level(logging.DEBUG)
    made = site(keys=keys(KEY))
    good = {"Authorization": f"Bearer {KEY}"}
    made.service.chat_prompt = fails
    failed = made.chat("canary-prompt", headers=good)
    assert failed.status == 500
    assert failed.headers["x-should-retry"] == "false"
    del made.service.chat_prompt
    made.chat("canary-prompt", headers=good)
    made.chat("canary-prompt", headers={"Authorization": "Bearer canary-key-of-somebody"})
    made.ask("GET", "/canary-prompt?canary-key-of-somebody", headers=good)
    seen = caplog.text + failed.text + made.ask("GET", "/metrics", headers=good).text
    assert "RuntimeError" in caplog.text
    assert "POST /v1/chat/completions 200" in caplog.text
    for secret in ("canary", KEY):
        assert secret not in seen


def test_a_root_path_of_a_proxy(site) -> None:
    made = site(root_path="/models/first", keys=keys(KEY))
    for path in ("/health", "/models/first/health"):
        assert made.ask("GET", path).status == 200
    for path in ("/v1/models", "/models/first/v1/models"):
        assert made.ask("GET", path).status == 401
        assert made.ask("GET", path, headers={"Authorization": f"Bearer {KEY}"}).status == 200
