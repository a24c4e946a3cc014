"""What named templates write around media is what the models' own templates write there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.media_families import CASES
from tests.official import official_source
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import PLACE, Chat, Medium, Message, Modality
from tunesmith.models.media import media_family_of
from tunesmith.render.compare import BOS, EOS
from tunesmith.render.jinja import compile_template
from tunesmith.render.places import part_list
from tunesmith.render.slot_files import load_slots
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text
from tunesmith.render.to_jinja import jinja_of

_TOKENS = {"qwen2_vl": "<|image_pad|>", "gemma3": "<start_of_image>", "gemma4": "<|image|>", "mistral3": "[IMG]"}
_PAIRS = [
    ("qwen2_vl", "with_generation_marks/qwen2_5_vl.jinja", "qwen2_vl"),
    ("qwen3_vl_nothink", "with_generation_marks/qwen3_vl.jinja", "qwen2_vl"),
    ("qwen3_5", "official/Qwen3.5-4B.jinja", "qwen2_vl"),
    ("qwen3_6", "with_generation_marks/qwen3_6.jinja", "qwen2_vl"),
    ("gemma3", "with_generation_marks/gemma3.jinja", "gemma3"),
    ("gemma4", "official/google-gemma-4-31B-it.jinja", "gemma4"),
    ("mistral_small", "official/Mistral-Small-3.2-24B-Instruct-2506.jinja", "mistral3"),
    ("ministral3", "official/mistralai-Ministral-3-14B-Reasoning-2512.jinja", "mistral3"),
]
_QUESTIONS = {
    "first": f"{PLACE}What is this?",
    "line": f"{PLACE}\nWhat is this?",
    "last": f"What is this? {PLACE}",
    "within": f"Between {PLACE} and {PLACE} is a line.",
    "alone": PLACE,
    "side by side": f"{PLACE}{PLACE} Which?",
}


def _chat(question: str) -> list[Message]:
    media = [Medium("image", "x.png")] * question.count(PLACE)
    return [
        Message("user", "Hello!"),
        Message("assistant", "Hi."),
        Message("user", question, media=media),
        Message("assistant", "A cat."),
        Message("user", "Thanks."),
    ]


def _by_jinja(source: str, messages: Sequence[Message]) -> str:
    plain: list[dict[str, Any]] = [
        {"role": one.role, "content": part_list(one, str) if one.media else one.content} for one in messages
    ]
    variables = {"bos_token": BOS, "eos_token": EOS, "tools": None, "enable_thinking": False}
    return compile_template(source).render(messages=plain, **variables)


def _around(family: str) -> str:
    facts = media_family_of(CASES[family].processor)
    return facts.around.get("image", "{}").replace("{}", _TOKENS[family])


@pytest.mark.parametrize(("name", "file", "family"), _PAIRS, ids=[pair[0] for pair in _PAIRS])
def test_text_around_images_is_the_models_own(name: str, file: str, family: str, assets: Path) -> None:
    def placeholder(kind: Modality, number: int) -> str:
        return _around(family)

    template = SlotTemplate(load_slots(name), TemplateConfig(enable_thinking=False), BOS, EOS, placeholder)
    source = official_source(file, assets)
    different = {}
    for case, question in _QUESTIONS.items():
        messages = _chat(question)
        own, written = _by_jinja(source, messages), join_text(template.prompt(Chat(messages), False))
        if own != written:
            different[case] = (own, written)
    assert different == {}


@pytest.mark.parametrize(("name", "family"), [*((pair[0], pair[2]) for pair in _PAIRS), ("ernie_vl", "ernie")])
def test_what_is_saved_writes_the_same_around_images(name: str, family: str) -> None:
    around = "Picture {n}:<|IMAGE_START|>{}<|IMAGE_END|>" if family == "ernie" else _around(family)

    def placeholder(kind: Modality, number: int) -> str:
        return around.replace("{n}", str(number))

    settings = TemplateConfig(enable_thinking=False)
    slots = load_slots(name)
    saved = jinja_of(slots, settings, {"image": around})
    template = SlotTemplate(slots, settings, BOS, EOS, placeholder)
    for question in _QUESTIONS.values():
        messages = [*_chat(question), Message("assistant", "Bye."), *_chat(question)[2:3]]
        assert _by_jinja(saved, messages) == join_text(template.prompt(Chat(messages), False))
