"""A chat with a memory, over whoever answers messages."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core import env
from tunesmith.core.errors import DataError, MissingInputError, OutputError, Problem, UsageError
from tunesmith.core.types import PLACE, Chat, Medium, Message, Modality, Origin, Prompt, ToolCall

if TYPE_CHECKING:
    from tunesmith.engines.chat import ChatEngine
    from tunesmith.media.settle import Settler

__all__ = ["Conversation", "read_tools"]


class Conversation:
    """A chat with memory over an engine.

    system   the system message; None for the template's own
    tools    JSON schemas in OpenAI's form, which every reply may call
    adapter  a loaded adapter that answers; None: the model as configured
    shown    what goes with the next message: each before its text, or in its places (PLACE) where it has as many
    """

    def __init__(self, engine: ChatEngine, system: str | None = None, *, adapter: str | None = None) -> None:
        self.engine = engine
        self.system = system
        self.adapter = adapter
        self.tools: list[Mapping[str, Any]] = []
        self.messages: list[Message] = []
        self.shown: list[Medium] = []

    # ---- asking ----

    def show(self, kind: Modality, source: str) -> Medium:
        """Have a picture, a video or a sound go with the next message. `source`: a path, or an address.

        Raises UsageError (E-MEDIA-061) where the model takes none, DataError for one that is not there or damaged.
        """
        renderer = getattr(self.engine, "renderer", None)
        if renderer is not None and renderer.media is None:
            fix = "chat with a model that sees or hears (docs/multimodal.md)"
            raise UsageError(Problem("E-MEDIA-061", "this model reads text only", got=kind, fix=fix))
        if renderer is not None:
            renderer.media.placeholder(kind)  # says which kinds it takes
        medium = _settler(Path.cwd()).settle(Medium(kind, str(Path(source).expanduser())))
        self.shown.append(medium)
        return medium

    def stream(
        self, text: str, tools: Sequence[Mapping[str, Any]] | None = None, *, role: str = "user", **sampling: Any
    ) -> Generator[str, None, int | None]:
        """Send a message and yield the answer in pieces, as the model writes it (thoughts included). Returns how many
        tokens it has, where that is known.

        The exchange is remembered when the answer is complete, or when the caller stops reading (or
        Ctrl-C) with what there is by then; if the engine fails it is not. `role` "tool": the text is the result of the
        first call that has none yet. Raises UsageError where no call waits.
        """
        asked = self._message(text, role)
        tools = self.tools if tools is None else tools
        pieces: list[str] = []
        if self.adapter is not None:
            sampling = {"adapter": self.adapter, **sampling}
        replying = self.engine.stream([*self._history(), asked], tools=tools, **sampling)
        try:
            while True:
                pieces.append(next(replying))
                yield pieces[-1]
        except StopIteration as end:
            count: int | None = end.value
        except (GeneratorExit, KeyboardInterrupt):
            replying.close()
            if pieces:
                self._remember(asked, pieces, tools)
            raise
        self._remember(asked, pieces, tools)
        return count

    def ask(self, text: str, tools: Sequence[Mapping[str, Any]] | None = None, **sampling: Any) -> str:
        """Send a user's message and return the answer without its thoughts."""
        for _ in self.stream(text, tools, **sampling):
            pass
        return self.messages[-1].content

    @property
    def thought_marks(self) -> tuple[str, str]:
        """What the model writes before and after a thought."""
        return self.engine.thought_marks

    def thinks_first(self, text: str) -> bool:
        """Whether the answer to `text` begins inside a thought: some templates open it in the prompt."""
        return self.engine.thinks_first([*self._history(), self._message(text, "user")])

    def prompt(self, text: str | None = None) -> list[int]:
        """The ids that `text` would send, or that the last answer came from; no ids before there is one.

        Raises UsageError where the prompt is written by a server.
        """
        renderer = getattr(self.engine, "renderer", None)
        if renderer is None:
            what, fix = "the server writes the prompt: it is not seen here", "chat with the model itself"
            raise UsageError(Problem("E-ENGINE-040", what, fix=fix))
        messages = self._history()
        if text is not None:
            messages.append(self._message(text, "user"))
        else:
            while messages and messages[-1].role == "assistant":
                messages.pop()
        if not any(message.role != "system" for message in messages):
            return []
        ids: list[int] = renderer.encode_prompt(messages, self.tools)
        return ids

    # ---- what was said ----

    def clear(self) -> None:
        """Forget what was said and shown; the system message stays."""
        self.messages.clear()
        self.shown.clear()

    def take_back(self) -> Message | None:
        """Forget the last exchange; returns what was asked, None where nothing was. What was shown with it goes with
        the next message."""
        while self.messages:
            message = self.messages.pop()
            if message.role != "assistant":
                self.shown = list(message.media)
                return message
        return None

    def save(self, path: Path) -> None:
        """As a row that training reads: `{"messages": [...], "tools": [...]}`. Raises OutputError."""
        row: dict[str, Any] = {"messages": [_plain(message) for message in self._history()]}
        if self.tools:
            row["tools"] = list(self.tools)
        try:
            path.write_text(json.dumps(row, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            what = f"the conversation cannot be written: {error.strerror}"
            raise OutputError(
                Problem("E-ENGINE-041", what, str(path), fix="name a file in a folder that exists")
            ) from error

    def load(self, path: Path) -> None:
        """Go on with a conversation that was saved, or that was written by hand in the same form: its messages, system
        message and tools replace those of now. Raises MissingInputError, DataError."""
        chat = _as_chat(_read(path), path)
        messages = list(chat.messages)
        self.system = messages.pop(0).content if messages and messages[0].role == "system" else None
        self.messages, self.tools = messages, list(chat.tools)
        self.shown.clear()

    def close(self) -> None:
        self.engine.close()

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _message(self, text: str, role: str) -> Message:
        if role == "user":
            if self.shown and text.count(PLACE) != len(self.shown):
                text = PLACE * len(self.shown) + text.replace(PLACE, "\ufffd")
            return Message("user", text, media=tuple(self.shown))
        calls = [call for message in self.messages for call in message.tool_calls]
        answered = sum(message.role == "tool" for message in self.messages)
        if answered >= len(calls):
            what, fix = "no call waits for a result", "/result goes with a reply that calls a tool"
            raise UsageError(Problem("E-ENGINE-042", what, fix=fix))
        call = calls[answered]
        return Message("tool", text, tool_call_id=call.id, name=call.name)

    def _history(self) -> list[Message]:
        system = [Message("system", self.system)] if self.system else []
        return [*system, *self.messages]

    def _remember(self, asked: Message, pieces: Sequence[str], tools: Sequence[Mapping[str, Any]]) -> None:
        self.messages += [asked, self.engine.parse("".join(pieces), tools)]
        if asked.role == "user":
            self.shown.clear()


def read_tools(path: Path) -> list[Mapping[str, Any]]:
    """A JSON list of tools from a file. Raises MissingInputError, DataError."""
    tools = _read(path)
    row = {"messages": [{"role": "user", "content": "?"}], "tools": tools if isinstance(tools, list) else [tools]}
    return list(_as_chat(row, path).tools)


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = f"the file cannot be read: {error.strerror}"
        raise MissingInputError(Problem("E-ENGINE-043", what, str(path), fix="name a file that exists")) from error
    except ValueError as error:
        raise DataError(Problem("E-ENGINE-044", "the file is not JSON", str(path), str(error))) from error


def _as_chat(row: Any, path: Path) -> Chat:
    from tunesmith.data.formats.openai import OpenAI
    from tunesmith.data.rows import RowError
    from tunesmith.data.settling import settled

    fix = 'write {"messages": [{"role": "user", "content": "..."}, ...], "tools": [...]}'
    if not isinstance(row, dict):
        raise DataError(Problem("E-ENGINE-044", "this is not a conversation", str(path), type(row).__name__, fix))
    turns = row.get("messages")
    answered = (
        isinstance(turns, list) and turns and isinstance(turns[-1], dict) and turns[-1].get("role") == "assistant"
    )
    try:
        example = OpenAI("sft" if answered else "prompt").example(row, Origin(str(path), 0))
        example = settled(example, _settler(path.absolute().parent).settle)
    except RowError as error:
        what = f"this is not a conversation: {error.reason}"
        raise DataError(Problem("E-ENGINE-044", what, str(path), error.got, error.fix or fix)) from error
    assert isinstance(example, Chat | Prompt), "both stages read messages"
    return example if isinstance(example, Chat) else Chat(example.messages, example.tools)


def _plain(message: Message) -> dict[str, Any]:
    """In OpenAI's form."""
    plain: dict[str, Any] = {"role": message.role, "content": _parts(message) if message.media else message.content}
    if message.reasoning is not None:
        plain["reasoning_content"] = message.reasoning
    if message.tool_calls:
        plain["tool_calls"] = [_plain_call(call, place) for place, call in enumerate(message.tool_calls)]
    plain |= {key: value for key in ("tool_call_id", "name") if (value := getattr(message, key)) is not None}
    return plain


def _parts(message: Message) -> list[dict[str, Any]]:
    media, parts = iter(message.media), list[dict[str, Any]]()
    for number, text in enumerate(message.content.split(PLACE)):
        if number:
            medium = next(media)
            parts.append({"type": medium.kind, medium.kind: medium.source})
        if text:
            parts.append({"type": "text", "text": text})
    return parts


def _settler(folder: Path) -> Settler:
    """Of media that a person names; relative paths begin at `folder`."""
    from tunesmith.media.settle import Settler

    return Settler(None, folder, env.data_cache_dir() / "media")


def _plain_call(call: ToolCall, place: int) -> dict[str, Any]:
    arguments = json.dumps(call.arguments, ensure_ascii=False)
    return {
        "id": call.id or f"call_{place}",
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    }
