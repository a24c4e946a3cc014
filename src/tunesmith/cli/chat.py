"""`tunesmith chat`: talk with a model on the terminal, or answer the lines of a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.chat_commands import Leave, Send, command_of
from tunesmith.cli.counted import Counted
from tunesmith.cli.output import has_colour, is_terminal
from tunesmith.cli.thoughts import Piece, split_thoughts
from tunesmith.core.errors import TunesmithError

if TYPE_CHECKING:
    from tunesmith.engines.conversation import Conversation

EPILOG = """\b
Examples:
  tunesmith chat run.yaml
  tunesmith chat run.yaml --compare
  tunesmith chat --model_name_or_path BASE --adapter_name_or_path out
  tunesmith chat run.yaml temperature=0 < questions.txt
\b
/help lists what can be asked while chatting; Ctrl-C stops an answer, Ctrl-D
leaves. In a pipe each line is a message of one conversation; answers go to
standard output.
"""

HELP = "/help lists the commands;  Ctrl-C stops an answer, Ctrl-D leaves"
DIM, RESET = "\x1b[2m", "\x1b[0m"
PROMPT, MORE = "> ", ". "
BLOCK = '"""'

app = make_app(no_args_is_help=False)


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG] [KEY=VALUE ...]")
def chat(
    context: typer.Context,
    compare: Annotated[bool, typer.Option("--compare", help="Base and tuned model side by side.")] = False,
) -> None:
    """Talk with a model, with or without an adapter.

    A training config stands for what its training saved in output_dir.
    """
    config = load(context.args, "chat")

    from tunesmith import api
    from tunesmith.core import log

    log.setup()
    with ExitStack() as stack:
        chats = api.compare(config) if compare else {"": api.chat(config)}
        for conversation in chats.values():
            stack.enter_context(conversation)
        if is_terminal(sys.stdin):
            print(HELP, file=sys.stderr)
        talk(chats, messages_of(_lines()), interactive=is_terminal(sys.stderr) and is_terminal(sys.stdin))


def talk(chats: Mapping[str, Conversation], messages: Iterator[str], *, interactive: bool = False) -> None:
    """Answer message by message until /exit or the end of input. `chats`: one, or several by name.

    `interactive`: tell the speed of each answer, and go on after an error that the user can mend (a conversation that
    has become too long); otherwise it is raised.
    """
    for message in messages:
        try:
            found = command_of(message)
            then = found[0].run(chats, found[1]) if found else Send(message.strip())
            if isinstance(then, Leave):
                return
            if then is not None:
                _answer(chats, then, show_speed=interactive)
        except TunesmithError as error:
            if not interactive:
                raise
            print(error, file=sys.stderr)


def messages_of(lines: Iterable[str]) -> Iterator[str]:
    r"""Lines as messages. Several lines are one between lines with \"\"\", and where a line ends with a backslash."""
    block: list[str] | None = None
    for line in lines:
        line = line.rstrip("\r\n")
        if block is not None and block[:1] == [BLOCK]:
            if line.rstrip().endswith(BLOCK):
                yield "\n".join([*block[1:], line.rstrip().removesuffix(BLOCK)]).strip("\n")
                block = None
            else:
                block.append(line)
        elif block is None and line.lstrip().startswith(BLOCK):
            rest = line.lstrip().removeprefix(BLOCK)
            if rest.rstrip().endswith(BLOCK):
                yield rest.rstrip().removesuffix(BLOCK)
            else:
                block = [BLOCK, rest] if rest else [BLOCK]
        elif line.endswith("\\"):
            block = [*(block or []), line.removesuffix("\\")]
        else:
            text, block = "\n".join([*(block or []), line]), None
            if text.strip():
                yield text if text.startswith(" /") else text.strip()
    if block and (rest := "\n".join(one for one in block if one != BLOCK).strip()):
        yield rest  # the end of the input ends it


def _answer(chats: Mapping[str, Conversation], send: Send, *, show_speed: bool) -> None:
    if len(chats) > 1:
        from tunesmith.cli.chat_columns import answer_side_by_side

        answer_side_by_side(chats, send, show_speed=show_speed)
    else:
        answer(next(iter(chats.values())), send, show_speed=show_speed)


def answer(conversation: Conversation, send: Send, *, show_speed: bool = False) -> None:
    """Print an answer while it is written; thoughts only on a terminal, dimmed. Ctrl-C ends it, not the program."""
    begins_in_thought = send.role == "user" and conversation.thinks_first(send.text)
    chunks = Counted(conversation.stream(send.text, role=send.role))
    pieces = split_thoughts(chunks, *conversation.thought_marks, thought=begins_in_thought)
    try:
        with closing(chunks):
            for part in _shown(pieces):
                sys.stdout.write(part)
                sys.stdout.flush()
    except KeyboardInterrupt:
        print(" (stopped)", file=sys.stderr)
    print(flush=True)
    if show_speed and (said := chunks.speed()):
        print(f"({said})", file=sys.stderr)


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


def _lines() -> Iterator[str]:
    """Lines of standard input, with a prompt and line editing on a terminal; ends at Ctrl-D."""
    if not is_terminal(sys.stdin):
        yield from sys.stdin
        return
    with suppress(ImportError):  # not on every platform
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")  # several lines that are pasted are one message
    while True:
        try:
            yield input(PROMPT)
        except EOFError:
            print()
            return
        except KeyboardInterrupt:  # too late to stop an answer, or a line that is not wanted
            print(f"\n({HELP})", file=sys.stderr)
