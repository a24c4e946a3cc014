"""Truths to compare rendering with: official templates, tokenizers of other models, transformers itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message
from tunesmith.render.cases import builtin_chats

_MESSAGES = {name: tuple(chat.messages) for name, chat in builtin_chats().items()}


def _as_dicts(messages: Sequence[Message], *, inline_thoughts: bool = False) -> list[dict[str, Any]]:
    """Messages as transformers takes them. `inline_thoughts`: for templates that know no separate reasoning."""
    rows = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.reasoning and inline_thoughts:
            row["content"] = f"<think>\n{message.reasoning}\n</think>\n\n{message.content}"
        elif message.reasoning is not None and not inline_thoughts:
            row["reasoning_content"] = message.reasoning
        if message.tool_calls:
            row["tool_calls"] = [
                {"type": "function", "id": call.id, "function": {"name": call.name, "arguments": dict(call.arguments)}}
                for call in message.tool_calls
            ]
        row |= {key: value for key in ("name", "tool_call_id") if (value := getattr(message, key)) is not None}
        rows.append(row)
    return rows


_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Weather of a city: <b>now</b> & "soon".',
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="session")
def cases() -> dict[str, tuple[Message, ...]]:
    """The hostile conversations of the catalog."""
    return _MESSAGES


@pytest.fixture(scope="session")
def as_dicts() -> Callable[..., list[dict[str, Any]]]:
    return _as_dicts


@pytest.fixture(scope="session")
def tool() -> dict[str, Any]:
    return _TOOL


@pytest.fixture(scope="session")
def settings() -> Callable[..., TemplateConfig]:
    return TemplateConfig


@pytest.fixture(scope="session")
def tokenizer_of(request: pytest.FixtureRequest, assets: Path) -> Callable[[str], Any]:
    """A real tokenizer by a short name, loaded once."""
    loaded: dict[str, Any] = {}
    folders = {
        "qwen3": assets / "tokenizers" / "qwen3",
        "llama3": assets / "tokenizers" / "llama3",
        "llama2": assets / "tokenizers" / "llama2_spm",
        "stories": assets / "models" / "stories260K",
    }
    own_template = {
        # SentencePiece tokenizers without a template of their own: Llama 2's, which writes blanks beside its marks
        "llama2": assets / "templates" / "older" / "llama-2-chat.jinja",
        "stories": assets / "templates" / "older" / "llama-2-chat.jinja",
    }

    def load(name: str) -> Any:
        if name not in loaded:
            from transformers import AutoTokenizer

            folder = request.getfixturevalue("smollm2") if name == "smollm2" else folders[name]
            loaded[name] = AutoTokenizer.from_pretrained(folder, clean_up_tokenization_spaces=False)
            if name in own_template:
                loaded[name].chat_template = own_template[name].read_text(encoding="utf-8")
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def alpaca_chats(assets: Path) -> list[Chat]:
    rows = json.loads((assets / "data" / "sft" / "alpaca_en_demo.json").read_text(encoding="utf-8"))[:200]
    return [
        Chat(
            (
                Message("user", row["instruction"] + ("\n" + row["input"] if row["input"] else "")),
                Message("assistant", row["output"]),
            )
        )
        for row in rows
    ]
