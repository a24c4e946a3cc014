"""Answers of two models to one question, written beside each other as they come."""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tunesmith.cli.chat_commands import Send
from tunesmith.cli.counted import Counted
from tunesmith.cli.output import is_terminal
from tunesmith.cli.thoughts import split_thoughts
from tunesmith.core.errors import TunesmithError

if TYPE_CHECKING:
    from tunesmith.engines.conversation import Conversation

__all__ = ["answer_side_by_side"]


@dataclass
class _Column:
    """`parts` are (text, is a thought)."""

    name: str
    conversation: Conversation
    parts: list[tuple[str, bool]] = field(default_factory=list)
    speed: str | None = None
    error: BaseException | None = None

    @property
    def said(self) -> str:
        return "".join(text for text, thought in self.parts if not thought).lstrip("\n")


def answer_side_by_side(chats: Mapping[str, Conversation], send: Send, *, show_speed: bool = False) -> None:
    """Ask all at once. On a terminal the answers grow in columns, elsewhere they follow each other under their names.
    Ctrl-C ends all of them. Raises the error of one that failed, when the others have ended."""
    columns = [_Column(name, conversation) for name, conversation in chats.items()]
    stop, news = threading.Event(), queue.SimpleQueue[bool]()
    threads = [threading.Thread(target=_fill, args=(one, send, stop, news)) for one in columns]
    for thread in threads:
        thread.start()
    shown = _on_terminal if is_terminal(sys.stdout) else _in_turn
    try:
        shown(columns, threads, news)
    except KeyboardInterrupt:
        stop.set()
        print(" (stopped)", file=sys.stderr)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if show_speed:
        for one in columns:
            if one.speed:
                print(f"({one.name}: {one.speed})", file=sys.stderr)
    for one in columns:
        if one.error is not None:
            raise one.error


def _fill(column: _Column, send: Send, stop: threading.Event, news: queue.SimpleQueue[bool]) -> None:
    """In a thread of its own. `news`: of each piece, and True at the end."""
    conversation = column.conversation
    try:
        thinking = send.role == "user" and conversation.thinks_first(send.text)
        chunks = Counted(conversation.stream(send.text, role=send.role))
        with closing(chunks):
            for piece in split_thoughts(chunks, *conversation.thought_marks, thought=thinking):
                column.parts.append(piece)
                news.put(False)
                if stop.is_set():
                    break
        column.speed = chunks.speed()
    except Exception as error:
        column.error = error
        if isinstance(error, TunesmithError):
            column.parts.append(("(no answer)", False))
    finally:
        news.put(True)


def _in_turn(columns: list[_Column], threads: list[threading.Thread], _: Any) -> None:
    for column, thread in zip(columns, threads, strict=True):
        thread.join()
        print(f"{column.name}: {column.said}", flush=True)


def _on_terminal(columns: list[_Column], _: Any, news: queue.SimpleQueue[bool]) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False, transient=True, vertical_overflow="visible") as live:
        left = len(columns)
        while left:
            left -= news.get()
            live.update(_table(columns, tail=max(console.height - 4, 1), width=console.width), refresh=True)
    console.print(_table(columns))


def _table(columns: list[_Column], tail: int | None = None, width: int = 0) -> Any:
    """`tail`: only the last lines of each answer, so that a growing table fits the terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True, show_edge=False, pad_edge=False, box=None, padding=(0, 2, 0, 0))
    cells = []
    for column in columns:
        table.add_column(column.name, ratio=1, overflow="fold", header_style="bold", vertical="top")
        cell = Text.assemble(*((text, "dim" if thought else "") for text, thought in column.parts))
        if tail is not None:
            lines = cell.wrap(Console(width=width), max(width // len(columns) - 2, 8), overflow="fold")
            cell = Text("\n").join(lines[-tail:])
        cells.append(cell)
    table.add_row(*cells)
    return table
