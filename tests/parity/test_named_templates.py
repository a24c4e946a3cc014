"""The text of every template of the catalog, byte for byte, against the model's own template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.types import Chat, Message
from tunesmith.render.jinja import compile_template
from tunesmith.render.slot_files import load_slots
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text

# template, official Jinja, whether that takes system messages and replies in a row
OFFICIAL = [
    ("chatml", "with_generation_marks/qwen3_instruct_2507.jinja", True, True),
    ("qwen3_nothink", "with_generation_marks/qwen3_instruct_2507.jinja", True, True),
    ("qwen", "official/Qwen-Qwen2.5-7B-Instruct.jinja", True, True),
    ("qwen3", "official/Qwen-Qwen3-0.6B.jinja", True, True),
    ("llama3", "with_generation_marks/llama3.jinja", True, True),
    ("gemma", "official/google-gemma-2-2b-it.jinja", False, False),
    ("gemma", "with_generation_marks/gemma3.jinja", True, False),
]
BOS, EOS = "{BOS}", "{EOS}"


@pytest.mark.parametrize(
    ("name", "official", "takes_system", "takes_rows"), OFFICIAL, ids=[f"{row[0]}:{row[1]}" for row in OFFICIAL]
)
def test_text_equals_the_official_template(
    name: str,
    official: str,
    takes_system: bool,
    takes_rows: bool,
    assets: Path,
    settings: Callable[..., Any],
    cases: dict[str, Sequence[Message]],
    as_dicts: Callable[..., Any],
) -> None:
    source = compile_template((assets / "templates" / official).read_text(encoding="utf-8"))
    ours = SlotTemplate(load_slots(name), settings(), BOS, EOS)
    knows_thoughts = "reasoning_content" in source.names
    for case, messages in cases.items():
        if (messages[0].role == "system" and not takes_system) or (case == "replies_in_a_row" and not takes_rows):
            continue
        for open_reply in (False, True) if messages[-1].role == "user" else (False,):
            truth = source.render(
                messages=as_dicts(messages, inline_thoughts=not knows_thoughts),
                bos_token=BOS,
                eos_token=EOS,
                add_generation_prompt=open_reply,
            )
            assert join_text(ours.prompt(Chat(messages), open_reply)) == truth, case


def test_an_open_reply_without_thinking_equals_the_official_template(
    assets: Path, settings: Callable[..., Any], cases: dict[str, Sequence[Message]], as_dicts: Callable[..., Any]
) -> None:
    source = compile_template((assets / "templates/official/Qwen-Qwen3-0.6B.jinja").read_text(encoding="utf-8"))
    ours = SlotTemplate(load_slots("qwen3"), settings(enable_thinking=False), None, EOS)
    messages = cases["open_question"]
    truth = source.render(messages=as_dicts(messages), add_generation_prompt=True, enable_thinking=False)
    assert join_text(ours.prompt(Chat(messages), True)) == truth
