"""Tables of pages in Markdown, between the comments `<!-- NAME: begin -->` and `<!-- NAME: end -->`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = ["table", "with_tables"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Lines of a table; `head` are the names of its columns."""
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *lines])


def with_tables(text: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """The page with the tables as they are now."""
    for name, made in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n{made()}\n{end}{rest.split(end)[1]}"
    return text
