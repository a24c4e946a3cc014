"""Declarative templates as the catalog holds them: YAML in `catalog/templates/`, read and checked on first use.

extends: chatml              # take another template's keys first
prefix: "{{bos}}"            # once, before everything
system: "...{{content}}..."  # a system message
no_system: "..."             # written in place of a system message that a chat has not
system_in: turn | first_user | nowhere    # `first_user`: in front of the first user text; `nowhere`: refused
user: "...{{content}}..."
assistant:
  open: "..."                # the header of a reply
  prompt: "..."              # what follows the header where a reply is asked for; never trained
  body: "{{content}}"
  close: "...{{eos}}"        # holds the stop token
tool: "...{{content}}..."    # a tool's result
tools: {dialect: qwen}       # who writes {{tools}} and {{calls}}: a dialect of `render/tools`. Without `tool` the tools
                             # stand where LlamaFactory has them (`slot_tools.py`); left out: they are refused.
                             # With `ids: history` the calls of a chat's last message are written without ids
suffix: "..."                # once, behind everything
trim: true                   # blanks around every message's text are removed; or a list of roles
roles: any | alternate       # `alternate`: chats whose questions and replies do not take turns are refused
default_system: "..."        # for chats without a system message; may hold places and choices
thinking: {open: "<think>\\n", close: "\\n</think>\\n\\n", history: keep | strip | drop, empty: never | last}
stop: ["<|im_end|>"]         # tokens that end a reply, {{eos}} for the tokenizer's own end (which it is if none is
                             # named); `close` writes one of them, the tokenizer must have the first
stop_follows: true           # the next turn's first token is the stop token; a training sample gets the first of `stop`
media: [trim, first]         # `trim`: texts beside media are trimmed one by one; `first`: of one text and one medium
                             # in a message the medium comes first
source: missing              # no text of it is at hand: refused on use
verified: official | llamafactory | none   # whose text it equals in tests
official: [...]              # the files with the model's own template
deviates: [...]              # where it differs on purpose: a sentence, or {file, cases, why} for tested differences

Texts are in the language of `slot_text.py`: places, filters and choices. Where `assistant.body` holds {{thought}} it
says itself how thoughts are written; else `thinking` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.suggest import did_you_mean
from tunesmith.render.errors import RenderError
from tunesmith.render.slot_text import ALWAYS, Choice, Group, Literal, Place, Slot, parse_condition, parse_slot, walk
from tunesmith.render.slot_tools import has_place, replace_place, tools_after_system, tools_alone, tools_in_prefix
from tunesmith.render.tools import get_dialect

__all__ = ["EOS_STOP", "SlotFile", "Thinking", "load_slots", "parse_slots", "raw_template", "template_names"]

_TEXT_KEYS = ("prefix", "system", "no_system", "user", "tool", "suffix")
_REPLY_KEYS = ("open", "prompt", "body", "close")
_RULE_KEYS = (
    "system_in",
    "assistant",
    "tools",
    "trim",
    "roles",
    "default_system",
    "thinking",
    "stop",
    "stop_follows",
    "media",
)
_TOLD_KEYS = ("extends", "source", "verified", "official", "deviates")
_ALL_KEYS = (*_TEXT_KEYS, *_RULE_KEYS, "media", *_TOLD_KEYS)
EOS_STOP = "{{eos}}"
"""Among the stop tokens: the tokenizer's own end."""
_MEDIA_WAYS = {"trim", "first"}
_VERIFIED = ("none", "official", "llamafactory")


@dataclass(frozen=True, slots=True)
class Thinking:
    """`history`: whether thoughts of turns before the last question are written (`drop`: none is).
    `empty`: whether the last reply of a chat gets an empty thought where it has none."""

    open: str = "<think>\n"
    close: str = "\n</think>\n\n"
    history: str = "keep"
    empty: str = "never"


@dataclass(frozen=True, slots=True)
class SlotFile:
    """One template of the catalog, checked."""

    name: str
    prefix: Slot = ()
    system: Slot = ()
    no_system: Slot = ()
    user: Slot = ()
    tool: Slot = ()
    suffix: Slot = ()
    open: Slot = ()
    prompt: Slot = ()
    body: Slot = ()
    close: Slot = ()
    system_in: str = "turn"
    alternate: bool = False
    dialect: str | None = None
    call_ids: str = "all"
    default_system: str | None = None
    thinking: Thinking = field(default_factory=Thinking)
    stop: tuple[str, ...] = ()
    stop_follows: bool = False
    media: tuple[str, ...] = ()
    verified: str = "none"
    official: tuple[str, ...] = ()
    deviates: tuple[Any, ...] = ()

    @property
    def slots(self) -> tuple[Slot, ...]:
        before = (self.prefix, self.system, self.no_system, self.user, self.tool)
        return (*before, self.open, self.prompt, self.body, self.close, self.suffix)


def template_names() -> tuple[str, ...]:
    """Names of the catalog's templates."""
    folder = files("tunesmith").joinpath("catalog", "templates")
    return tuple(sorted(path.name.removesuffix(".yaml") for path in folder.iterdir() if path.name.endswith(".yaml")))


def load_slots(name: str, tool_format: str | None = None) -> SlotFile:
    """The catalog's template of that name, or the one in a YAML file of the user's. `tool_format`: with this dialect
    in place of its own. Raises UsageError with suggestions for unknown names, RenderError if no text is at hand."""
    if tool_format is None:
        return parse_slots(Path(name).stem, raw_template(name)) if _is_path(name) else _load(name)
    get_dialect(tool_format)
    return parse_slots(Path(name).stem, {**raw_template(name), "tools": {"dialect": tool_format}})


@cache
def _load(name: str) -> SlotFile:
    return parse_slots(name, raw_template(name))


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def raw_template(name: str, origin: Path | None = None) -> dict[str, Any]:
    """The keys of a template's file, over those of the template that it extends (`origin`: the file that names it)."""
    known = template_names()
    path = Path(name) if _is_path(name) else None
    if path and origin:
        path = origin.parent / path
    if path is None and name not in known:
        hint = did_you_mean(name, ("auto", *known))
        fix = f"{hint or 'auto takes the one of the model;'} `tunesmith template list` shows all"
        raise UsageError(Problem("E-RENDER-008", f'unknown template "{name}"', where="template", fix=fix))
    try:
        file = path or files("tunesmith").joinpath("catalog", "templates", f"{name}.yaml")
        found: Any = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(
            Problem("E-RENDER-008", f'cannot read the template "{name}": {error}', where="template", fix=None)
        ) from error
    if not isinstance(found, dict):
        raise RenderError(Problem("E-RENDER-005", "a template is a mapping of keys", where=name, fix=None))
    if parent := found.pop("extends", None):
        inherited = {key: value for key, value in raw_template(str(parent), path).items() if key not in _TOLD_KEYS}
        if isinstance(found.get("assistant"), dict):
            found["assistant"] = {**(inherited.get("assistant") or {}), **found["assistant"]}
        found = {**inherited, **found}
    keys: dict[str, Any] = found
    return keys


def parse_slots(name: str, raw: Mapping[str, Any]) -> SlotFile:
    """Check the keys of a template. Raises RenderError with everything that is wrong."""
    check = _Check(name)
    if raw.get("source") == "missing":
        raise RenderError(
            Problem(
                "E-RENDER-015",
                f'no witness of the text of template "{name}" is at hand, and none is written from memory',
                where="template",
                fix="use template: auto with a model that has a chat template, or write the template's YAML yourself",
            )
        )
    for key in raw:
        if key not in _ALL_KEYS:
            check.wrong(key, "unknown key", did_you_mean(key, _ALL_KEYS) or "one of: " + ", ".join(_ALL_KEYS))
    assistant = check.mapping(raw, "assistant", _REPLY_KEYS)
    thinking = Thinking(**check.thinking(raw))
    check.choice(raw, "system_in", ("turn", "first_user", "nowhere"))
    check.choice(raw, "roles", ("any", "alternate"))
    check.choice(raw, "verified", _VERIFIED)
    slots = {key: check.slot(key, raw.get(key, "")) for key in _TEXT_KEYS}
    parts = {key: check.slot(f"assistant.{key}", assistant.get(key, "")) for key in _REPLY_KEYS}
    check.content("user", slots["user"])
    check.content("assistant.body", parts["body"])
    for key in ("prefix", "open", "prompt", "close", "suffix", "no_system"):
        check.content(key, parts.get(key, slots.get(key, ())), wanted=False)
    if raw.get("tool"):
        check.content("tool", slots["tool"])
    stop = check.strings(raw, "stop")
    if not raw.get("stop_follows") and not _has_stop(parts["close"], stop):
        what = "writes none of the stop tokens, so replies would not learn to end"
        check.wrong("assistant.close", what, "write one of `stop` ({{eos}}, where there is no `stop`), or mend `stop`")
    trim = check.roles(raw, "trim")
    if not isinstance(raw.get("stop_follows", False), bool):
        check.wrong("stop_follows", "must be true or false", None)
    if isinstance(raw.get("default_system", ""), str):
        check.content("default_system", check.slot("default_system", raw.get("default_system", "")), wanted=False)
    tools = check.mapping(raw, "tools", ("dialect", "ids"))
    check.choice(tools, "ids", ("all", "history"))
    official = check.strings(raw, "official")
    media = check.strings(raw, "media")
    if unknown := set(media) - _MEDIA_WAYS:
        check.wrong("media", f"unknown: {', '.join(sorted(unknown))}", "trim and first")
    check.done()
    if raw.get("system_in") == "first_user":
        trim -= {"system"}
    slots |= {key: _trimmed(slot) for key, slot in slots.items() if key in trim}
    dialect = tools.get("dialect")
    placed = bool(dialect) and not slots["tool"]
    if placed:
        slots |= _placed(slots, get_dialect(str(dialect)).set_off, raw.get("system_in"), check)
        check.done()
    if not has_place(parts["body"], "thought") and thinking.history != "drop":
        parts["body"] = _with_thought(parts["body"], thinking, "assistant" in trim)
        if thinking.empty == "last":
            empty = (Literal(thinking.open + thinking.close),)
            parts["prompt"] = (*parts["prompt"], Choice(((parse_condition("no_thinking"), empty),)))
    if raw.get("system_in") == "first_user":
        slots["user"] = _with_system(slots["user"], slots["system"], placed)
        slots["system"] = ()
    return SlotFile(
        name,
        **slots,
        **parts,
        system_in=raw.get("system_in", "turn"),
        alternate=raw.get("roles") == "alternate",
        dialect=dialect,
        call_ids=tools.get("ids", "all"),
        default_system=raw.get("default_system"),
        thinking=thinking,
        stop=stop,
        stop_follows=bool(raw.get("stop_follows")),
        media=media,
        verified=raw.get("verified", "none"),
        official=official,
        deviates=tuple(raw.get("deviates") or ()),
    )


def _has_stop(close: Slot, stop: tuple[str, ...]) -> bool:
    for node in walk(close):
        if isinstance(node, Place) and node.name == "eos" and (not stop or EOS_STOP in stop):
            return True
        if isinstance(node, Literal) and any(token in node.text for token in stop):
            return True
    return False


def _trimmed(slot: Slot) -> Slot:
    return replace_place(slot, "content", lambda place: (Place("content", (*place.filters, "trim")),))


def _placed(slots: Mapping[str, Slot], gap: str, system_in: str | None, check: _Check) -> dict[str, Slot]:
    """The slots that change where the tools' places follow from those of the system text and the questions."""
    placed = {"tool": slots["user"]}
    if system_in == "first_user":
        system = tools_after_system(slots["system"], "content", gap, when="tools", text="system_text")
        return {**placed, "system": system}
    if slots["system"] and system_in != "nowhere" and not has_place(slots["prefix"], "system"):
        system = tools_after_system(slots["system"], "content", gap, when="first and tools", text="content")
        return {**placed, "system": system, "no_system": tools_alone(slots["system"], slots["no_system"])}
    prefix = tools_in_prefix(slots["prefix"], gap)
    if prefix is None:
        check.wrong("tools", "the tools have no place", "write {{tools}} where they stand, and `tool`, a result's text")
    return {**placed, "prefix": prefix or ()}


def _with_system(user: Slot, system: Slot, tools: bool) -> Slot:
    """The user slot with the system's in front of the first question's text. `tools`: also where it has none but the
    tools behind it."""
    inner = replace_place(system, "content", lambda place: (Place("system", place.filters),))
    branches = [(parse_condition("first_question and system"), inner)]
    if tools:
        alone = replace_place(system, "content", lambda _: ())
        branches.append((parse_condition("first_question and tools"), alone))
    return replace_place(user, "content", lambda place: (Choice(tuple(branches)), place))


def _with_thought(body: Slot, thinking: Thinking, trim: bool) -> Slot:
    """The body with the reply's thought in front of its content, as `thinking` has it."""
    differs = thinking.history == "strip" or thinking.empty == "last"
    thought = Place("thought", ("lines",) if differs else ())
    content = Place("content", ("llines",) if differs else ())
    when = "thought" if thinking.history == "keep" else "thought and final or thought and keep_thoughts"
    if thinking.empty == "last":
        when += " or last and final"
    written = (Literal(thinking.open), thought, Literal(thinking.close), content)
    node = Choice(((parse_condition(when), written), (ALWAYS, (Place("content"),))))
    # A model that knows no thoughts has them as a part of its text.
    last: tuple[str, ...] = ("trim",) if trim else ()
    return replace_place(body, "content", lambda place: (Group((node,), (*place.filters, *last), whole=not differs),))


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

    def thinking(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        found = self.mapping(raw, "thinking", ("open", "close", "history", "empty"))
        self.choice(found, "history", ("keep", "strip", "drop"))
        self.choice(found, "empty", ("never", "last"))
        return found

    def strings(self, raw: Mapping[str, Any], key: str) -> tuple[str, ...]:
        value = raw.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            self.wrong(key, "must be a list of texts", 'for example ["<|im_end|>"]')
            return ()
        return tuple(value)

    def roles(self, raw: Mapping[str, Any], key: str) -> set[str]:
        """true, false or a list of roles, as a set of roles."""
        known = {"system", "user", "assistant", "tool"}
        value = raw.get(key, False)
        if isinstance(value, bool):
            return set(known) if value else set()
        if not isinstance(value, list) or not known.issuperset(map(str, value)):
            self.wrong(key, "must be true or false, or a list of roles", "roles: " + ", ".join(sorted(known)))
            return set()
        return set(value)

    def choice(self, raw: Mapping[str, Any], key: str, known: tuple[str, ...]) -> None:
        if raw.get(key, known[0]) not in known:
            self.wrong(key, f"unknown value {raw[key]!r}", "one of: " + ", ".join(known))

    def slot(self, key: str, text: Any) -> Slot:
        if not isinstance(text, str):
            self.wrong(key, "must be text", None)
            return ()
        try:
            return parse_slot(text)
        except ValueError as error:
            self.wrong(key, str(error), None)
            return ()

    def content(self, key: str, slot: Slot, wanted: bool = True) -> None:
        """The slot must hold {{content}}, or must not."""
        if has_place(slot, "content") != wanted:
            self.wrong(key, f"must hold {{{{content}}}} {'once' if wanted else 'nowhere'}", None)
