"""Contents that are lists of parts, in a chat template that is made of a declarative one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tunesmith.core.types import Modality
from tunesmith.render.jinja_tools import quoted

__all__ = ["content_of_parts", "numbered"]

Placeholders = Mapping[Modality, str]


def numbered(placeholders: Placeholders) -> list[str]:
    """Kinds of media whose placeholders tell how many there were."""
    return [kind for kind, text in placeholders.items() if "{n}" in text]


def content_of_parts(placeholders: Placeholders, ways: Sequence[str]) -> Iterator[str]:
    """Statements that make a text of `content`, where it is a list. `ways`: the key `media` of a slot file."""
    yield "{%- if content is not string %}"
    ordered = "content | sort(attribute='type') if content | length == 2 else content"
    yield "    {%- set parts = " + (ordered if "first" in ways else "content") + " %}"
    yield "    {%- set content %}"
    yield "        {%- for part in parts %}"
    yield "            {%- if part.type == 'text' %}"
    yield "                {{- part.text" + (" | trim" if "trim" in ways else "") + " }}"
    for kind, text in placeholders.items():
        yield f"            {{%- elif part.type == '{kind}' %}}"
        if "{n}" in text:
            yield f"                {{%- set seen.{kind} = seen.{kind} + 1 %}}"
        pieces = f" ~ seen.{kind} ~ ".join(quoted(piece) for piece in text.split("{n}"))
        yield "                {{- " + pieces + " }}"
    yield "            {%- endif %}"
    yield "        {%- endfor %}"
    yield "    {%- endset %}"
    yield "{%- endif %}"
