"""Texts of an example: all of them, hashes that stand for them, and excerpts that may be shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

from tunesmith.core.types import PLACE, Chat, Example, Feedback, Message, Preference, Prompt, Text
from tunesmith.data.lint.redact import redact

__all__ = [
    "all_messages",
    "all_texts",
    "digest",
    "excerpt",
    "media_names",
    "message_digest",
    "normalise",
    "shown",
    "spoken",
]

WIDTH = 90
_WORDS = re.compile(r"[^\w]+")


def all_messages(example: Example) -> Iterator[Message]:
    """The messages of any example, in their order; a text is none."""
    match example:
        case Text():
            return
        case Chat(messages) | Prompt(messages):
            yield from messages
        case Preference(prompt, chosen, rejected):
            yield from (*prompt, *chosen, *rejected)
        case Feedback(prompt, answer):
            yield from (*prompt, *answer)


def all_texts(example: Example) -> Iterator[str]:
    """Every string that a model may read: contents, thoughts, calls, tool schemas; not the roles."""
    if isinstance(example, Text):
        yield example.text
        return
    for message in all_messages(example):
        yield message.written or message.content
        if message.reasoning:
            yield message.reasoning
        for call in () if message.written else message.tool_calls:
            yield f"{call.name} {_plain(call.arguments)}"
    if example.tools:
        yield _plain(example.tools)


def spoken(example: Example) -> str:
    """What users and assistants said, as one text; not the system message and the tools, which many rows share."""
    if isinstance(example, Text):
        return example.text
    return "\n".join(message.content for message in all_messages(example) if message.role != "system")


def message_digest(messages: Iterable[Message]) -> int:
    """64 bits that stand for messages, their roles and media included; outer blanks do not count."""
    pieces: list[str] = []
    for message in messages:
        pieces += (message.role, (message.written or message.content).strip(), message.reasoning or "")
        pieces += media_names(message)
        if message.tool_calls and not message.written:
            pieces += (f"{call.name} {_plain(call.arguments)}" for call in message.tool_calls)
    return digest(pieces)


def media_names(message: Message) -> list[str]:
    """What tells the media of a message from others: the bytes of their files, or their names where nobody looked."""
    return [f"{one.kind} {one.facts.digest if one.facts else one.source!r}" for one in message.media]


def shown(message: Message) -> str:
    """The text of a message, with `<image>` and the like where media stand."""
    media = iter(message.media)
    return re.sub(PLACE, lambda _: f"<{next(media).kind}>", message.content) if message.media else message.content


def digest(pieces: Sequence[str]) -> int:
    """64 bits that stand for texts: of a million different rows, two collide once in thirty million times."""
    whole = "\0".join(pieces).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(whole, digest_size=8).digest(), "little")


def normalise(text: str) -> str:
    """Lower case, and one blank in place of everything that is no letter or digit."""
    return _WORDS.sub(" ", text.casefold()).strip()


def excerpt(text: str, at: int = 0, width: int = WIDTH) -> str:
    """`width` characters of a text around position `at`, on one line, with secrets hidden."""
    hidden, at = redact(text), len(redact(text[:at]))
    start = max(0, min(at - width // 3, len(hidden) - width))
    shown = " ".join(hidden[start : start + width].split())
    shown = "".join(char if char.isprintable() else "\ufffd" for char in shown)
    return ("..." if start else "") + shown + ("..." if start + width < len(hidden) else "")


def _plain(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
