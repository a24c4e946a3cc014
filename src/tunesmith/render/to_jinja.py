"""A declarative template as a chat template in Jinja, for other tools: the same text, from the same syntax tree.

What it has no form for, and calls that it cannot take as they are given, it refuses with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.types import Modality
from tunesmith.render.jinja_facts import CALLING, EMPTY, MESSAGE, OUTER, OUTER_TOOLS, REPLY, TOOLS, USER, Facts
from tunesmith.render.jinja_media import content_of_parts, numbered
from tunesmith.render.jinja_tools import JinjaTools, quoted
from tunesmith.render.slot_files import SlotFile
from tunesmith.render.slot_text import ALWAYS, Choice, Condition, Group, Literal, Place, Slot, parse_slot, walk
from tunesmith.render.turns import TemplateSettings

__all__ = ["jinja_of"]

_FILTERS: Mapping[str, str] = {
    "trim": "{} | trim",
    "ltrim": "{}.lstrip()",
    "rtrim": "{}.rstrip()",
    "lines": "{}.strip('\\n')",
    "llines": "{}.lstrip('\\n')",
    "rlines": "{}.rstrip('\\n')",
    "json": "{} | tojson",
}
_PLACES: Mapping[str, str] = {
    "content": "content",
    "thought": "thought",
    "system": "system",
    "name": "name",
    "id": "id",
    "turn": "seen.questions",
    "turn0": "(seen.questions - 1)",
    "bos": "bos_token",
    "eos": "eos_token",
    "tools": "tools_text",
    "calls": "calls",
}
_FIRST: Mapping[str, Any] = {"before": "", "waiting": []}
"""What is kept of the messages so far, where it is no count."""
_OUTER_PLACES = ("bos", "eos", "system", "today", "tools")


@dataclass(frozen=True, slots=True)
class _Defaults:
    """What holds where whoever renders does not say."""

    system: Slot = ()
    thinking: bool | None = None
    keep_thoughts: bool = False


def jinja_of(
    slots: SlotFile, settings: TemplateSettings | None = None, placeholders: Mapping[Modality, str] | None = None
) -> str:
    """A chat template in transformers' dialect that renders what the declarative one renders. `settings`: those of a
    run, which hold where `enable_thinking`, `preserve_thinking` or a system message are not given. `placeholders`: what
    stands for media of a kind, with {n} for its number, of a model that takes them."""
    system = slots.default_system or ""
    if settings is not None and settings.default_system is not None:
        defaults = _Defaults((Literal(settings.default_system),) if settings.default_system else ())
    else:
        defaults = _Defaults(parse_slot(system))
    if settings is not None:
        defaults = _Defaults(defaults.system, settings.enable_thinking, settings.preserve_thinking)
    used = _Used.of(slots, defaults)
    tools = JinjaTools.of(slots)
    outer = {**OUTER, **OUTER_TOOLS} if tools else OUTER
    lines = [
        *_prelude(slots, defaults, used, tools),
        *_text(slots.prefix, outer),
        *(_branch("not has_system", _text(slots.no_system, outer)) if slots.no_system else ()),
        *_messages(slots, used, tools, placeholders or {}),
        *_text(slots.suffix, outer),
        *_branch("add_generation_prompt", _text((*slots.open, *slots.prompt), outer)),
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class _Used:
    """Facts and places that the template asks for."""

    facts: frozenset[str]
    places: frozenset[str]

    @classmethod
    def of(cls, slots: SlotFile, defaults: _Defaults) -> _Used:
        nodes = [node for slot in (*slots.slots, defaults.system) for node in walk(slot)]
        conditions = [condition for node in nodes if isinstance(node, Choice) for condition, _ in node.branches]
        facts = {name for condition in conditions for facts in condition for name, _ in facts}
        return cls(frozenset(facts), frozenset(node.name for node in nodes if isinstance(node, Place)))

    def any(self, *names: str) -> bool:
        return not self.facts.isdisjoint(names) or not self.places.isdisjoint(names)


# ---- parts ----


def _prelude(slots: SlotFile, defaults: _Defaults, used: _Used, tools: JinjaTools | None) -> Iterator[str]:
    """Refusals of the chat as a whole, the settings, and what has to be known of all messages before the first."""
    known = defaults.thinking is not None
    value = f"enable_thinking if enable_thinking is defined else {str(defaults.thinking).lower()}"
    yield "{%- set thinking = " + (value if known else "enable_thinking") + " %}"
    if used.any("keep_thoughts"):
        kept = "preserve_thinking if preserve_thinking is defined else true"
        yield "{%- set keep_thoughts = " + (kept if defaults.keep_thoughts else "preserve_thinking") + " %}"
    if tools:
        yield from tools.tools()
    else:
        yield from _branch("tools", [_refuse("this chat template writes no tools")])
    yield "{%- set chat = messages %}"
    if slots.system_in == "nowhere":
        yield from _branch(_having("system"), [_refuse("this chat template has no form for a system message")])
    elif defaults.system:
        before = list(
            _captured("default_system", _text(defaults.system, {**EMPTY, "tools": "tools"} if tools else EMPTY))
        )
        prepended = "{%- set chat = [{'role': 'system', 'content': default_system}] + messages %}"
        yield from _branch(f"not ({_having('system')})", [*before, prepended])
    if slots.system_in == "first_user":
        wanted = f"({_having('system', 'chat')}) and not ({_having('user')})"
        yield from _branch(wanted, [_refuse("a system message needs a user message that it is written into")])
    if used.any("system", "system_text", "system_words") or slots.no_system:
        yield f"{{%- set has_system = ({_having('system', 'chat')}) > 0 %}}"
        first = "(chat | selectattr('role', 'equalto', 'system') | first).content"
        yield f"{{%- set system = {first} if has_system else '' %}}"
    if used.any("unanswered", "answered", "answered_later"):
        plain = _having("assistant").replace(" | list", " | rejectattr('tool_calls') | list")
        yield "{%- set replies = " + plain + " %}"
    if used.any("last_reply"):
        yield "{%- set answers = " + _having("assistant") + " %}"
    if used.any("final", "last_question"):
        yield "{%- set questions = " + _having("user") + " %}"


def _having(role: str, chat: str = "messages") -> str:
    """How many messages of a role there are."""
    return f"{chat} | selectattr('role', 'equalto', '{role}') | list | length"


def _messages(
    slots: SlotFile, used: _Used, tools: JinjaTools | None, placeholders: Mapping[Modality, str]
) -> Iterator[str]:
    counts = {
        "questions": used.any("final", "first_question", "last_question", "turn", "turn0"),
        "replies": used.any("answered", "answered_later"),
        "answers": used.any("last_reply"),
        "turns": slots.alternate,
        "before": used.any("after_question", "after_reply", "after_result"),
        "calls": tools is not None and tools.numbers,
        "waiting": tools is not None and tools.numbers,
        **dict.fromkeys(numbered(placeholders), True),
    }
    more: Facts = TOOLS if tools else {}
    if started := [f"{name}={_FIRST.get(name, 0)!r}" for name, wanted in counts.items() if wanted]:
        yield "{%- set seen = namespace(" + ", ".join(started) + ") %}"
    yield "{%- for message in chat %}"
    body = [
        "{%- set content = message.content or '' %}",
        *(content_of_parts(placeholders, slots.media) if placeholders else ()),
        "{%- set thought = '' if thinking is false else message.reasoning_content or '' %}",
    ]
    if used.any("has_thought"):
        body.append("{%- set has_thought = message.reasoning_content is string and thinking is not false %}")
    if system := _text(slots.system, {**MESSAGE, **more}):
        body += ["{%- if message.role == 'system' %}", *_indented(system)]
    else:
        body += ["{%- if message.role == 'system' %}", "    {#- written elsewhere #}"]
    body.append("{%- elif message.role == 'user' %}")
    body += _indented([*_count("questions", counts), *_turn(slots, 0), *_text(slots.user, {**USER, **more})])
    if tools:
        body.append("{%- elif message.role == 'assistant' %}")
        plain = [*_count("replies", counts), *_turn(slots, 1)]
        counted = [*_count("answers", counts), *(_branch("not message.tool_calls", plain) if plain else ())]
        reply = (*slots.open, *_with_calls(slots.body, tools), *slots.close)
        body += _indented([*counted, *tools.calls(), *_text(reply, {**REPLY, **more, "answered": CALLING})])
        body.append("{%- elif message.role == 'tool' %}")
        body += _indented([*tools.result(), *_text(slots.tool, {**MESSAGE, **more})])
        refusal = "this chat template knows the roles system, user, assistant and tool"
    else:
        body.append("{%- elif message.role == 'assistant' and not message.tool_calls %}")
        counted = [*_count("replies", counts), *_count("answers", counts), *_turn(slots, 1)]
        body += _indented([*counted, *_text((*slots.open, *slots.body, *slots.close), REPLY)])
        refusal = "this chat template writes no tool calls and no results of tools"
    body += ["{%- else %}", *_indented([_refuse(refusal)])]
    body.append("{%- endif %}")
    if counts["before"]:
        body.append("{%- set seen.before = message.role %}")
    yield from _indented(body)
    yield "{%- endfor %}"


def _count(name: str, counts: Mapping[str, bool]) -> list[str]:
    return [f"{{%- set seen.{name} = seen.{name} + 1 %}}"] if counts[name] else []


def _turn(slots: SlotFile, parity: int) -> Iterator[str]:
    if slots.alternate:
        refusal = _refuse("this chat template takes questions and replies in turns only")
        yield from _branch(f"seen.turns % 2 != {parity}", [refusal])
        yield "{%- set seen.turns = seen.turns + 1 %}"


# ---- nodes ----


@dataclass(frozen=True, slots=True)
class _Calling:
    """What a reply says, with its calls behind."""

    nodes: tuple[Any, ...]
    filters: tuple[str, ...]
    tools: JinjaTools


def _with_calls(slot: Slot, tools: JinjaTools) -> tuple[Any, ...]:
    """A reply's body with its calls where the dialect writes them: behind the content."""
    nodes: list[Any] = []
    for node in slot:
        if isinstance(node, Choice):
            branches = tuple((condition, _with_calls(inner, tools)) for condition, inner in node.branches)
            nodes.append(Choice(branches))
        elif isinstance(node, Group) and node.whole:
            nodes.append(_Calling(node.nodes, node.filters, tools))
        elif isinstance(node, Group):
            nodes.append(Group(_with_calls(node.nodes, tools), node.filters))
        elif isinstance(node, Place) and node.name == "content":
            nodes.append(_Calling((node,), (), tools))
        else:
            nodes.append(node)
    return tuple(nodes)


def _text(slot: Sequence[Any], facts: Facts) -> list[str]:
    """Statements that write a slot."""
    lines: list[str] = []
    pieces: list[str] = []

    def flush() -> None:
        if pieces:
            lines.append("{{- " + " ~ ".join(pieces) + " }}")
            pieces.clear()

    for node in slot:
        if isinstance(node, Literal):
            pieces.append(quoted(node.text))
        elif isinstance(node, Place):
            if piece := _place(node, facts):
                pieces.append(piece)
        else:
            flush()
            lines += _choice(node, facts) if isinstance(node, Choice) else _group(node, facts)
    flush()
    return lines


def _place(node: Place, facts: Facts) -> str:
    """A place as an expression; nothing where its text cannot be, as that of tools."""
    if node.name == "today":
        return f"strftime_now({quoted(node.argument)})"
    outer = facts["content"] is False
    if node.name not in _PLACES or (outer and node.name not in _OUTER_PLACES):
        return ""
    if node.name in ("tools", "calls") and facts["tools"] is False:
        return ""
    return _filtered(_PLACES[node.name], node.filters)


def _group(node: Group | _Calling, facts: Facts) -> Iterator[str]:
    lines = _text(node.nodes, facts)
    if isinstance(node, Group) and not node.filters:
        yield from lines
        return
    yield from _captured("text", lines)
    if isinstance(node, _Calling):
        if node.filters:
            yield "{%- set text = " + _filtered("text", node.filters) + " %}"
        yield from node.tools.content_and_calls()
    else:
        yield "{{- " + _filtered("text", node.filters) + " }}"


def _filtered(text: str, filters: tuple[str, ...]) -> str:
    for index, name in enumerate(filters):
        text = _FILTERS[name].format(f"({text})" if index else text)
    return text


def _captured(name: str, lines: list[str]) -> Iterator[str]:
    if len(lines) == 1 and lines[0].startswith("{{- "):
        yield f"{{%- set {name} = {lines[0][4:-3]} %}}"
    else:
        yield from (f"{{%- set {name} %}}", *_indented(lines), "{%- endset %}")


def _choice(node: Choice, facts: Facts) -> Iterator[str]:
    word = "if"
    for condition, inner in node.branches:
        told = _condition(condition, facts)
        if told is False:
            continue
        if told is True:
            if word == "if":
                yield from _text(inner, facts)
                return
            yield "{%- else %}"
        else:
            yield f"{{%- {word} {told} %}}"
        yield from _indented(_text(inner, facts))
        word = "elif"
        if told is True:
            break
    if word == "elif":
        yield "{%- endif %}"


def _condition(condition: Condition, facts: Facts) -> str | bool:
    """The condition in Jinja, or what it is where that is known."""
    if condition == ALWAYS:
        return True
    alternatives: list[str] = []
    for alternative in condition:
        terms: list[str] = []
        for name, wanted in alternative:
            fact = facts[name]
            if isinstance(fact, bool):
                if fact is not wanted:
                    break
            else:
                terms.append(fact if wanted else _negated(fact))
        else:
            if not terms:
                return True
            alternatives.append(" and ".join(terms))
    return " or ".join(alternatives) or False


def _negated(fact: str) -> str:
    if fact.startswith("not "):
        return fact.removeprefix("not ")
    for word, opposite in ((" == ", " != "), (" > ", " <= "), (" is ", " is not ")):
        if fact.count(word) == 1 and " and " not in fact:
            return fact.replace(word, opposite)
    return f"not {fact}" if " " not in fact else f"not ({fact})"


def _branch(condition: str, lines: Iterable[str]) -> Iterator[str]:
    yield from (f"{{%- if {condition} %}}", *_indented(lines), "{%- endif %}")


def _indented(lines: Iterable[str]) -> list[str]:
    return ["    " + line for line in lines]


def _refuse(sentence: str) -> str:
    return "{{- raise_exception('" + sentence + "') }}"
