"""`auto` on every chat template that is at hand: which text it trains, without any mark or rule for the template."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.types import Chat, Message
from tunesmith.render.auto import AutoTemplate
from tunesmith.render.cases import builtin_chats
from tunesmith.render.control import ControlTokens
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import compile_template
from tunesmith.render.spans import Span

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOKENS = re.compile(
    r"<\|[^|<>]{1,40}\|>|<｜[^｜]{1,40}｜>|</?[a-z_]+(?::[a-z_]+)?>|\[/?[A-Z_]+\]|<\|[A-Za-z_]+>|<[A-Za-z_]+\|>"
    r"|\]~!?b[\]\[]|\[e~\[|〈\|EOS\|〉"
)

# Templates that need more than a chat: tools in every chat, or the text of functions and a date.
NEED_MORE = {
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use",
    "fireworks-ai-llama-3-firefunction-v2",
}
# RWKV's template ends its turns with blank lines, no token: only the last reply can be ended, with the end of text.
NO_STOP_TOKEN = {"llama-cpp-rwkv-world"}


def auto_template(source: str, settings: Callable[..., Any]) -> AutoTemplate:
    """The template with a tokenizer that has every token-like word in it as a special token."""
    template = compile_template(source)
    words = sorted({"<s>", "</s>", *TOKENS.findall("\0".join(template.literals))})
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    added = [
        {"id": i, "content": word, "special": re.search(r"[|｜\[\]]|turn|sentence|/?s>", word) is not None, **flags}
        for i, word in enumerate(words)
    ]
    return AutoTemplate(template, ControlTokens(added, "\0".join(template.literals)), settings(), SPECIAL)


def fault(template: AutoTemplate, chat: Chat, samples: Sequence[Sequence[Span]], has_stop: bool) -> str | None:
    """What is wrong with a mask: a reply that is not trained, text of others that is, or a missing stop token."""
    trained = "\0".join("".join(span.text for span in spans if span.trained) for spans in samples)
    at = 0
    for message in chat.messages:
        text = message.content.strip()
        if message.role == "assistant":
            at = trained.find(text, at)
            if at < 0:
                return f"the reply {text!r} is not trained"
            at += len(text)
        elif len(text) > 2 and text in trained and not any(text in one.content for one in replies(chat)):
            return f"the text {text!r} of the {message.role} is trained"
    for spans in samples if has_stop else ():
        text = "".join(span.text for span in spans if span.trained).rstrip("\n")
        if text and not any(text.endswith(stop) for stop in template.stops):
            return f"no stop token behind {text[-20:]!r}"
    return None


def replies(chat: Chat) -> list[Message]:
    return [message for message in chat.messages if message.role == "assistant"]


def test_masks_are_right_on_every_official_template_that_takes_a_plain_chat(
    assets: Path, settings: Callable[..., Any]
) -> None:
    files = sorted((assets / "templates" / "official").glob("*.jinja"))
    right = 0
    for file in files:
        template = auto_template(file.read_text(encoding="utf-8"), settings)
        if file.stem in NEED_MORE:
            with pytest.raises(RenderError):
                template.samples(builtin_chats()["one_turn"])
            continue
        for case, chat in builtin_chats().items():
            if not replies(chat):
                continue
            try:
                samples = template.samples(chat)
            except RenderError:
                assert case not in ("one_turn", "two_turns"), f"{file.stem} refuses a plain chat"
                continue
            wrong = fault(template, chat, samples, has_stop=file.stem not in NO_STOP_TOKEN)
            assert wrong is None, f"{file.stem}, {case}: {wrong}"
        right += 1
    # 50 files, 4 of which need more than a chat.
    assert (len(files), right) == (50, 46)
