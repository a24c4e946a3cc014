"""`tunesmith chat`: talk with a model on the terminal, or answer the lines of a pipe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.output import has_colour, is_terminal
from tunesmith.cli.thoughts import Piece, split_thoughts
from tunesmith.core.errors import TunesmithError

if TYPE_CHECKING:
    from tunesmith.api import Conversation

EPILOG = """\b
Examples:
  tunesmith chat run.yaml
  tunesmith chat --model_name_or_path BASE --adapter_name_or_path out
  tunesmith chat run.yaml temperature=0 < questions.txt
\b
While chatting: /clear forgets the conversation, /system TEXT sets the
system message, /exit or Ctrl-D leaves, Ctrl-C stops an answer. In a pipe each
line is a message of one conversation; answers go to standard output.
"""

HELP = "/clear, /system TEXT, /exit;  Ctrl-C stops an answer, Ctrl-D leaves"
DIM, RESET = "\x1b[2m", "\x1b[0m"
PROMPT = "> "

app = make_app(no_args_is_help=False)


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG] [KEY=VALUE ...]")
def chat(context: typer.Context) -> None:
    """Talk with a model, with or without an adapter.

    A training config stands for what its training saved in output_dir.
    """
    config = load(context.args, "chat")

    from tunesmith.api import chat as begin
    from tunesmith.core import log

    log.setup()
    with begin(config) as conversation:
        if is_terminal(sys.stdin):
            print(HELP, file=sys.stderr)
        talk(conversation, _lines(), interactive=is_terminal(sys.stderr) and is_terminal(sys.stdin))


def talk(conversation: Conversation, lines: Iterator[str], *, interactive: bool = False) -> None:
    """Answer line by line until /exit or the end of input.

    `interactive`: tell the speed of each answer, and go on after an error that the user can mend (a conversation that
    has become too long); otherwise it is raised.
    """
    for line in lines:
        text = line.strip()
        if not text:
            continue
        word, _, rest = text.partition(" ")
        command = COMMANDS.get(word if text.startswith("/") else text)
        if command is not None:
            if command(conversation, rest.strip()):
                return
        elif text.startswith("/"):
            print(f"unknown command {word}  ({HELP})", file=sys.stderr)
        else:
            try:
                answer(conversation, text, show_speed=interactive)
            except TunesmithError as error:
                if not interactive:
                    raise
                print(error, file=sys.stderr)


def answer(conversation: Conversation, text: str, *, show_speed: bool = False) -> None:
    """Print an answer while it is written; thoughts only on a terminal, dimmed. Ctrl-C ends it, not the program."""
    began = time.perf_counter()
    chunks = _Counted(conversation.stream(text))
    pieces = split_thoughts(chunks, *conversation.thought_marks, thought=conversation.thinks_first(text))
    try:
        with closing(chunks.source):
            for part in _shown(pieces):
                sys.stdout.write(part)
                sys.stdout.flush()
    except KeyboardInterrupt:
        print(" (stopped)", file=sys.stderr)
    print(flush=True)
    if show_speed and chunks.count:
        seconds = time.perf_counter() - began
        print(f"({chunks.count} tokens, {chunks.count / seconds:.1f} tokens/s)", file=sys.stderr)


def _shown(pieces: Iterable[Piece]) -> Iterator[str]:
    """What is printed of an answer: the blank lines between thoughts and words only where thoughts are shown."""
    terminal, colour = is_terminal(sys.stdout), has_colour(sys.stdout)
    begun = False
    for piece in pieces:
        if piece.thought:
            if terminal:
                yield f"{DIM}{piece.text}{RESET}" if colour else piece.text
        elif text := piece.text if begun or terminal else piece.text.lstrip("\n"):
            begun = True
            yield text


class _Counted:
    """Iterates over chunks and counts them: an engine yields about one per token."""

    def __init__(self, source: Generator[str]) -> None:
        self.source = source
        self.count = 0

    def __iter__(self) -> Iterator[str]:
        for chunk in self.source:
            self.count += 1
            yield chunk


def _lines() -> Iterator[str]:
    """Lines of standard input, with a prompt and line editing on a terminal; ends at Ctrl-D."""
    if not is_terminal(sys.stdin):
        yield from sys.stdin
        return
    with suppress(ImportError):  # not on every platform
        import readline  # noqa: F401 - line editing and history for input()
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:  # too late to stop an answer, or a line that is not wanted
            print(f"\n({HELP})", file=sys.stderr)


def _clear(conversation: Conversation, _: str) -> bool:
    conversation.clear()
    print("(cleared)", file=sys.stderr)
    return False


def _system(conversation: Conversation, text: str) -> bool:
    conversation.system = text or None
    print(f"(system message: {text})" if text else "(no system message)", file=sys.stderr)
    return False


def _exit(_: Conversation, __: str) -> bool:
    return True


# A command returns whether the chat ends. The words without a slash are those of the field's tools.
COMMANDS: dict[str, Callable[[Conversation, str], bool]] = {
    "/clear": _clear,
    "/system": _system,
    "/exit": _exit,
    "/quit": _exit,
    "clear": _clear,
    "exit": _exit,
}
