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
from tunesmith.render.tools.base import Dialect, DialectRefusal, Tool, join_pieces

__all__ = ["JinjaTools", "quoted"]

_NAMES = ("probe_one", "probe_two", "probe_three")
_PROBES: tuple[Tool, ...] = tuple(
    {"type": "function", "function": {"name": name, "description": name.upper(), "parameters": {"type": "object"}}}
    for name in _NAMES
)
_CALLS = tuple(ToolCall(name, {"key": name.upper()}, f"abcdefgh{at}") for at, name in enumerate(_NAMES))
_CUT = "\x00"
_TEXT, _CALLS_TEXT = "\x01", "\x02"  # what stands for a reply's text and its calls

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
    tools_frames: tuple[tuple[str, str, str], tuple[str, str, str]] | None
    """For a model that is not asked to think first, and one that is. None: tools are refused."""
    calls_frame: tuple[str, str, str]
    results: frozenset[str]
    """What the template says of a call beside its result: its name, its id."""
    late_ids: bool
    """The calls of a chat's last message are written without ids."""

    @classmethod
    def of(cls, slots: SlotFile) -> JinjaTools | None:
        """None for a template without tools, and for dialects that cannot be said in Jinja."""
        places = {node.name for node in walk(slots.tool) if isinstance(node, Place)}
        if not slots.dialect or slots.dialect not in FORMS or not places:
            return None
        dialect = get_dialect(slots.dialect)
        form = FORMS[slots.dialect](dialect)
        late = slots.call_ids == "history"
        return cls(dialect, form, _tools_frames(dialect, form), _calls_frame(dialect, form), frozenset(places), late)

    @property
    def numbers(self) -> bool:
        """Whether calls are counted and matched with their results."""
        return bool(self.form.id) or not self.results.isdisjoint(("name", "id"))

    def tools(self) -> Iterator[str]:
        """Statements that set `tools_text`."""
        yield from self.form.macro_lines
        if self.tools_frames is None:
            yield "{%- if tools %}"
            yield "    {{- raise_exception('this chat template shows no tools: describe them in the system message') }}"
            yield "{%- endif %}"
            yield "{%- set tools_text = '' %}"
            return
        (head, between, tail), (_, _, thinking_tail) = self.tools_frames
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
        if thinking_tail != tail:
            yield f"        {{{{- {quoted(thinking_tail)} if thinking is true else {quoted(tail)} }}}}"
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
        if self.late_ids:
            yield "{%- set keeps_ids = not loop.last %}"
        yield "{%- set calls %}"
        yield from ("    " + line for line in _CALL_LOOP)
        if self.form.needs_mapping:
            yield "        {%- if arguments is string %}"
            yield "            {{- raise_exception('the arguments of a tool call must be an object, not JSON text') }}"
            yield "        {%- endif %}"
        if self.numbers:
            yield from ("    " + line for line in _NUMBERED)
        if self.late_ids:
            yield "        {%- set id = id if keeps_ids else none %}"
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
        if not self.dialect.takes_content:
            yield "{%- if calls and content | trim %}"
            yield "    {{- raise_exception('this chat template has no room for text beside a tool call') }}"
            yield "{%- endif %}"
            yield "{{- calls or text }}"
            return
        with_text, alone = self._arranged(_TEXT), self._arranged("")
        if with_text == "text ~ calls":
            yield "{{- text ~ calls }}"
        else:
            yield f"{{{{- (({with_text}) if text else {alone}) if calls else text }}}}"

    def _arranged(self, content: str) -> str:
        """An expression for calls beside a content, as the dialect arranges them."""
        pieces = [text for text, _ in self.dialect._arrange([(_CALLS_TEXT, True)], content) if text]
        words = {_TEXT: "text", _CALLS_TEXT: "calls"}
        return " ~ ".join(words.get(piece) or quoted(piece) for piece in pieces)


def _with_names(tail: str) -> str:
    """The text behind the tools, which may list their names."""
    before, found, behind = tail.partition(", ".join(_NAMES))
    if not found:
        return quoted(tail)
    return f"{quoted(before)} ~ tools | map(attribute='function.name') | join(', ') ~ {quoted(behind)}"


def _tools_frames(dialect: Dialect, form: Form) -> tuple[tuple[str, str, str], tuple[str, str, str]] | None:
    """Text before, between and behind the tools."""
    loop = form.tool + _CUT if form.whole else "".join(map(str.strip, _TOOL_LOOP)) + form.tool + _CUT + "{%- endfor %}"
    pieces = _rendered(form, loop, tools=_PROBES)
    try:
        texts = [join_pieces(dialect.tools_text(_PROBES, thinking)) for thinking in (False, True)]
    except DialectRefusal:
        return None
    plain, thinking = (_frame(text, pieces, dialect.name) for text in texts)
    assert plain[:2] == thinking[:2], f"only what stands behind the tools may depend on thinking: {dialect.name}"
    return plain, thinking


def _calls_frame(dialect: Dialect, form: Form) -> tuple[str, str, str]:
    """Text before, between and behind the calls."""
    calls = _CALLS[: dialect.max_calls]
    told = [{"function": {"name": call.name, "arguments": dict(call.arguments)}, "id": call.id} for call in calls]
    loop = "".join(map(str.strip, (*_CALL_LOOP, *_NUMBERED))) + form.call + _CUT + "{%- endfor %}"
    pieces = _rendered(form, loop, message={"tool_calls": told}, seen={"calls": 0})
    return _frame(join_pieces(dialect._write(calls, 0)), pieces, dialect.name)


def _rendered(form: Form, loop: str, **variables: object) -> list[str]:
    return compile_template("\n".join(form.macro_lines) + loop).render(**variables).split(_CUT)[:-1]


def _frame(text: str, pieces: list[str], name: str) -> tuple[str, str, str]:
    """What stands before, between and behind the pieces in a text."""
    head, _, rest = text.partition(pieces[0])
    between = rest.partition(pieces[1])[0] if len(pieces) > 1 else ""
    whole = between.join(pieces)
    tail = text[len(head) + len(whole) :]
    assert head + whole + tail == text, f"the Jinja of the tool form {name!r} differs from what it writes"
    return head, between, tail
