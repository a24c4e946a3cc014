"""Tool calls that stand as markup inside an assistant's content, as much training data has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunesmith.render.tools import DIALECTS, get_dialect
from tunesmith.render.tools.base import Parsed, Tool

__all__ = ["parse_content"]


def parse_content(
    text: str, dialects: Iterable[str] | None = None, tools: Sequence[Tool] = ()
) -> tuple[Parsed, str | None]:
    """Calls in `text`, and the name of the dialect they are written in (None: there are none, all is text).

    `dialects`: the names to look for. Left out, all whose calls cannot be mistaken for prose: a bare JSON object or a
    Python list is a call only for who names the dialect. The dialect that finds most calls wins, then the one that
    leaves least text, then the one named first.
    """
    names = list(dialects) if dialects is not None else [name for name in DIALECTS if get_dialect(name).in_content]
    best, best_name = Parsed(text), None
    for name in names:
        dialect = get_dialect(name)
        if dialect.opens and not any(word in text for word in dialect.opens):
            continue
        parsed = dialect.parse(text, tools)
        if (len(parsed.calls), -len(parsed.content)) > (len(best.calls), -len(best.content)) and parsed.calls:
            best, best_name = parsed, name
    return best, best_name
