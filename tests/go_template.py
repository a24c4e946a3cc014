"""As much of Go's text/template as Modelfiles use: enough to read what Ollama would make of one."""

from __future__ import annotations

import json
import re
from typing import Any

TAG = re.compile(r"\{\{ (.*?) \}\}", re.DOTALL)
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\(|\)|[^\s()]+')


def render(text: str, messages: list[dict[str, str]], think: bool | None = None) -> str:
    """The prompt that Ollama makes of the messages: a role in a row is joined, system messages also stand alone."""
    collated: list[dict[str, str]] = []
    for message in messages:
        if collated and collated[-1]["Role"] == message["role"]:
            collated[-1]["Content"] += "\n\n" + message["content"]
        else:
            thought = message.get("reasoning_content", "")
            collated.append({"Role": message["role"], "Content": message["content"], "Thinking": thought})
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    root = {"Messages": collated, "System": system, "Think": bool(think), "IsThinkSet": think is not None}
    pieces = TAG.split(text)
    tree, rest = _parse(pieces, 0)
    assert rest == len(pieces)
    return _run(tree, root, {"$": root})


def _parse(pieces: list[str], at: int) -> tuple[list[Any], int]:
    nodes: list[Any] = []
    while at < len(pieces):
        piece = pieces[at]
        if at % 2 == 0:
            nodes.append(("text", piece))
        elif piece == "end" or piece.startswith("else"):
            return nodes, at
        elif piece.startswith(("if ", "range ")):
            word, _, condition = piece.partition(" ")
            branches = []
            while True:
                inner, at = _parse(pieces, at + 1)
                branches.append((condition, inner))
                if pieces[at] == "end":
                    break
                condition = pieces[at].removeprefix("else").strip().removeprefix("if").strip() or "true"
            nodes.append((word, branches))
        else:
            nodes.append(("do", piece))
        at += 1
    return nodes, at


def _run(nodes: list[Any], dot: Any, variables: dict[str, Any]) -> str:
    out = []
    for kind, value in nodes:
        if kind == "text":
            out.append(value)
        elif kind == "if":
            inner = next((inner for condition, inner in value if _value(condition, dot, variables)), [])
            out.append(_run(inner, dot, variables))
        elif kind == "range":
            head, inner = value[0]
            assert head == "$i, $_ := .Messages"
            for variables["$i"], message in enumerate(dot["Messages"]):
                out.append(_run(inner, message, variables))
        elif match := re.fullmatch(r"(\$\w+) :?= (.*)", value):
            variables[match[1]] = _value(match[2], dot, variables)
        else:
            out.append(str(_value(value, dot, variables)))
    return "".join(out)


def _value(text: str, dot: Any, variables: dict[str, Any]) -> Any:
    tokens = TOKEN.findall(text)

    def term() -> Any:
        token = tokens.pop(0)
        if token == "(":
            value = call()
            assert tokens.pop(0) == ")"
            return value
        if token.startswith('"'):
            return json.loads(token)
        if token == "true" or token.lstrip("-").isdigit():
            return json.loads(token)
        if token.startswith("$."):
            return variables["$"][token[2:]]
        return variables[token] if token.startswith("$") else dot[token[1:]]

    def call() -> Any:
        if tokens[0] not in FUNCTIONS:
            return term()
        function = FUNCTIONS[tokens.pop(0)]
        arguments = []
        while tokens and tokens[0] != ")":
            arguments.append(term())
        return function(*arguments)

    value = call()
    assert not tokens, text
    return value


FUNCTIONS = {
    "eq": lambda one, other: one == other,
    "gt": lambda one, other: one > other,
    "not": lambda value: not value,
    "and": lambda *values: next((value for value in values if not value), values[-1]),
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "len": len,
    "slice": lambda values, start: values[start:],
}
