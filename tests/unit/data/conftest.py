"""A renderer that needs no model: one token per byte, so that every length in these tests can be counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Encoded, Text
from tunesmith.render import RenderError
from tunesmith.render.turns import Statistics

STOP = 0


class ByteRenderer:
    """A message is its bytes and a stop; an assistant's is trained, its stop too. No headers: `hi` is three tokens.

    A user message that holds "unrenderable" cannot be rendered.
    """

    def __init__(self) -> None:
        self.statistics = Statistics()
        self.notices: list[str] = []
        self.batches: list[int] = []

    def encode_chats(self, chats: Sequence[Chat]) -> list[list[Encoded]]:
        self.batches.append(len(chats))
        failed = [i for i, chat in enumerate(chats) if any("unrenderable" in m.content for m in chat.messages)]
        if failed:
            raise RenderError([Problem("E-RENDER-003", "no such thing", fix="mend it") for _ in failed], failed)
        return [[self._chat(chat)] for chat in chats]

    def encode_texts(self, texts: Sequence[Text]) -> list[Encoded]:
        self.batches.append(len(texts))
        pieces = [[*text.text.encode(), STOP] for text in texts]
        return [Encoded(piece, [True] * len(piece), text.origin) for piece, text in zip(pieces, texts, strict=True)]

    @staticmethod
    def _chat(chat: Chat) -> Encoded:
        ids: list[int] = []
        trained: list[bool] = []
        for message in chat.messages:
            piece = [*message.content.encode(), STOP]
            ids += piece
            trained += [message.role == "assistant"] * len(piece)
        return Encoded(ids, trained, chat.origin)


@pytest.fixture
def renderer() -> ByteRenderer:
    return ByteRenderer()


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a file into an empty working folder and return its name. Objects are written as JSON, or as JSON lines
    where the name ends in .jsonl."""
    monkeypatch.chdir(tmp_path)

    def write_file(name: str, content: Any) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content, encoding="utf-8", newline="")
        elif name.endswith(".jsonl"):
            path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
        else:
            path.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return name

    return write_file
