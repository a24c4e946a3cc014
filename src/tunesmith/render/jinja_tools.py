"""What a tool dialect writes, as parts of a chat template in Jinja, for the dialects that write plain JSON.

The texts are the dialect's own: its words are taken from what it writes for tools that serve as probes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tunesmith.render.slot_files import SlotFile
from tunesmith.render.slot_text import Place, walk
from tunesmith.render.tools import get_dialect
from tunesmith.render.tools.base import Dialect, Tool, join_pieces
from tunesmith.render.tools.json_forms import JsonList, TaggedJson, to_json

__all__ = ["JinjaTools", "quoted"]

_PROBES: tuple[Tool, ...] = tuple(
    {"type": "function", "function": {"name": name, "description": name.upper(), "parameters": {"type": "object"}}}
    for name in ("probe_one", "probe_two", "probe_three")
)


@dataclass(frozen=True, slots=True)
class JinjaTools:
    """`head tool between tool tail` for the tools; `before open {"name": ..., KEY: ...} close join ... behind` for
    calls. `gap`: between a reply's text and its calls."""

    head: str
    between: str
    tail: str
    before: str
    open: str
    close: str
    join: str
    behind: str
    key: str
    gap: str
    takes_content: bool

    @classmethod
    def of(cls, slots: SlotFile) -> JinjaTools | None:
        """None for a template without tools, and for dialects that write more than JSON."""
        places = {node.name for node in walk(slots.tool) if isinstance(node, Place)}
        if not slots.dialect or not places or places != {"content"}:
            return None
        dialect = get_dialect(slots.dialect)
        plain = type(dialect)._arrange is Dialect._arrange and not dialect.gap_always and dialect.max_calls is None
        words = _frame(dialect)
        if not plain or words is None:
            return None
        content = (dialect.gap, dialect.takes_content)
        if isinstance(dialect, TaggedJson) and type(dialect)._write is TaggedJson._write:
            calls = ("", dialect.open, dialect.close, dialect.join, "", dialect.arguments_key)
            return cls(*words, *calls, *content)
        if isinstance(dialect, JsonList) and type(dialect)._write is JsonList._write and not dialect.writes_ids:
            calls = (dialect.before + "[", "", "", ", ", "]" + dialect.behind, dialect.arguments_key)
            return cls(*words, *calls, *content)
        return None

    def tools(self) -> Iterator[str]:
        """Statements that set `tools_text`."""
        yield "{%- set tools_text %}"
        yield "    {%- if tools %}"
        yield "        {{- " + quoted(self.head) + " }}"
        yield "        {%- for tool in tools %}"
        yield f"            {{{{- ('' if loop.first else {quoted(self.between)}) ~ tool | tojson }}}}"
        yield "        {%- endfor %}"
        yield "        {{- " + quoted(self.tail) + " }}"
        yield "    {%- endif %}"
        yield "{%- endset %}"

    def calls(self) -> Iterator[str]:
        """Statements that set `calls`, the text of a reply's calls."""
        yield "{%- set calls %}"
        yield "    {%- for call in message.tool_calls or [] %}"
        yield "        {%- set function = call.function or call %}"
        yield "        {%- set arguments = function.arguments %}"
        yield f"        {{{{- {quoted(self.before)} if loop.first else {quoted(self.join)} }}}}"
        yield "        {{- " + quoted(self.open + '{"name": ') + " ~ function.name | tojson }}"
        yield "        {{- " + quoted(', "' + self.key + '": ') + " }}"
        yield "        {{- arguments if arguments is string else arguments | tojson }}"
        yield (
            "        {{- "
            + quoted("}" + self.close)
            + (f" ~ ({quoted(self.behind)} if loop.last else '')" if self.behind else "")
            + " }}"
        )
        yield "    {%- endfor %}"
        yield "{%- endset %}"

    def content_and_calls(self) -> Iterator[str]:
        """Statements that write `text`, what a reply says, and its `calls`."""
        if self.takes_content:
            gap = f" ~ ({quoted(self.gap)} if text and calls else '')" if self.gap else ""
            yield "{{- text" + gap + " ~ calls }}"
            return
        yield "{%- if calls and content | trim %}"
        yield "    {{- raise_exception('this chat template has no room for text beside a tool call') }}"
        yield "{%- endif %}"
        yield "{{- calls or text }}"


def _frame(dialect: Dialect) -> tuple[str, str, str] | None:
    """Text before, between and behind the tools, where each is written as JSON on one line."""
    text = join_pieces(dialect.write_tools(_PROBES))
    written = [to_json(tool) for tool in _PROBES]
    head, _, rest = text.partition(written[0])
    between, _, rest = rest.partition(written[1])
    again, _, tail = rest.partition(written[2])
    whole = head + between.join(written) + tail
    return (
        (head, between, tail)
        if again == between and whole == text and not any("probe" in x for x in (head, tail))
        else None
    )


def quoted(text: str) -> str:
    """A text as a literal of Jinja."""
    for plain, escaped in (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(plain, escaped)
    return f"'{text}'"
