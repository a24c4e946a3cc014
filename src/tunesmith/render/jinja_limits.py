"""How much a chat template may do: it came with a model's files, and may be wrong or unkind.

Each pass of a loop and each call of a macro is a step; texts and output have a longest length. The limits are hundreds
of times what the longest chats need, and the same on every machine: no clock decides.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import jinja2
import jinja2.exceptions
import jinja2.nodes
import jinja2.runtime

__all__ = [
    "BINARY",
    "FILTERS",
    "LONGEST",
    "STEPS",
    "begin",
    "bounded",
    "check",
    "check_call",
    "check_operands",
    "limited",
]

STEPS = 5_000_000
LONGEST = 50_000_000
"""Characters of a text, or entries of a list."""

BINARY = frozenset({"+", "*", "**", "%"})
"""Operators whose results are checked."""

_WIDTH = re.compile(r"(%|\{[^{}]*:)[^{}]*\d{8}")
"""In a pattern of a format: a width of more than eight digits."""
_WIDE = ("batch", "center", "format", "indent", "join", "replace", "slice", "truncate", "wordwrap")


class _Left(threading.local):
    steps = STEPS


_left = _Left()


def begin() -> None:
    """Of a rendering in this thread."""
    _left.steps = STEPS


def check(value: Any) -> Any:
    """The value, where it is not too long. Raises SecurityError."""
    if isinstance(value, str | list | tuple | bytes) and len(value) > LONGEST:
        raise jinja2.exceptions.SecurityError(f"a chat template made a text of {len(value):,} characters")
    return value


def check_call(name: str, values: Sequence[Any]) -> None:
    """Of a method or filter that makes a text as long as a number says; in a format, a number within its pattern, which
    comes first. Raises SecurityError."""
    too_wide = any(isinstance(value, int) and abs(value) > LONGEST for value in values)
    if name.startswith("format") and isinstance(values[0], str):
        too_wide |= _WIDTH.search(values[0]) is not None
    if too_wide:
        raise jinja2.exceptions.SecurityError("a chat template asks for a text of too many characters")


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Before the result is made. Raises SecurityError where it would be too long."""
    sizes = [len(one) for one in (left, right) if isinstance(one, str | list | tuple | bytes)]
    if operator == "*":
        times = next((one for one in (left, right) if isinstance(one, int)), 1)
        too_much = bool(sizes) and sizes[0] * times > LONGEST
    elif operator == "+":
        too_much = sum(sizes) > LONGEST
    elif operator == "**":
        too_much = isinstance(right, int) and abs(right) > 1000
    else:  # a text with widths in it
        too_much = isinstance(left, str)
    if too_much:
        raise jinja2.exceptions.SecurityError(f"a chat template makes too much of one {operator!r}")


@jinja2.pass_context  # so that nothing is computed when the template is compiled
def _step(_: jinja2.runtime.Context, value: Any) -> None:
    _left.steps -= 1
    if _left.steps < 0:
        raise jinja2.exceptions.SecurityError(f"a chat template made more than {STEPS:,} steps")


@jinja2.pass_context
def _joined(_: jinja2.runtime.Context, parts: Sequence[Any]) -> str:
    texts = [str(part) for part in parts]
    if sum(map(len, texts)) > LONGEST:
        raise jinja2.exceptions.SecurityError("a chat template makes too long a text")
    return "".join(texts)


FILTERS: dict[str, Callable[..., Any]] = {"_step": _step, "_joined": _joined}
"""What `limited` puts into a template; no template can name them so that it does anything else."""


def bounded(filters: dict[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Those filters that make long texts, with their numbers and their results checked."""
    return {name: _bounded(name, filters[name]) for name in _WIDE if name in filters}


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*values: Any, **named: Any) -> Any:
        check_call(name, [*values, *named.values()])
        return check(function(*values, **named))

    return call


def limited(tree: jinja2.nodes.Template, environment: jinja2.Environment) -> jinja2.nodes.Template:
    """The syntax tree with a step in each loop and macro, and with `~` checked. It changes the tree."""
    loops: list[jinja2.nodes.For | jinja2.nodes.Macro] = [
        *tree.find_all(jinja2.nodes.For),
        *tree.find_all(jinja2.nodes.Macro),
    ]
    for node in loops:
        node.body.insert(0, jinja2.nodes.ExprStmt(_filter(jinja2.nodes.Const(None), "_step"), lineno=node.lineno))
    _replace_concat(tree)
    tree.set_environment(environment)
    return tree


def _filter(value: jinja2.nodes.Expr, name: str) -> jinja2.nodes.Filter:
    return jinja2.nodes.Filter(value, name, [], [], None, None)


def _replace_concat(node: jinja2.nodes.Node) -> None:
    for field, value in node.iter_fields():
        if isinstance(value, jinja2.nodes.Node):
            _replace_concat(value)
            if isinstance(value, jinja2.nodes.Concat):
                setattr(node, field, _filter(jinja2.nodes.List(value.nodes, lineno=value.lineno), "_joined"))
        elif isinstance(value, list):
            for place, one in enumerate(value):
                if isinstance(one, jinja2.nodes.Node):
                    _replace_concat(one)
                    if isinstance(one, jinja2.nodes.Concat):
                        value[place] = _filter(jinja2.nodes.List(one.nodes, lineno=one.lineno), "_joined")
