"""Ids and labels of `auto` against `apply_chat_template`, token for token, on real tokenizers and rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests.real_chats import alpaca, glaive, reasoning, sharegpt
from tunesmith.core.types import Chat, Message
from tunesmith.render import make_renderer

TOKENIZERS = ["smollm2", "qwen3", "llama3", "llama2", "stories"]
BLANKS = ["", " ", "  ", "\n", "\n\n", " \n", "\t", "\r\n", "\n \n", "\u00a0"]


def with_blanks(chats: Sequence[Chat]) -> list[Chat]:
    """Random blanks and line ends around every text."""
    chance = random.Random(7)

    def around(text: str) -> str:
        return chance.choice(BLANKS) + text + chance.choice(BLANKS)

    return [
        replace(chat, messages=tuple(replace(message, content=around(message.content)) for message in chat.messages))
        for chat in chats
    ]


@pytest.mark.parametrize("blanks", [False, True], ids=["clean", "blanks"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_ids_equal_apply_chat_template(
    name: str,
    blanks: bool,
    alpaca_chats: list[Chat],
    tokenizer_of: Callable[[str], Any],
    settings: Callable[..., Any],
    as_dicts: Callable[..., Any],
) -> None:
    tokenizer = tokenizer_of(name)
    renderer = make_renderer(settings(), tokenizer)
    assert renderer.name == "auto"
    chats = with_blanks(alpaca_chats) if blanks else alpaca_chats
    for chat, samples in zip(chats, renderer.encode_chats(chats), strict=True):
        truth = tokenizer.apply_chat_template(as_dicts(chat.messages), tokenize=True, return_dict=False)
        (sample,) = samples
        assert list(sample.ids) == truth


@pytest.mark.parametrize(
    ("name", "before", "stop"),
    [("smollm2", "", "<|im_end|>"), ("qwen3", "<think>\n\n</think>\n\n", "<|im_end|>"), ("llama3", "", "<|eot_id|>")],
)
@pytest.mark.parametrize("blanks", [False, True], ids=["clean", "blanks"])
def test_trained_part_is_the_answer_and_its_stop_token(
    name: str,
    before: str,
    stop: str,
    blanks: bool,
    alpaca_chats: list[Chat],
    tokenizer_of: Callable[[str], Any],
    settings: Callable[..., Any],
) -> None:
    tokenizer = tokenizer_of(name)
    renderer = make_renderer(settings(), tokenizer)
    chats = with_blanks(alpaca_chats) if blanks else alpaca_chats
    for chat, (sample,) in zip(chats, renderer.encode_chats(chats), strict=True):
        answer = chat.messages[-1].content
        if name == "llama3":  # its template trims
            answer = answer.strip()
        if name == "qwen3":  # its template sets the answer off from the thought by its own line ends
            answer = answer.lstrip("\n")
        spans = renderer.samples(chat)[0]
        assert "".join(span.text for span in spans if span.trained) == before + answer + stop
        # In tokens: one block; a token that also holds the end of the header is the only thing more.
        trained = [index for index, flag in enumerate(sample.trained) if flag]
        assert trained == list(range(trained[0], trained[-1] + 1))
        assert sample.ids[trained[-1]] == tokenizer.convert_tokens_to_ids(stop)
        decoded = tokenizer.decode([sample.ids[index] for index in trained])
        assert decoded.endswith(before + answer + stop)
        assert not decoded.removesuffix(before + answer + stop).strip()


@pytest.mark.parametrize("name", ["smollm2", "qwen3", "llama3"])
def test_hostile_conversations_have_the_text_of_apply_chat_template(
    name: str,
    tokenizer_of: Callable[[str], Any],
    settings: Callable[..., Any],
    cases: dict[str, Sequence[Message]],
    as_dicts: Callable[..., Any],
) -> None:
    tokenizer = tokenizer_of(name)
    renderer = make_renderer(settings(), tokenizer)
    for case, messages in cases.items():
        rows = as_dicts(messages, inline_thoughts=name != "qwen3")
        for open_reply in (False, True):
            truth = tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=open_reply)
            assert renderer.text(Chat(messages), open_reply=open_reply) == truth, case
        if messages[-1].role == "user":
            truth = tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
            assert renderer.encode_prompt(messages) == truth, case


def test_markup_that_is_trusted_keeps_its_ids(
    tokenizer_of: Callable[[str], Any], settings: Callable[..., Any], as_dicts: Callable[..., Any]
) -> None:
    """Qwen3's <|fim_prefix|> is an added token, but neither special nor the template's: text, unless it is trusted."""
    tokenizer = tokenizer_of("qwen3")
    renderer = make_renderer(settings(), tokenizer)
    messages = (Message("user", "a <|fim_prefix|> b <|repo_name|>"), Message("assistant", "c <|file_sep|>"))
    truth = tokenizer.apply_chat_template(as_dicts(messages), return_dict=False)
    ((trusted,),) = renderer.encode_chats([Chat(messages, trusted_markup=True)])
    assert list(trusted.ids) == truth
    ((sample,),) = renderer.encode_chats([Chat(messages)])
    assert tokenizer.decode(sample.ids) == tokenizer.decode(truth)
    for token in ("<|fim_prefix|>", "<|repo_name|>", "<|file_sep|>"):
        assert tokenizer.convert_tokens_to_ids(token) in trusted.ids
        assert tokenizer.convert_tokens_to_ids(token) not in sample.ids


# 500 rows each: instructions, conversations, tools with calls and results, reasoning with tools. The own templates of
# Llama 3 and SmolLM2 write neither tools nor thoughts.
REAL_ROWS = {
    "qwen3": {alpaca: 150, sharegpt: 150, glaive: 150, reasoning: 50},
    "llama3": {alpaca: 250, sharegpt: 250},
    "smollm2": {alpaca: 250, sharegpt: 250},
}
WITH_MARKUP = {"qwen3": 2, "llama3": 0, "smollm2": 0}
"""Rows with a `</think>` in a reply's text: text here, unless it is trusted; a token by the Jinja template."""


@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", REAL_ROWS)
def test_ids_by_a_named_template_equal_apply_chat_template_on_real_rows(
    name: str,
    every: int,
    assets: Path,
    tokenizer_of: Callable[[str], Any],
    settings: Callable[..., Any],
    as_dicts: Callable[..., Any],
) -> None:
    """The whole sequence of ids by `template: qwen3`, `llama3` and `smollm2` is the one of the tokenizer's own Jinja
    template. A chat that Qwen3's template writes differently once it goes on is several samples: each is then the chat
    up to one of its replies."""
    tokenizer = tokenizer_of(name)
    renderer = make_renderer(settings(template=name), tokenizer)
    assert renderer.name == name
    chats = [chat for rows, number in REAL_ROWS[name].items() for chat in islice(rows(assets), number)]
    trusted = [any("think>" in message.content for message in chat.messages) for chat in chats]
    assert (len(chats), sum(trusted)) == (500, WITH_MARKUP[name])
    chats = [replace(chat, trusted_markup=flag) for chat, flag in zip(chats, trusted, strict=True)][::every]
    split = 0
    for chat, samples in zip(chats, renderer.encode_chats(chats), strict=True):
        replies = [index for index, message in enumerate(chat.messages) if message.role == "assistant"]
        ends = [end + 1 for end in replies] if len(samples) > 1 else [len(chat.messages)]
        split += len(samples) > 1
        for sample, end in zip(samples, ends, strict=True):
            rows = as_dicts(chat.messages[:end])
            truth = tokenizer.apply_chat_template(rows, tools=list(chat.tools) or None, return_dict=False)
            assert list(sample.ids) == truth
    assert (split > len(chats) / 5) == (name == "qwen3")
