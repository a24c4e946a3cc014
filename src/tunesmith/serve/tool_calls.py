"""Calls of tools that a reply has to hold, or whose arguments have to obey their schemas: the grammar of the form that
the model's template gives to calls."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.core.types import ToolCall
from tunesmith.render import Renderer
from tunesmith.render.control import ControlTokens
from tunesmith.render.replies import Delta
from tunesmith.render.tools import get_dialect
from tunesmith.render.tools.base import join_pieces
from tunesmith.serve.errors import unsupported
from tunesmith.serve.grammar import Grammar, Grammars, as_json

__all__ = ["CallForm", "JsonCalls", "calls_grammar", "form_of", "strict_grammar"]


@dataclass(frozen=True, slots=True)
class CallForm:
    """before NAME middle ARGUMENTS [between NAME middle ARGUMENTS ...] behind, with the arguments as JSON.

    trigger   the word in `before` that says that it is a call
    own       whether it is the form of the model's template, which its reader reads
    marked    whether prose never has the trigger
    """

    before: str
    middle: str
    between: str
    behind: str
    trigger: str
    own: bool = True
    marked: bool = True


_COMMON = CallForm(
    before='<tool_call>\n{"name": "',
    middle='", "arguments": ',
    between='}\n</tool_call>\n<tool_call>\n{"name": "',
    behind="}\n</tool_call>",
    trigger="<tool_call>",
)
"""Where a model's own template is not known further: what its reader looks for."""
_LIST = CallForm('[{"name": "', '", "arguments": ', '}, {"name": "', "}]", "", own=False, marked=False)
"""Where a form does not write its arguments as JSON."""


def form_of(renderer: Renderer) -> CallForm:
    """How the model writes calls, found by writing two; a list in JSON for forms that it cannot be told of."""
    name = renderer.template.dialect
    if name is None:
        return _COMMON
    dialect = get_dialect(name)
    one, two = ToolCall("probe_one", {"first_key": "first"}), ToolCall("probe_two", {"second_key": "second"})
    single = join_pieces(dialect.write_calls([one]))
    both = join_pieces(dialect.write_calls([one, two])) if dialect.max_calls != 1 else single
    written = _json_in(single, one)
    if written is None or single.count(one.name) != 1:
        return _LIST
    before, _, rest = single.partition(one.name)
    middle, _, behind = rest.partition(written)
    item = f"{one.name}{middle}{written}"
    other = f"{two.name}{middle}{_json_in(both, two)}"
    between = both.removeprefix(before + item).removesuffix(other + behind) if both != single else ""
    if both != single and both != before + item + between + other + behind:
        return _LIST
    trigger = next((word for word in dialect.opens if word in before), None)
    if trigger is None:
        return _LIST
    return CallForm(before, middle, between, behind, trigger, marked=dialect.in_content and len(trigger) > 1)


def _json_in(text: str, call: ToolCall) -> str | None:
    """The arguments as JSON where a text has them so, with or without blanks."""
    forms = (json.dumps(call.arguments, separators=pair) for pair in ((", ", ": "), (",", ":")))
    return next((form for form in forms if text.count(form) == 1), None)


def calls_grammar(
    grammars: Grammars, renderer: Renderer, form: CallForm, tools: Sequence[Mapping[str, Any]], *, several: bool
) -> str:
    """At least one call of `tools`, and nothing else. Raises ApiError (400) for a strict schema that no grammar can be
    made of; others then have any object as arguments."""
    several = several and bool(form.between)
    more = f" ({_literal(form.between, renderer.control)} call)*" if several else ""
    lines = [
        f"start: {_literal(form.before, renderer.control)} call{more} {_literal(form.behind, renderer.control)}",
        "call: " + " | ".join(f"call_{index}" for index in range(len(tools))),
    ]
    for index, tool in enumerate(tools):
        function = tool["function"]
        schema = _arguments(grammars, function, f"tools[{index}].function.parameters")
        lines.append(f"call_{index}: {_literal(function['name'] + form.middle, renderer.control)} arguments_{index}")
        lines.append(f"arguments_{index}: {as_json(schema)}")
    return "\n".join(lines)


def _arguments(grammars: Grammars, function: Mapping[str, Any], param: str) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = function["parameters"]
    if "type" not in schema and "properties" in schema:
        schema = {"type": "object", **schema}
    text = f"start: {as_json(schema)}"
    if function.get("strict"):
        grammars.made(text, param)
        return schema
    return {"type": "object"} if grammars.check(text) else schema


def _literal(text: str, control: ControlTokens) -> str:
    """A text in Lark's notation; control tokens, which no text can write, by their numbers."""
    parts, done = [], 0
    for start, end, token in control.find(text):
        parts += [json.dumps(text[done:start])] if start > done else []
        parts.append(f"<[{token.id}]>")
        done = end
    parts += [json.dumps(text[done:])] if done < len(text) else []
    return " ".join(parts)


def strict_grammar(
    grammars: Grammars, renderer: Renderer, tools: Sequence[Mapping[str, Any]], *, several: bool
) -> Grammar:
    """For a reply that may hold calls, whose arguments obey their schemas where a tool is strict."""
    form = form_of(renderer)
    if not form.marked:
        message = "with this model, strict goes with a tool_choice that demands a call"
        raise unsupported(message, "tools[0].function.strict")
    rest = CallForm(form.before.partition(form.trigger)[2], form.middle, form.between, form.behind, "")
    text = calls_grammar(grammars, renderer, rest, tools, several=several)
    return grammars.made(text, "tools", trigger=form.trigger, demanded=False)


class JsonCalls:
    """Reads a list of calls in JSON, with the methods of a `ReplyReader`. One that was cut off stays text."""

    def __init__(self) -> None:
        self._text = ""
        self.calls: tuple[ToolCall, ...] = ()

    def push(self, text: str) -> Delta:
        self._text += text
        return Delta()

    def finish(self) -> Delta:
        try:
            found = json.loads(self._text)
        except ValueError:
            return Delta(content=self._text)
        self.calls = tuple(ToolCall(one["name"], one["arguments"]) for one in found)
        return Delta()
