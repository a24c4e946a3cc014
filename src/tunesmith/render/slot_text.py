"""The language of a declarative template's texts: literals, places and choices. Parsing only; it knows no template.

<|im_start|>user\\n{{content|trim}}<|im_end|>      a place, with filters
{% if last and not thought or tools %}...{% elif first %}...{% else %}...{% endif %}     a choice between texts by facts
{{today:%d %b %Y}}                                 today's date in a form of strftime
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

__all__ = [
    "ALWAYS",
    "FACTS",
    "FILTERS",
    "PLACES",
    "Choice",
    "Group",
    "Literal",
    "Node",
    "Place",
    "Slot",
    "parse_condition",
    "parse_slot",
    "walk",
]

FILTERS: Mapping[str, Callable[[str], str]] = {
    "trim": str.strip,
    "ltrim": str.lstrip,
    "rtrim": str.rstrip,
    "lines": lambda text: text.strip("\n"),
    "llines": lambda text: text.lstrip("\n"),
    "rlines": lambda text: text.rstrip("\n"),
    "json": lambda text: json.dumps(text, ensure_ascii=False),
}

PLACES: Mapping[str, str] = {
    "content": "the message's text",
    "thought": "the reply's thought",
    "calls": "the reply's tool calls, as the dialect writes them",
    "system": "the text of the chat's system message",
    "tools": "what the dialect says about the chat's tools",
    "name": "the name of the function whose result this is",
    "id": "the id of the call that is answered",
    "turn": "the number of the question, from 1",
    "turn0": "the number of the question, from 0",
    "today": "today's date",
    "bos": "the tokenizer's beginning of text",
    "eos": "the tokenizer's end of text",
}

FACTS: Mapping[str, str] = {
    "first": "the chat begins with this message",
    "last": "the chat ends with this message",
    "asked": "a reply is asked for after the chat",
    "system": "the chat has a system message",
    "system_text": "its text is not empty",
    "system_words": "its text is more than blanks",
    "tools": "the chat offers tools",
    "content": "this message has text",
    "blank": "this message has nothing but blanks, or nothing",
    "thought": "this reply has a thought that is not empty",
    "has_thought": "this reply has a thought, be it empty",
    "calls": "this reply calls tools",
    "answered": "a reply without calls came before",
    "answered_later": "a reply without calls comes later",
    "unanswered": "no reply of the chat is without calls",
    "final": "no question follows this message",
    "last_reply": "no reply follows this reply",
    "first_question": "this is the first question",
    "last_question": "this is the last question",
    "after_question": "the message before is a question",
    "after_reply": "the message before is a reply",
    "after_result": "the message before is a tool's result",
    "before_reply": "the message after is a reply",
    "before_result": "the message after is a tool's result",
    "thinking": "enable_thinking is true",
    "no_thinking": "enable_thinking is false",
    "keep_thoughts": "preserve_thinking is true",
}


Condition = tuple[tuple[tuple[str, bool], ...], ...]
"""Alternatives of facts that hold together, each (name, wanted value); an empty alternative always holds."""


@dataclass(frozen=True, slots=True)
class Literal:
    text: str


@dataclass(frozen=True, slots=True)
class Place:
    """`argument`: what stands behind the colon."""

    name: str
    filters: tuple[str, ...] = ()
    argument: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The first branch whose condition holds is written."""

    branches: tuple[tuple[Condition, tuple[Node, ...]], ...]


@dataclass(frozen=True, slots=True)
class Group:
    """Texts that are filtered as one. `whole`: together they are the reply's content, for the dialect, too."""

    nodes: tuple[Node, ...]
    filters: tuple[str, ...] = ()
    whole: bool = False


Node = Literal | Place | Choice | Group
Slot = tuple[Node, ...]

ALWAYS: Condition = ((),)
_MARKS = re.compile(r"(\{\{.*?\}\}|\{%.*?%\})", re.DOTALL)


def walk(slot: Slot) -> Iterator[Node]:
    """Every node of a slot, also those inside choices and groups."""
    for node in slot:
        yield node
        if isinstance(node, Choice):
            for _, inner in node.branches:
                yield from walk(inner)
        elif isinstance(node, Group):
            yield from walk(node.nodes)


def parse_slot(text: str) -> Slot:
    """Read a template text. Raises ValueError that says what is wrong."""
    pieces = [piece for piece in _MARKS.split(text) if piece]
    position = 0

    def sequence(ends: tuple[str, ...]) -> tuple[Slot, str]:
        """Nodes up to one of the words that end them, and the tag in which it stands."""
        nonlocal position
        nodes: list[Node] = []
        while position < len(pieces):
            piece = pieces[position]
            position += 1
            if piece.startswith("{%"):
                tag = piece[2:-2].strip()
                word = tag.split(" ", 1)[0]
                if word in ends:
                    return tuple(nodes), tag
                if word != "if":
                    raise ValueError(f"unexpected {{% {tag} %}}")
                nodes.append(choice(tag))
            elif piece.startswith("{{"):
                nodes.append(_place(piece[2:-2].strip()))
            else:
                nodes.append(Literal(piece))
        if ends:
            raise ValueError("{% if %} without {% endif %}")
        return tuple(nodes), ""

    def choice(tag: str) -> Choice:
        branches = []
        condition = parse_condition(tag.removeprefix("if"))
        while True:
            inner, tag = sequence(("elif", "else", "endif") if condition is not ALWAYS else ("endif",))
            branches.append((condition, inner))
            if tag == "endif":
                return Choice(tuple(branches))
            condition = ALWAYS if tag == "else" else parse_condition(tag.removeprefix("elif"))

    return sequence(())[0]


def _place(text: str) -> Place:
    body, _, argument = text.partition(":")
    name, *filters = [word.strip() for word in body.split("|")]
    if name not in PLACES:
        raise ValueError(f"unknown place {{{{{name}}}}}: one of {', '.join(PLACES)}")
    for word in filters:
        if word not in FILTERS:
            raise ValueError(f"unknown filter {word!r}: one of {', '.join(FILTERS)}")
    return Place(name, tuple(filters), argument)


def parse_condition(text: str) -> Condition:
    """Read "a and not b or c". Raises ValueError for a fact that there is not."""
    alternatives = []
    for alternative in re.split(r"\bor\b", text):
        facts = []
        for term in re.split(r"\band\b", alternative):
            words = term.split()
            wanted = words[:1] != ["not"]
            name = words[-1] if words else ""
            if len(words) != 2 - wanted or name not in FACTS:
                raise ValueError(f"unknown fact {term.strip()!r}: one of {', '.join(FACTS)}")
            facts.append((name, wanted))
        alternatives.append(tuple(facts))
    return tuple(alternatives)
