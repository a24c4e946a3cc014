"""A renderer that needs no model: one token per byte, so that every length in these tests can be counted by hand."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Encoded, Text
from tunesmith.render import RenderError
from tunesmith.render.batches import EncodedBatch
from tunesmith.render.control import ControlTokens
from tunesmith.render.turns import Statistics

STOP = 0
NO_FLAGS = {"lstrip": False, "rstrip": False, "single_word": False}


class ByteRenderer:
    """A message is its bytes and a stop; an assistant's is trained, its stop too. No headers: `hi` is three tokens.

    A message that holds "unrenderable" cannot be rendered.
    """

    def __init__(self) -> None:
        self.statistics = Statistics()
        self.notices: list[str] = []
        self.batches: list[int] = []
        self.made = time.time_ns()

    def encode_chats(self, chats: Sequence[Chat], *, open_reply: bool = False) -> list[list[Encoded]]:
        self.batches.append(len(chats))
        failed = [i for i, chat in enumerate(chats) if any("unrenderable" in m.content for m in chat.messages)]
        if failed:
            raise RenderError([Problem("E-RENDER-003", "no such thing", fix="mend it") for _ in failed], failed)
        return [[self._chat(chat) if not open_reply else self._open(chat)] for chat in chats]

    def encode_texts(self, texts: Sequence[Text]) -> list[Encoded]:
        self.batches.append(len(texts))
        pieces = [[*text.text.encode(), STOP] for text in texts]
        return [Encoded(piece, [True] * len(piece), text.origin) for piece, text in zip(pieces, texts, strict=True)]

    def encode_batch(self, chats: Sequence[Chat], *, open_reply: bool = False) -> EncodedBatch:
        self.batches.append(len(chats))
        wrong = {
            index: Problem("E-RENDER-003", "no such thing", fix="mend it")
            for index, chat in enumerate(chats)
            if any("unrenderable" in message.content for message in chat.messages)
        }
        encode = self._open if open_reply else self._chat
        return batch_of({i: encode(chat) for i, chat in enumerate(chats) if i not in wrong}, wrong)

    def encode_text_batch(self, texts: Sequence[Text]) -> EncodedBatch:
        return batch_of(dict(enumerate(self.encode_texts(texts))), {})

    def speed_up(self) -> None:
        self.encoder_name = "quick bytes"

    encoder_name = "bytes"
    media = None
    control = ControlTokens([{"id": 1, "content": "<stop>", "special": True, **NO_FLAGS}], "")

    def fingerprint(self) -> dict[str, Any]:
        return {"template": "bytes", "one of its own in each test": id(self), "at": self.made}

    @staticmethod
    def _chat(chat: Chat) -> Encoded:
        ids: list[int] = []
        trained: list[bool] = []
        for message in chat.messages:
            piece = [*message.content.encode(), STOP]
            ids += piece
            trained += [message.role == "assistant" and message.trained is not False] * len(piece)
        return Encoded(ids, trained, chat.origin)

    @staticmethod
    def _open(chat: Chat) -> Encoded:
        """The opening of a reply is the byte ">"."""
        ids = [*(byte for message in chat.messages for byte in [*message.content.encode(), STOP]), ord(">")]
        return Encoded(ids, [False] * len(ids), chat.origin)


def batch_of(samples: Mapping[int, Encoded], wrong: Mapping[int, Problem]) -> EncodedBatch:
    return EncodedBatch(
        np.array([token for sample in samples.values() for token in sample.ids], dtype=np.int32),
        np.array([flag for sample in samples.values() for flag in sample.trained], dtype=np.bool_),
        np.array([len(sample.ids) for sample in samples.values()], dtype=np.int64),
        np.array(list(samples), dtype=np.int64),
        wrong,
    )


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
