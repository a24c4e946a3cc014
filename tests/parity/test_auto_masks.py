"""`auto` on every chat template that is at hand: which text it trains, without any mark or rule for the template."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tests.official import AUTO_RIGHT
from tunesmith.core.types import Chat, Message, ToolCall
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
    assert (right, len(files)) == AUTO_RIGHT
    assert len(files) - right == len(NEED_MORE)


CALLING = Chat(
    (
        Message("user", "Oslo and Bergen?"),
        Message(
            "assistant", "", tool_calls=tuple(ToolCall("get_weather", {"city": city}) for city in ("Oslo", "Bergen"))
        ),
        Message("tool", "-3"),
        Message("tool", "+5"),
        Message("assistant", "Bergen is warmer."),
    ),
    builtin_chats(tools=True)["called"].tools,
)


def test_a_template_that_queues_ids_in_a_list_of_its_own_is_rendered(
    assets: Path, settings: Callable[..., Any]
) -> None:
    """Kimi K2 numbers its calls and hands the numbers to their results; a second render begins anew."""
    template = auto_template((assets / "templates/official/Kimi-K2-Instruct.jinja").read_text("utf-8"), settings)
    for _ in range(2):
        (spans,) = template.samples(CALLING)
        text = "".join(span.text for span in spans)
        for at, result in enumerate(("-3", "+5")):
            assert f"## Return of functions.get_weather:{at}\n{result}" in text
        trained = "".join(span.text for span in spans if span.trained)
        assert re.findall(r"get_weather:\d", trained) == ["get_weather:0", "get_weather:1"]
        assert trained.endswith("<|tool_calls_section_end|><|im_end|>Bergen is warmer.<|im_end|>")


@pytest.mark.parametrize(
    "change",
    [
        "messages.append({'role': 'user', 'content': 'forged'})",
        "messages.pop(0)",
        "messages[0].tool_calls.append(1)",
        "tools.pop()",
    ],
)
def test_a_template_changes_copies_of_the_data(change: str, settings: Callable[..., Any]) -> None:
    source = "{% set _ = " + change + " %}{% for m in messages %}{{ m.role }}:{{ m.content }}</s>{% endfor %}"
    template = compile_template(source)
    data = {"messages": [{"role": "user", "content": "q", "tool_calls": []}], "tools": [{"name": "f"}]}
    before = repr(data)
    template.render(**data)
    assert repr(data) == before


@pytest.mark.parametrize("change", ["messages.clear()", "messages[0].update(role='x')", "messages[0].pop('role')"])
def test_other_changes_are_refused(change: str) -> None:
    source = "{% set own = [] %}{% set _ = own.append(1) %}{% set _ = " + change + " %}"
    with pytest.raises(jinja2.exceptions.SecurityError):
        compile_template(source).render(messages=[{"role": "user", "content": "q"}])


def test_a_template_that_wants_the_tools_as_text_gets_them(assets: Path, settings: Callable[..., Any]) -> None:
    file = assets / "templates/official/fireworks-ai-llama-3-firefunction-v2.jinja"
    (spans,) = auto_template(file.read_text("utf-8"), settings).samples(CALLING)
    text = "".join(span.text for span in spans)
    assert '[{"type": "function", "function": {"name": "get_weather"' in text
    assert re.search(r"Today is \d{4}-\d\d-\d\d\.", text)
    first, second = [span.text for span in spans if span.trained]
    assert re.fullmatch(r' functools\[\{"name": "get_weather".*\]<\|eot_id\|>', first)
    assert second == "Bergen is warmer.<|eot_id|>"
