"""Declarative templates as the catalog holds them: YAML in `catalog/templates/`, read and checked on first use.

extends: chatml              # take another template's keys first
prefix: "{{bos}}"            # once, before everything
system: "...{{content}}..."  # a system message; `system_in: first_user` puts it in front of the first user text
user: "...{{content}}..."
assistant: {open: "...", body: "{{content}}", close: "...{{eos}}"}    # close holds the stop token
trim: true                   # blanks around every message's text are removed
default_system: "..."        # for chats without a system message
thinking: {open: "<think>\\n", close: "\\n</think>\\n\\n", history: keep | strip, empty: never | last}
stop: ["<|im_end|>"]         # tokens that end a reply; the first must be in `close`; none: the tokenizer's own end
verified: [...]              # what the text is compared with in tests
deviates: [...]              # where it differs from the model's own template, and why
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.suggest import did_you_mean
from tunesmith.render.errors import RenderError

__all__ = ["Slot", "SlotFile", "Thinking", "load_slots", "parse_slots", "template_names"]

_TEXT_KEYS = ("prefix", "system", "user")
_RULE_KEYS = ("system_in", "assistant", "trim", "default_system", "thinking", "stop")
_ALL_KEYS = (*_TEXT_KEYS, *_RULE_KEYS, "extends", "verified", "deviates")
_PLACES = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_PLACE_NAMES = ("content", "bos", "eos")

Slot = tuple[tuple[str, bool], ...]
"""Text of a slot in pieces: (literal, False), or (name of a place, True)."""


@dataclass(frozen=True, slots=True)
class Thinking:
    """`history`: whether thoughts of turns before the last question are written. `empty`: whether the last reply
    of a chat gets an empty thought where it has none."""

    open: str = "<think>\n"
    close: str = "\n</think>\n\n"
    history: str = "keep"
    empty: str = "never"


@dataclass(frozen=True, slots=True)
class SlotFile:
    """One template of the catalog, checked."""

    name: str
    prefix: Slot
    system: Slot
    user: Slot
    open: Slot
    body: Slot
    close: Slot
    system_in: str = "turn"
    trim: bool = False
    default_system: str | None = None
    thinking: Thinking = field(default_factory=Thinking)
    stop: tuple[str, ...] = ()

    @property
    def slots(self) -> tuple[Slot, ...]:
        return (self.prefix, self.system, self.user, self.open, self.body, self.close)


def template_names() -> tuple[str, ...]:
    """Names of the catalog's templates."""
    folder = files("tunesmith").joinpath("catalog", "templates")
    return tuple(sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml")))


@cache
def load_slots(name: str) -> SlotFile:
    """The catalog's template of that name. Raises UsageError with suggestions if there is none."""
    return parse_slots(name, _raw(name))


def _raw(name: str) -> dict[str, Any]:
    """The keys of a template's file, over those of the template that it extends."""
    known = template_names()
    if name not in known:
        listed = "auto, " + ", ".join(known)
        hint = did_you_mean(name, ("auto", *known))
        fix = f"{hint} known: {listed}" if hint else f"one of: {listed}"
        raise UsageError(Problem("E-RENDER-008", f'unknown template "{name}"', where="template", fix=fix))
    text = files("tunesmith").joinpath("catalog", "templates", f"{name}.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text) or {}
    if parent := found.pop("extends", None):
        found = {**_raw(parent), **found}
    return found


def parse_slots(name: str, raw: Mapping[str, Any]) -> SlotFile:
    """Check the keys of a template. Raises RenderError with everything that is wrong."""
    check = _Check(name)
    for key in raw:
        if key not in _ALL_KEYS:
            check.wrong(key, "unknown key", did_you_mean(key, _ALL_KEYS) or "one of: " + ", ".join(_ALL_KEYS))
    assistant = check.mapping(raw, "assistant", ("open", "body", "close"))
    thinking = check.mapping(raw, "thinking", ("open", "close", "history", "empty"))
    check.choice(raw, "system_in", ("turn", "first_user"))
    check.choice(thinking, "history", ("keep", "strip"))
    check.choice(thinking, "empty", ("never", "last"))
    slots = {key: check.slot(key, raw.get(key, ""), key != "prefix") for key in _TEXT_KEYS}
    parts = {key: check.slot(key, assistant.get(key, ""), key == "body") for key in ("open", "body", "close")}
    stop = raw.get("stop", [])
    if not isinstance(stop, list) or not all(isinstance(token, str) and token for token in stop):
        check.wrong("stop", "must be a list of tokens", 'for example ["<|im_end|>"]')
        stop = []
    close = assistant.get("close", "")
    if not (stop and stop[0] in str(close)) and ("eos", True) not in parts["close"]:
        check.wrong("assistant.close", "holds no stop token", "write the first token of `stop`, or {{eos}}")
    if not isinstance(raw.get("trim", False), bool):
        check.wrong("trim", "must be true or false", None)
    check.done()
    return SlotFile(
        name,
        **slots,
        **parts,
        system_in=raw.get("system_in", "turn"),
        trim=raw.get("trim", False),
        default_system=raw.get("default_system"),
        thinking=Thinking(**thinking),
        stop=tuple(stop),
    )


class _Check:
    """Collects what is wrong with one template."""

    def __init__(self, name: str) -> None:
        self._where = f"catalog/templates/{name}.yaml"
        self._problems: list[Problem] = []

    def wrong(self, key: str, what: str, fix: str | None) -> None:
        self._problems.append(Problem("E-RENDER-005", f"{key}: {what}", where=self._where, fix=fix))

    def done(self) -> None:
        if self._problems:
            raise RenderError(self._problems)

    def mapping(self, raw: Mapping[str, Any], key: str, known: tuple[str, ...]) -> dict[str, Any]:
        value = raw.get(key) or {}
        if not isinstance(value, dict):
            self.wrong(key, "must be a mapping", "keys: " + ", ".join(known))
            return {}
        for name in [name for name in value if name not in known]:
            self.wrong(f"{key}.{name}", "unknown key", did_you_mean(name, known) or "one of: " + ", ".join(known))
        return {name: item for name, item in value.items() if name in known}

    def choice(self, raw: Mapping[str, Any], key: str, known: tuple[str, ...]) -> None:
        if raw.get(key, known[0]) not in known:
            self.wrong(key, f"unknown value {raw[key]!r}", "one of: " + ", ".join(known))

    def slot(self, key: str, text: Any, has_content: bool) -> Slot:
        """Pieces of a slot. `has_content`: it must hold {{content}} exactly once; others must not hold it."""
        if not isinstance(text, str):
            self.wrong(key, "must be text", None)
            return ()
        pieces: list[tuple[str, bool]] = []
        for index, piece in enumerate(_PLACES.split(text)):
            if index % 2 and piece not in _PLACE_NAMES:
                self.wrong(key, f"unknown place {{{{{piece}}}}}", "one of: {{content}}, {{bos}}, {{eos}}")
            elif piece:
                pieces.append((piece, index % 2 == 1))
        if pieces.count(("content", True)) != int(has_content):
            self.wrong(key, f"must hold {{{{content}}}} {'once' if has_content else 'nowhere'}", None)
        return tuple(pieces)
