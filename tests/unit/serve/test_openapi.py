"""/openapi.json says what the readers take."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tunesmith.serve import request
from tunesmith.serve.app import ROUTES
from tunesmith.serve.errors import ApiError
from tunesmith.serve.fields import Body, boolean, choice, integer, list_of, number, object_with, schema_of, text
from tunesmith.serve.openapi import BODIES, document


def test_the_document_needs_a_key_and_has_every_route(site: Any) -> None:
    key = "a-key-of-the-tests-0123456789"
    from tunesmith.serve.auth import read_keys

    made = site(keys=read_keys(key, "test")[0])
    assert made.ask("GET", "/openapi.json").status == 401
    told = made.ask("GET", "/openapi.json", headers={"Authorization": f"Bearer {key}"}).json
    assert told["openapi"] == "3.1.0"
    assert [path for path, methods in told["paths"].items() if methods.get("get", {}).get("security") == []] == [
        "/health",
        "/ready",
    ]
    assert {(method.upper(), path) for path, methods in told["paths"].items() for method in methods} == {
        (method, path.replace(":path", "")) for method, path, _ in ROUTES
    }


def test_every_route_with_a_body_says_what_it_takes() -> None:
    assert set(BODIES) == {endpoint for method, _, endpoint in ROUTES if method == "POST"}
    told = document(ROUTES, ("tiny", "poet"), ("/health",))["paths"]["/v1/chat/completions"]["post"]["requestBody"][
        "content"
    ]["application/json"]
    known = told["schema"]["properties"]
    assert set(known) == {*request._CHAT, *request.IGNORED}
    assert told["schema"]["required"] == ["model", "messages"]
    assert known["model"] == {"enum": ["tiny", "poet"]}
    assert known["temperature"] == {"type": "number", "minimum": 0, "maximum": 2}
    assert known["messages"]["items"]["anyOf"][1]["properties"]["tool_calls"]["type"] == "array"


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (integer(1, 5), (1, 5), (0, 6, 1.5, "a", True)),
        (number(0, 2), (0, 2, 0.5), (-1, 3, "a")),
        (number(above=0), (0.1,), (0, -1)),
        (text(1, 3), ("a", "abc"), ("", "abcd", 5)),
        (choice("a", "b"), ("a",), ("c", 5)),
        (boolean, (True,), (1, "true")),
        (list_of(integer(0), 2, least=1), ([1], [1, 2]), ([], [1, 2, 3], ["a"], 5)),
        (object_with({"a": boolean}, ["a"]), ({"a": True},), ({}, {"b": 1, "a": True}, 5)),
        (request._stops, ("a", ["a", "b"]), (5, ["a"] * 9, [5])),
        (request._bias, ({"5": 1.0},), ({"5": 101}, {"5": "a"}, [])),
        (request._text_only, (["text"],), (["audio"], "text")),
        (request._format, ({"type": "text"},), ({}, {"type": "xml"}, {"type": "text", "b": 1})),
        (request._CHAT["messages"], ([{"role": "user", "content": "a"}],), ([], [{"role": "king"}], [5])),
        (request._COMPLETION["prompt"], ("a", ["a"], [1], [[1], [2]]), (5, [[]], [-1])),
    ],
)
def test_schemas_agree_with_the_readers(read: Any, good: tuple[Any, ...], bad: tuple[Any, ...]) -> None:
    """What a reader takes is valid, what the schema refuses is refused."""
    check = jsonschema.Draft202012Validator(schema_of(read))
    for value in good:
        read(value, "x")
        assert check.is_valid(value), value
    for value in bad:
        with pytest.raises(ApiError):
            read(value, "x")
        assert not check.is_valid(value), value


def test_an_empty_text_has_no_vector(site: Any) -> None:
    answer = site().ask("POST", "/v1/embeddings", {"model": "tiny", "input": ""})
    assert (answer.status, answer.error["param"]) == (400, "input")


def test_fields_that_are_ignored_are_known_and_others_are_not() -> None:
    body = Body({"a": boolean}, ["a"], ["user"], {"b": "it is gone"})
    assert set(body.schema["properties"]) == {"a", "user"}
    assert body.schema["additionalProperties"] is False
    assert body.read({"a": True, "user": 5}) == {"a": True}
    with pytest.raises(ApiError, match="it is gone"):
        body.read({"a": True, "b": 1})
