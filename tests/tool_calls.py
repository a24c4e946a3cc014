"""Replies with tool calls, as all dialects are tested on: one strategy, and what it says about each example.

Of 100 examples about 96 have one call, 4 have two or three, 4 have text beside the calls. Of 100 strings about 45 are
plain, 15 read as a number or a word of JSON, 12 have quotes or backslashes, 10 have line ends or outer blanks, 6 hold
markup of the dialect itself, 6 are code or JSON, 4 are empty, 2 are any characters at all. Of 100 arguments 4 have no
type in the schema, and 1 is not of the type that the schema says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from tunesmith.core.types import ToolCall
from tunesmith.render.tools import Dialect

__all__ = ["Case", "cases", "markup_of", "plain_cases", "plain_texts"]

_WORDS = st.sampled_from(
    [
        "the",
        "Oslo",
        "weather",
        "is",
        "fine",
        "today,",
        "and",
        "tomorrow",
        "it's",
        "rain.",
        "Call",
        "me!",
        "What?",
        "café",
        "你好",
        "😀",
        "naïve",
        "3",
        "days",
        "-",
        "(soon)",
        "a/b",
        "50%",
        "x_y",
        "e-mail@example.org",
        "#tag",
        "O'Neil",
        '"quoted"',
        "C++",
        "Ünïcode;",
        "end:",
    ]
)
plain_texts = st.lists(_WORDS, min_size=1, max_size=8).map(" ".join)
_NUMBER_LIKE = st.sampled_from(
    [
        "5",
        "-3",
        "1.0",
        "1e5",
        "0012",
        "true",
        "false",
        "null",
        "True",
        "None",
        "NaN",
        "[1, 2]",
        "{}",
        "[]",
        '"5"',
        "1,5",
    ]
)
_QUOTED = st.sampled_from(
    ["it's", "'", '"', '"a"', "a\\b", "C:\\new\\table", "\\", '\\"', "\\n", "'a', 'b'", 'say "hi"', "x='y'", "`", "```"]
)
_LINES = st.sampled_from(
    [
        "one\ntwo",
        "\n",
        "\nlead",
        "trail\n",
        " blank ",
        "\ttab\t",
        "a\n\n\nb",
        "a\r\nb",
        "\n\n",
        "  ",
        "line\n",
        "\n x \n",
    ]
)
_CODE = st.sampled_from(
    [
        "def f(x):\n    return {'a': [x, None]}",
        '{"name": "f", "arguments": {"x": 1}}',
        '<html><body class="a">&amp; b</body></html>',
        "SELECT * FROM t WHERE a = 'b';",
        "f(a=1, b='c')",
        "[get(a=1)]",
    ]
)
_NAMES = st.one_of(
    st.sampled_from(
        ["get_weather", "ping", "math.factorial", "spotify.play", "get-user", "f", "search_2", "sendEMail"]
    ),
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,12}", fullmatch=True),
)
_KEYS = st.one_of(
    st.sampled_from(["city", "days", "from", "class", "type", "x", "user_id", "maxResults", "a.b", "start-date"]),
    st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,10}", fullmatch=True),
)


@dataclass(frozen=True)
class Case:
    tools: Sequence[dict[str, Any]]
    calls: Sequence[ToolCall]
    content: str = ""

    def __repr__(self) -> str:
        return f"Case(calls={[(c.name, dict(c.arguments)) for c in self.calls]!r}, content={self.content!r})"


def markup_of(dialect: Dialect) -> list[str]:
    """The words that the dialect writes around names and values."""
    call = ToolCall("f", {"a": "b", "c": 1}, "abcdefgh1")
    tools = [_tool("f", {"a": {"type": "string"}, "c": {"type": "integer"}})]
    pieces = [text for text, trusted in dialect.write_calls([call], tools=tools) if trusted and text.strip()]
    return sorted({*pieces, *(piece.strip() for piece in pieces)}) or ["\n{", "}"]


def _weighted(*choices: tuple[int, Any]) -> st.SearchStrategy[Any]:
    table = [choice for weight, choice in choices for _ in range(weight)]
    return st.sampled_from(range(len(table))).flatmap(lambda index: table[index])


def _texts(markup: list[str]) -> st.SearchStrategy[str]:
    piece = st.one_of(st.sampled_from(markup), plain_texts, st.sampled_from(["\n", "", " ", "x"]))
    own = st.lists(piece, min_size=1, max_size=4).map("".join)
    any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
    usual = ((45, plain_texts), (15, _NUMBER_LIKE), (12, _QUOTED), (10, _LINES))
    return _weighted(*usual, (6, own), (6, _CODE), (4, st.just("")), (2, any_text))


_INTEGERS = st.one_of(st.integers(-100, 100), st.integers(-(2**60), 2**60))
_NUMBERS = st.one_of(
    _INTEGERS, st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.5, -1.0, 1e22, 3.14])
)


def _objects(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    leaves = st.one_of(texts, _INTEGERS, _NUMBERS, st.booleans(), st.none())
    nested = st.recursive(
        leaves,
        lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=3)),
        max_leaves=5,
    )
    return st.dictionaries(_KEYS, nested, max_size=3)


def _arguments(texts: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[dict[str, Any], Any]]:
    """A schema and a value."""

    def of(schema: dict[str, Any], values: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[dict[str, Any], Any]]:
        return values.map(lambda value: (schema, value))

    objects = _objects(texts)
    return _weighted(
        (40, of({"type": "string", "description": "A text."}, texts)),
        (12, of({"type": "integer"}, _INTEGERS)),
        (9, of({"type": "number"}, _NUMBERS)),
        (8, of({"type": "boolean"}, st.booleans())),
        (6, of({"type": "array", "items": {"type": "string"}}, st.lists(texts, max_size=3))),
        (4, of({"type": "array", "items": {"type": "number"}}, st.lists(_NUMBERS, max_size=3))),
        (10, of({"type": "object"}, objects)),
        (2, of({"anyOf": [{"type": "integer"}, {"type": "null"}]}, st.one_of(_INTEGERS, st.none()))),
        (4, of({"type": ["string", "null"]}, plain_texts)),
        (4, of({}, st.one_of(texts, _INTEGERS, objects))),
        (1, of({"type": "integer"}, texts)),
    )  # fmt: skip


def _tool(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": parameters}}


@st.composite
def _calls(draw: st.DrawFn, texts: st.SearchStrategy[str], counts: st.SearchStrategy[int]) -> Case:
    schemas: dict[str, dict[str, Any]] = {}
    calls = []
    for index in range(draw(counts)):
        name = draw(_NAMES.filter(lambda name: name not in schemas))
        arguments = draw(st.dictionaries(_KEYS, _arguments(texts), max_size=3))
        schemas[name] = {key: schema for key, (schema, _) in arguments.items()}
        values = {key: value for key, (_, value) in arguments.items()}
        calls.append(ToolCall(name, json.loads(json.dumps(values)), f"abcdefgh{index}"))
    return Case([_tool(name, properties) for name, properties in schemas.items()], calls)


@st.composite
def cases(draw: st.DrawFn, dialect: Dialect) -> Case:
    """Any reply with calls. The markup in its strings is that of the dialect."""
    texts = _texts(markup_of(dialect))
    case = draw(_calls(texts, _weighted((96, st.just(1)), (3, st.just(2)), (1, st.just(3)))))
    content = draw(_weighted((96, st.just("")), (3, plain_texts), (1, texts)))
    return Case(case.tools, case.calls, content)


@st.composite
def plain_cases(draw: st.DrawFn) -> Case:
    """One call with what no dialect may refuse: plain strings, nested objects, no arguments."""
    texts = plain_texts
    objects = _objects(texts)
    kinds = st.one_of(
        texts.map(lambda value: ({"type": "string"}, value)),
        _NUMBER_LIKE.map(lambda value: ({"type": "string"}, value)),
        objects.map(lambda value: ({"type": "object"}, value)),
        _INTEGERS.map(lambda value: ({"type": "integer"}, value)),
    )
    arguments = draw(st.dictionaries(_KEYS, kinds, max_size=3))
    name = draw(_NAMES)
    tool = _tool(name, {key: schema for key, (schema, _) in arguments.items()})
    return Case([tool], [ToolCall(name, {key: value for key, (_, value) in arguments.items()})])
