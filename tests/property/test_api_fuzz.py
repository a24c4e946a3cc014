"""Whatever is sent, the answer is OpenAI's: no request makes the server fail."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import ScriptedEngine, say, serving
from tunesmith.serve import embeddings, request, vocabulary

RELAXED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
    "database": None,
}

HELLO = [{"role": "user", "content": "hello"}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
ROUTES: dict[str, tuple[set[str], dict[str, Any]]] = {
    "/v1/chat/completions": ({*request._CHAT, *request._REFUSED_IN_CHAT}, {"model": "tiny", "messages": HELLO}),
    "/v1/completions": ({*request._COMPLETION, "suffix"}, {"model": "tiny", "prompt": "a"}),
    "/v1/embeddings": ({*embeddings._FIELDS, "dimensions"}, {"model": "tiny", "input": "a"}),
    "/v1/adapters": ({"name", "path"}, {"name": "a"}),
    "/tokenize": (set(vocabulary._TOKENIZE), {"prompt": "a"}),
    "/detokenize": (set(vocabulary._DETOKENIZE), {"tokens": [5]}),
}

plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 30),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
    st.sampled_from(
        ["auto", "required", "json_object", "json_schema", "function", "text", "user", "tool", "tiny", "<|im_end|>"]
    ),
)
keys = st.one_of(
    st.text(max_size=6), st.sampled_from(["type", "role", "content", "function", "name", "json_schema", "schema"])
)
values = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=12,
)
whole = st.sampled_from(
    [
        HELLO,
        [TOOL],
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "string"}}},
        [*HELLO, {"role": "assistant", "content": None, "tool_calls": []}],
        [{"role": role, "content": text} for role in ("tool", "system", "assistant") for text in ("", "a")],
        {"enable_thinking": True},
    ]
)  # fmt: skip


@st.composite
def requests(draw: Any) -> tuple[str, Any]:
    path = draw(st.sampled_from(sorted(ROUTES)))
    names, base = ROUTES[path]
    if draw(st.integers(0, 9)) == 0:
        return path, draw(values)
    changed = draw(st.dictionaries(st.sampled_from(sorted(names)), st.one_of(values, whole), max_size=4))
    return path, {**base, **changed}


def ask(connection: http.client.HTTPConnection, path: str, body: Any) -> tuple[int, str]:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def fuzz(tiny_model: Path, count: int) -> None:
    seen: dict[int, int] = {}
    engine = ScriptedEngine(tiny_model, say("so ", "it ", "is"))
    with serving(engine) as (url, _):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)

        @settings(max_examples=count, **RELAXED)
        @given(requests())
        def check(drawn: tuple[str, Any]) -> None:
            path, body = drawn
            status, text = ask(connection, path, body)
            seen[status] = seen.get(status, 0) + 1
            assert status < 500, (path, body, text)
            if status != 200:
                assert set(json.loads(text)["error"]) == {"message", "type", "param", "code"}
            elif text.startswith("data: "):
                assert '{"error"' not in text, (path, body, text)

        check()
        connection.close()
        assert engine.idle()
    assert seen[200] > count / 100
    assert seen[400] > count / 10


def test_no_body_makes_the_server_fail(tiny_model: Path) -> None:
    fuzz(tiny_model, 120)


@pytest.mark.slow
def test_no_body_of_many_makes_the_server_fail(tiny_model: Path) -> None:
    fuzz(tiny_model, 5000)
