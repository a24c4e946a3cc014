"""Replies with tool calls, as all dialects are tested on: one strategy, and what it says about each example.

Of 100 examples 4 have several calls and 3 have text beside the calls. Of 100 strings 45 are plain, 15 read as a number
or a word of JSON, 12 have quotes or backslashes, 10 have line ends or outer blanks, 6 hold markup of the dialect, 6 are
code or JSON, 3 are empty, 3 are any characters at all. Of 100 arguments 2 have no type in the schema, 2 may be null as
well as a string, and 1 is a string where the schema says integer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import strategies as st

from tunesmith.core.types import ToolCall
from tunesmith.render.tools import Dialect

__all__ = ["Case", "cases", "markup_of", "plain_cases", "plain_texts"]

WORDS = [
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
NUMBER_LIKE = [
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
    '"5"',
    "1,5",
]
QUOTED = ["it's", "'", '"', '"a"', "a\\b", "C:\\new\\table", "\\", '\\"', "\\n", "'a', 'b'", 'say "hi"', "x='y'", "```"]
LINES = ["one\ntwo", "\n", "\nlead", "trail\n", " blank ", "\ttab\t", "a\n\n\nb", "a\r\nb", "\n\n", "  ", "\n x \n"]
CODE = [
    "def f(x):\n    return {'a': [x, None]}",
    '{"name": "f", "arguments": {"x": 1}}',
    '<html><body class="a">&amp; b</body></html>',
    "SELECT * FROM t WHERE a = 'b';",
    "f(a=1, b='c')",
    "[get(a=1)]",
]
plain_texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=8).map(" ".join)
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


class _Maker:
    """Makes one example. Shapes come from `random`, so that their shares are those of the weights (Hypothesis itself
    prefers the simple ones); names, numbers and free text are drawn from Hypothesis."""

    def __init__(self, draw: st.DrawFn, markup: Sequence[str]) -> None:
        self.draw = draw
        self.markup = markup
        self.random = Random(draw(st.integers(0, 2**64 - 1)))

    def one_of(self, *choices: tuple[int, Callable[[], Any]]) -> Any:
        makers = [make for _, make in choices]
        return self.random.choices(makers, [weight for weight, _ in choices])[0]()

    def from_(self, strategy: st.SearchStrategy[Any]) -> Callable[[], Any]:
        return lambda: self.draw(strategy)

    def plain(self) -> str:
        return " ".join(self.random.choices(WORDS, k=self.random.randint(1, 8)))

    def own_markup(self) -> str:
        pieces = [self.random.choice([*self.markup, self.plain(), "\n", " "]) for _ in range(self.random.randint(1, 4))]
        return "".join([*pieces, self.random.choice(self.markup)])

    def text(self) -> str:
        text: str = self.one_of(
            (45, self.plain),
            (15, lambda: self.random.choice(NUMBER_LIKE)),
            (12, lambda: self.random.choice(QUOTED)),
            (10, lambda: self.random.choice(LINES)),
            (6, self.own_markup),
            (6, lambda: self.random.choice(CODE)),
            (3, lambda: ""),
            (3, self.from_(_ANY_TEXT)),
        )
        return text

    def value(self, depth: int = 2) -> Any:
        leaf = (8, self.text), (3, self.from_(_INTEGERS)), (2, self.from_(_NUMBERS)), (2, self.from_(st.booleans()))
        if depth == 0:
            return self.one_of(*leaf, (1, lambda: None))
        return self.one_of(*leaf, (1, lambda: None), (3, lambda: self.array(depth)), (3, lambda: self.object(depth)))

    def array(self, depth: int) -> list[Any]:
        return [self.value(depth - 1) for _ in range(self.random.randint(0, 3))]

    def object(self, depth: int = 2) -> dict[str, Any]:
        return {self.draw(_KEYS): self.value(depth - 1) for _ in range(self.random.randint(0, 3))}

    def argument(self) -> tuple[dict[str, Any], Any]:
        """A schema and a value."""
        schema, make = self.random.choices(
            [
                ({"type": "string", "description": "A text."}, self.text),
                ({"type": "integer"}, self.from_(_INTEGERS)),
                ({"type": "number"}, self.from_(_NUMBERS)),
                ({"type": "boolean"}, self.from_(st.booleans())),
                ({"type": "array", "items": {"type": "string"}}, lambda: self.array(1)),
                ({"type": "object"}, self.object),
                ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, self.from_(st.one_of(_INTEGERS, st.none()))),
                ({"type": ["string", "null"]}, self.text),
                ({}, self.value),
                ({"type": "integer"}, self.text),
            ],
            [45, 13, 10, 8, 8, 9, 2, 2, 2, 1],
        )[0]
        return schema, make()

    def case(self, parallel: int, beside: int) -> Case:
        count = self.one_of((100 - parallel, lambda: 1), (parallel, lambda: self.random.randint(2, 4)))
        schemas: dict[str, dict[str, Any]] = {}
        calls: list[ToolCall] = []
        for index in range(count):
            name = self.draw(_NAMES.filter(lambda name: name not in schemas))
            size = self.random.choices([0, 1, 2, 3, 5], [10, 35, 30, 15, 10])[0]
            arguments = {self.draw(_KEYS): self.argument() for _ in range(size)}
            schemas[name] = {key: schema for key, (schema, _) in arguments.items()}
            calls.append(ToolCall(name, {key: value for key, (_, value) in arguments.items()}, f"abcdefgh{index}"))
        content = self.one_of((100 - beside, lambda: ""), (beside, self.text))
        return Case([_tool(name, properties) for name, properties in schemas.items()], calls, content)


_INTEGERS = st.one_of(st.integers(-100, 100), st.integers(-(2**60), 2**60))
_NUMBERS = st.one_of(
    _INTEGERS, st.floats(allow_nan=False, allow_infinity=False), st.sampled_from([0.5, -1.0, 1e22, 3.14])
)
_ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def _tool(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "description": f"Does {name}.", "parameters": parameters}}


@st.composite
def cases(draw: st.DrawFn, dialect: Dialect) -> Case:
    """Any reply with calls. The markup in its strings is that of the dialect."""
    return _Maker(draw, markup_of(dialect)).case(parallel=4, beside=3)


@st.composite
def plain_cases(draw: st.DrawFn) -> Case:
    """One call with what no dialect may refuse: plain strings, nested objects, no arguments."""
    maker = _Maker(draw, ["x"])
    maker.text = maker.plain  # type: ignore[method-assign]  # also within objects
    kinds: list[tuple[dict[str, Any], Callable[[], Any]]] = [
        ({"type": "string"}, maker.plain),
        ({"type": "string"}, lambda: maker.random.choice(NUMBER_LIKE)),
        ({"type": "object"}, maker.object),
        ({"type": "integer"}, maker.from_(_INTEGERS)),
    ]
    chosen = {draw(_KEYS): maker.random.choice(kinds) for _ in range(maker.random.randint(0, 3))}
    name = draw(_NAMES)
    tool = _tool(name, {key: schema for key, (schema, _) in chosen.items()})
    return Case([tool], [ToolCall(name, {key: make() for key, (_, make) in chosen.items()}, "abcdefgh1")])
