"""What can be asked of `tunesmith chat` beside a message: a table of commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.types import Medium, Modality

if TYPE_CHECKING:
    from tunesmith.engines.conversation import Conversation

__all__ = ["COMMANDS", "Command", "Leave", "Send", "Then", "command_of", "help_lines"]


@dataclass(frozen=True, slots=True)
class Send:
    """Send this text next. `role`: "user", or "tool" for the result of a call."""

    text: str
    role: str = "user"


class Leave:
    """The chat ends."""


Then: TypeAlias = Send | Leave | None
Chats: TypeAlias = Mapping[str, "Conversation"]
"""The conversations by name; one, or several that get the same messages."""


@dataclass(frozen=True, slots=True)
class Command:
    """`run` gets the conversations and the words behind the command. `others`: words that mean the same."""

    name: str
    argument: str
    what: str
    run: Callable[[Chats, str], Then]
    others: tuple[str, ...] = field(default=())


def command_of(line: str) -> tuple[Command, str] | None:
    """The command of a line, and the words behind it; None for a message. Raises UsageError for one that is unknown."""
    word, _, rest = line.partition(" ")
    found = COMMANDS.get(word if line.startswith("/") else line)
    if found is not None:
        return found, rest.strip()
    if not line.startswith("/"):
        return None
    from tunesmith.core.suggest import did_you_mean

    fix = did_you_mean(word, [name for name in COMMANDS if name.startswith("/")]) or "/help lists them"
    raise UsageError(Problem("E-CLI-019", "unknown command", got=word, fix=f"{fix}; a space before it sends it"))


def help_lines() -> list[str]:
    rows = [(f"{one.name} {one.argument}".strip(), one.what) for one in _TABLE]
    rows += [('"""', "around several lines; or end a line with \\")]
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {what}" for name, what in rows]


def _say(text: str) -> None:
    print(f"({text})", file=sys.stderr)


def _help(_: Chats, __: str) -> Then:
    print("\n".join(help_lines()), file=sys.stderr)
    return None


def _clear(chats: Chats, _: str) -> Then:
    for chat in chats.values():
        chat.clear()
    _say("cleared")
    return None


def _system(chats: Chats, text: str) -> Then:
    for chat in chats.values():
        chat.system = text or None
    _say(f"system message: {text}" if text else "no system message")
    return None


def _tools(chats: Chats, file: str) -> Then:
    from tunesmith.engines.conversation import read_tools

    tools = read_tools(Path(file).expanduser()) if file else []
    for chat in chats.values():
        chat.tools = list(tools)
    names = ", ".join(str(tool.get("function", tool).get("name")) for tool in tools)
    _say(f"tools: {names}" if names else "no tools")
    return None


def _result(_: Chats, text: str) -> Then:
    return Send(text, "tool")


def _show(kind: Modality) -> Callable[[Chats, str], Then]:
    def run(chats: Chats, file: str) -> Then:
        if not file:
            for chat in chats.values():
                chat.shown = [one for one in chat.shown if one.kind != kind]
            _say(f"no {kind} goes with the next message")
            return None
        for chat in chats.values():
            found = chat.show(kind, _unquoted(file))
        _say(f"{kind}: {_measured(found)}; it goes with the next message")
        return None

    return run


def _unquoted(file: str) -> str:
    """Terminals put quotes around names that are dropped on them."""
    return file[1:-1] if len(file) > 2 and file[0] == file[-1] and file[0] in "\"'" else file


def _measured(medium: Medium) -> str:
    facts = medium.facts
    assert facts is not None, "that is what showing is for"
    size = f"{facts.width} x {facts.height}" if facts.width else ""
    return ", ".join(filter(None, (size, f"{facts.seconds:.1f} s" if facts.seconds else "")))


def _retry(chats: Chats, _: str) -> Then:
    asked = [chat.take_back() for chat in chats.values()]
    if asked[0] is None:
        _say("nothing was asked yet")
        return None
    return Send(asked[0].content, asked[0].role)


def _raw(chats: Chats, text: str) -> Then:
    for name, chat in chats.items():
        ids = chat.prompt(text or None)
        if not ids:
            _say("nothing was asked yet")
            return None
        tokenizer = chat.engine.tokenizer  # type: ignore[attr-defined]  # who has prompts has one
        print(tokenizer.decode(ids, skip_special_tokens=False))
        _say(f"{name}: {len(ids)} tokens" if name else f"{len(ids)} tokens")
    return None


def _adapter(chats: Chats, words: str) -> Then:
    if len(chats) > 1:
        raise UsageError(Problem("E-CLI-020", "both sides are chosen by --compare", fix="chat without --compare"))
    chat = next(iter(chats.values()))
    known: tuple[str, ...] = getattr(chat.engine, "adapters", ())
    if not words:
        _say(f"adapter: {chat.adapter or 'none beside the model as configured'}; loaded: {', '.join(known) or 'none'}")
    elif words in ("off", "none"):
        chat.adapter = None
        _say("the model as configured answers")
    else:
        chat.adapter = _loaded(chat, words, known)
        _say(f"{chat.adapter} answers; /adapter off goes back")
    return None


def _loaded(chat: Conversation, words: str, known: tuple[str, ...]) -> str:
    """The name of an adapter that is loaded, or that is now: words are a name, a folder, or a name and a folder."""
    name, _, folder = words.partition(" ")
    if not folder and words in known:
        return words
    if not hasattr(chat.engine, "load_adapter"):
        return words  # the server knows, or says that it does not
    path = Path(folder.strip() or words).expanduser()
    name = name if folder else path.name
    chat.engine.load_adapter(name, str(path))
    return name


def _save(chats: Chats, file: str) -> Then:
    path = _named(file, "/save")
    for name, chat in chats.items():
        where = path.with_suffix(f".{name}{path.suffix}") if name else path
        chat.save(where)
        _say(f"saved: {where}")
    return None


def _load(chats: Chats, file: str) -> Then:
    path, asked = _named(file, "/load"), None
    for chat in chats.values():
        chat.load(path)
        asked = chat.take_back() if chat.messages and chat.messages[-1].role != "assistant" else None
    _say(f"loaded: {path}, {len(next(iter(chats.values())).messages)} messages")
    return Send(asked.content, asked.role) if asked else None


def _named(file: str, command: str) -> Path:
    if not file:
        raise UsageError(Problem("E-CLI-021", f"{command} needs a file", fix=f"write {command} chat.json"))
    return Path(file).expanduser()


def _leave(_: Chats, __: str) -> Then:
    return Leave()


_TABLE = (
    Command("/help", "", "shows this", _help),
    Command("/clear", "", "forgets the conversation", _clear, ("clear",)),
    Command("/system", "TEXT", "sets the system message; no TEXT: the default", _system),
    Command("/tools", "FILE", "the model may call these tools (JSON, as at OpenAI)", _tools),
    Command("/image", "FILE", "a picture goes with the next message; no FILE: none", _show("image")),
    Command("/audio", "FILE", "the same for sound", _show("audio")),
    Command("/video", "FILE", "the same for a video", _show("video")),
    Command("/result", "TEXT", "answers the call of a tool", _result),
    Command("/retry", "", "asks the last question again", _retry),
    Command("/raw", "[TEXT]", "shows the exact prompt, of TEXT or the last one", _raw),
    Command("/adapter", "[NAME] [FOLDER]", "another adapter answers; off: as configured", _adapter),
    Command("/save", "FILE", "writes the conversation as a row for training", _save),
    Command("/load", "FILE", "goes on with a saved conversation", _load),
    Command("/exit", "", "leaves", _leave, ("/quit", "exit")),
)
COMMANDS = {word: one for one in _TABLE for word in (one.name, *one.others)}
"""By name. The words without a slash are those of the field's tools."""
