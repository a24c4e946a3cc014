"""What a tool dialect writes, as parts of a chat template in Jinja.

The words around tools and calls are the dialect's own: they are taken from what it writes for tools and calls that
serve as probes. How one tool and one call are written is said in `jinja_forms.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tunesmith.core.types import ToolCall
from tunesmith.render.jinja import compile_template
from tunesmith.render.jinja_forms import FORMS, Form, quoted
from tunesmith.render.slot_files import SlotFile
from tunesmith.render.slot_text import Place, walk
from tunesmith.render.tools import get_dialect
from tunesmith.render.tools.base import Dialect, Tool, join_pieces

__all__ = ["JinjaTools", "quoted"]

_NAMES = ("probe_one", "probe_two", "probe_three")
_PROBES: tuple[Tool, ...] = tuple(
    {"type": "function", "function": {"name": name, "description": name.upper(), "parameters": {"type": "object"}}}
    for name in _NAMES
)
_CALLS = tuple(ToolCall(name, {"key": name.upper()}, f"abcdefgh{at}") for at, name in enumerate(_NAMES))
_CUT = "\x00"

_TOOL_LOOP = (
    "{%- for tool in tools %}",
    "    {%- set function = tool.function or tool %}",
)
_CALL_LOOP = (
    "{%- for call in message.tool_calls or [] %}",
    "    {%- set function = call.function or call %}",
    "    {%- set arguments = function.arguments %}",
)
_NUMBERED = ("    {%- set id, number = call.id, seen.calls + loop.index0 %}",)
# Calls that wait for their results, and the one that a result answers: the one it names, else the next.
_WAIT = (
    "{%- set seen.waiting = [] %}",
    "{%- for call in message.tool_calls or [] %}",
    "    {%- set number = seen.calls + loop.index0 %}",
    "    {%- set waits = {'name': (call.function or call).name, 'id': call.id, 'number': number} %}",
    "    {%- set seen.waiting = seen.waiting + [waits] %}",
    "{%- endfor %}",
    "{%- set seen.calls = seen.calls + message.tool_calls | length %}",
)
_ANSWER = (
    "{%- set named = seen.waiting | selectattr('id', 'equalto', message.tool_call_id) | list %}",
    "{%- set call = ((named if message.tool_call_id else []) or seen.waiting) | first %}",
    "{%- set name = message.name or call.name or '' %}",
    "{%- set id = message.tool_call_id or '' %}",
    "{%- if call %}",
    "    {%- set seen.waiting = seen.waiting | rejectattr('number', 'equalto', call.number) | list %}",
    "{%- endif %}",
)


@dataclass(frozen=True, slots=True)
class JinjaTools:
    """`head tool between tool tail` for the tools; `before call join call behind` for calls."""

    dialect: Dialect
    form: Form
    tools_frame: tuple[str, str, str]
    thinking_tail: str
    """What stands behind the tools where the model is asked to think."""
    calls_frame: tuple[str, str, str]
    results: frozenset[str]
    """What the template says of a call beside its result: its name, its id."""

    @classmethod
    def of(cls, slots: SlotFile) -> JinjaTools | None:
        """None for a template without tools, and for dialects that cannot be said in Jinja."""
        places = {node.name for node in walk(slots.tool) if isinstance(node, Place)}
        if not slots.dialect or slots.dialect not in FORMS or not places:
            return None
        dialect = get_dialect(slots.dialect)
        form = FORMS[slots.dialect](dialect)
        frame, thinking = (_tools_frame(dialect, form, thinking) for thinking in (False, True))
        assert frame[:2] == thinking[:2], f"the tool form {dialect.name!r} differs in front of the tools"
        return cls(dialect, form, frame, thinking[2], _calls_frame(dialect, form), frozenset(places))

    @property
    def numbers(self) -> bool:
        """Whether calls are counted and matched with their results."""
        return bool(self.form.id) or not self.results.isdisjoint(("name", "id"))

    def tools(self) -> Iterator[str]:
        """Statements that set `tools_text`."""
        head, between, tail = self.tools_frame
        yield from self.form.macros.splitlines()
        yield "{%- set tools_text %}"
        yield "    {%- if tools %}"
        if head:
            yield "        {{- " + quoted(head) + " }}"
        if self.form.whole:
            yield "        " + self.form.tool
        else:
            yield from ("        " + line for line in _TOOL_LOOP)
            if between:
                yield f"            {{{{- '' if loop.first else {quoted(between)} }}}}"
            yield "            " + self.form.tool
            yield "        {%- endfor %}"
        if tail != self.thinking_tail:
            yield f"        {{{{- {quoted(self.thinking_tail)} if thinking is true else {quoted(tail)} }}}}"
        elif tail:
            yield "        {{- " + _with_names(tail) + " }}"
        yield "    {%- endif %}"
        yield "{%- endset %}"

    def calls(self) -> Iterator[str]:
        """Statements that set `calls`, the text of a reply's calls."""
        before, join, behind = self.calls_frame
        if self.dialect.max_calls == 1:
            yield "{%- if (message.tool_calls or []) | length > 1 %}"
            yield "    {{- raise_exception('this chat template has room for one tool call in a reply') }}"
            yield "{%- endif %}"
        yield "{%- set calls %}"
        yield from ("    " + line for line in _CALL_LOOP)
        if self.form.needs_mapping:
            yield "        {%- if arguments is string %}"
            yield "            {{- raise_exception('the arguments of a tool call must be an object, not JSON text') }}"
            yield "        {%- endif %}"
        if self.numbers:
            yield from ("    " + line for line in _NUMBERED)
        if self.form.nine:
            yield "        {%- if id is not string or id | length != 9 %}"
            yield "            {{- raise_exception('the id of a tool call must have nine letters or digits') }}"
            yield "        {%- endif %}"
        if before or join:
            yield f"        {{{{- {quoted(before)} if loop.first else {quoted(join)} }}}}"
        yield "        " + self.form.call
        if behind:
            yield f"        {{{{- {quoted(behind)} if loop.last else '' }}}}"
        yield "    {%- endfor %}"
        yield "{%- endset %}"
        if self.numbers:
            yield "{%- if message.tool_calls %}"
            yield from ("    " + line for line in _WAIT)
            yield "{%- endif %}"

    def result(self) -> Iterator[str]:
        """Statements that set `name` and `id` of the call that a result answers."""
        if not self.numbers:
            return
        yield from _ANSWER
        if self.form.id:
            yield "{%- if call %}"
            yield "    {%- set function, number = call, call.number %}"
            own = "call.id" if self.form.id == "id" else self.form.id
            yield f"    {{%- set id = {own} or id %}}"
            yield "{%- endif %}"

    def content_and_calls(self) -> Iterator[str]:
        """Statements that write `text`, what a reply says, and its `calls`."""
        if self.dialect.takes_content:
            when = "calls" if self.dialect.gap_always else "text and calls"
            gap = f" ~ ({quoted(self.dialect.gap)} if {when} else '')" if self.dialect.gap else ""
            yield "{{- text" + gap + " ~ calls }}"
            return
        yield "{%- if calls and content | trim %}"
        yield "    {{- raise_exception('this chat template has no room for text beside a tool call') }}"
        yield "{%- endif %}"
        yield "{{- calls or text }}"


def _with_names(tail: str) -> str:
    """The text behind the tools, which may list their names."""
    before, found, behind = tail.partition(", ".join(_NAMES))
    if not found:
        return quoted(tail)
    return f"{quoted(before)} ~ tools | map(attribute='function.name') | join(', ') ~ {quoted(behind)}"


def _tools_frame(dialect: Dialect, form: Form, thinking: bool) -> tuple[str, str, str]:
    """Text before, between and behind the tools."""
    loop = form.tool + _CUT if form.whole else "".join(map(str.strip, _TOOL_LOOP)) + form.tool + _CUT + "{%- endfor %}"
    pieces = _rendered(form, loop, tools=_PROBES)
    return _frame(join_pieces(dialect.tools_text(_PROBES, thinking)), pieces, dialect.name)


def _calls_frame(dialect: Dialect, form: Form) -> tuple[str, str, str]:
    """Text before, between and behind the calls."""
    calls = _CALLS[: dialect.max_calls]
    told = [{"function": {"name": call.name, "arguments": dict(call.arguments)}, "id": call.id} for call in calls]
    message = {"tool_calls": told}
    loop = "".join(map(str.strip, (*_CALL_LOOP, *_NUMBERED))) + form.call + _CUT + "{%- endfor %}"
    pieces = _rendered(form, loop, message=message, seen={"calls": 0})
    text = join_pieces(dialect.write_calls(calls))
    return _frame(text.removeprefix(dialect.gap) if dialect.gap_always else text, pieces, dialect.name)


def _rendered(form: Form, loop: str, **variables: object) -> list[str]:
    return compile_template(form.macros + loop).render(**variables).split(_CUT)[:-1]


def _frame(text: str, pieces: list[str], name: str) -> tuple[str, str, str]:
    """What stands before, between and behind the pieces in a text."""
    head, _, rest = text.partition(pieces[0])
    between = rest.partition(pieces[1])[0] if len(pieces) > 1 else ""
    whole = between.join(pieces)
    tail = text[len(head) + len(whole) :]
    assert head + whole + tail == text, f"the Jinja of the tool form {name!r} differs from what it writes"
    return head, between, tail
