"""The keys as a JSON Schema: for editors, web forms and the documentation. Not needed to load a config."""

from __future__ import annotations

import ast
import inspect
from functools import cache
from typing import Any

from tunesmith.config.fields import Mark
from tunesmith.config.keys import SECTIONS, Key, all_keys

__all__ = ["described", "json_schema"]

_LISTS = {
    "names": {"type": "string"},
    "items": {"anyOf": [{"type": "string"}, {"type": "object"}]},
    "numbers": {"type": "number"},
    "list": {"type": "string"},
}
_PLAIN = {"bool": "boolean", "int": "integer", "float": "number", "str": "string", "dict": "object", "object": "object"}
_LIMITS = {"above": "exclusiveMinimum", "least": "minimum", "below": "exclusiveMaximum", "most": "maximum"}


def json_schema() -> dict[str, Any]:
    """All keys, flat, with description, default, `x-section` and `x-state` (works, ignored, later, never)."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tunesmith config",
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _property(key) for name, key in all_keys().items()},
    }


def _property(key: Key) -> dict[str, Any]:
    found: dict[str, Any] = {"description": described(key), **_type(key)}
    found["default"] = list(key.default) if isinstance(key.default, tuple) else key.default
    found["x-section"] = key.section
    found["x-state"] = key.mark.state
    if key.mark.note:
        found["x-note"] = key.mark.note
    if key.mark.later_values:
        found["x-later-values"] = list(key.mark.later_values)
    if key.mark.secret:
        found["writeOnly"] = True
    return found


def _type(key: Key) -> dict[str, Any]:
    options: list[dict[str, Any]] = []
    for name in key.types:
        if name == "names" and "items" in key.types:
            continue
        if name in _LISTS:
            items = {"enum": list(key.choices)} if key.choices else _LISTS[name]
            options += [{"type": "array", "items": items}, {"type": "string"}]
        elif name == "str" and key.choices:
            options.append({"enum": list(key.choices)})
        elif name in ("int", "float"):
            options.append({"type": _PLAIN[name], **_limits(key.mark)})
        else:
            options.append({"type": _PLAIN[name]})
    if "numbers" in key.types:
        options.append({"type": "number"})  # a comma list of one
    if key.nullable or key.default is None:
        options.append({"type": "null"})
    unique = [option for index, option in enumerate(options) if option not in options[:index]]
    return unique[0] if len(unique) == 1 else {"anyOf": unique}


def _limits(mark: Mark) -> dict[str, float]:
    return {words: getattr(mark, name) for name, words in _LIMITS.items() if getattr(mark, name) is not None}


def described(key: Key) -> str:
    """The key's attribute docstring in one line; for a key that is passed on, that transformers explains it."""
    if key.passed_on:
        return f"Training argument `{key.name}` of transformers."
    return _docstrings(key.section)[key.name]


@cache
def _docstrings(section: str) -> dict[str, str]:
    """Attribute docstrings of a section, read from its source: Python itself throws them away."""
    tree = ast.parse(inspect.getsource(SECTIONS[section])).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for statement, following in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            found[statement.target.id] = " ".join(following.value.value.split())
    return found
