"""Our Jinja dialect and masks against transformers', on every official chat template that is at hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest

from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render import make_renderer
from tunesmith.render.auto import AutoTemplate
from tunesmith.render.control import ControlTokens
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import compile_template
from tunesmith.render.spans import join_text

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
TOKENS = re.compile(r"<\|[^|<>]{1,40}\|>|<｜[^｜]{1,40}｜>|</?[a-z_]+>|\[/?[A-Z_]+\]|<\|[A-Z_]+\|>")
CALL = ToolCall("get_weather", {"city": "Tromsø"}, "abcdefghi")
TOOL_CHAT = (
    Message("user", "Weather?"),
    Message("assistant", "", tool_calls=(CALL,)),
    Message("tool", '{"t": 3}', tool_call_id="abcdefghi", name="get_weather"),
    Message("assistant", "Three."),
)


def auto_template(source: str, settings: Callable[..., Any]) -> AutoTemplate:
    """The template with a tokenizer that has every token-like word in it as an added token."""
    template = compile_template(source)
    words = sorted({"<s>", "</s>", *TOKENS.findall("\0".join(template.literals))})
    added = [
        {"id": i, "content": word, "special": "|" in word, "lstrip": False, "rstrip": False, "single_word": False}
        for i, word in enumerate(words)
    ]
    return AutoTemplate(template, ControlTokens(added, "\0".join(template.literals)), settings(), SPECIAL)


@pytest.mark.slow
def test_text_equals_transformers_on_every_official_template(
    assets: Path,
    settings: Callable[..., Any],
    cases: dict[str, Sequence[Message]],
    as_dicts: Callable[..., Any],
    tool: dict[str, Any],
) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    folder = assets / "templates"
    files = sorted([*folder.glob("official/*.jinja"), *folder.glob("with_generation_marks/*.jinja")])
    chats = {**{name: (messages, ()) for name, messages in cases.items()}, "tools": (TOOL_CHAT, (tool,))}
    compared = 0
    for file in files:
        source = file.read_text(encoding="utf-8")
        ours = auto_template(source, settings)
        thinking = {"enable_thinking": True} if "enable_thinking" in ours.template.variables else {}
        for case, (messages, tools) in chats.items():
            rows = as_dicts(messages, inline_thoughts=ours.thought_form == "text")
            for row in rows:
                if "reasoning_content" in row:
                    row["thinking"] = row["reasoning_content"]
                for call in row.get("tool_calls", ()):
                    if ours.arguments_as_text:
                        call["function"]["arguments"] = '{"city": "Tromsø"}'
                if row.get("reasoning_content") and ours.thought_form == "blocks":
                    row["content"] = [
                        {"type": "thinking", "thinking": row["reasoning_content"]},
                        {"type": "text", "text": row["content"]},
                    ]
                if row["role"] == "assistant" and ours.thought_form == "text":  # the template's own words for thoughts
                    opening, closing = ours.thinking
                    row["content"] = row["content"].replace("<think>", opening).replace("</think>", closing)
                if ours.takes_parts_only and isinstance(row["content"], str):
                    row["content"] = [{"type": "text", "text": row["content"]}]
            try:
                (truth,), _ = render_jinja_template(
                    [rows], tools=list(tools) or None, chat_template=source, **SPECIAL, **thinking
                )
            except (jinja2.TemplateError, TypeError, ValueError, LookupError, AttributeError):
                # transformers lets no template change its own lists, and gives tools as data alone.
                if tools and (ours.template.changes_lists or "functions" in ours.template.variables):
                    assert "get_weather" in join_text(ours.prompt(Chat(messages, tools), False))
                    continue
                with pytest.raises(RenderError):
                    ours.prompt(Chat(messages, tools), False)
                continue
            if tools and ours.template.variables.isdisjoint(("tools", "functions")):  # the tools would be dropped
                with pytest.raises(RenderError, match="E-RENDER-003"):
                    ours.prompt(Chat(messages, tools), False)
                continue
            assert join_text(ours.prompt(Chat(messages, tools), False)) == truth, (file.name, case)
            compared += 1
    # 95 templates x 20 chats, less those that a template refuses: far more than half must have been compared.
    assert compared > len(files) * len(chats) * 0.6


# Training variants whose marks mean what a render diff means. The others also mark the header (DeepSeek V3, gpt-oss,
# Qwen 2.5's line end), what their generation prompt writes (Nemotron 3, Qwen 3.5 and 3.6: <think>), the end-of-text
# token behind the stop token (Phi 3), or take no plain text (LLaVA).
SAME_MARKS = [
    *("cohere2_training", "cohere_training", "gemma3_training", "gemma_training", "glm4moe_training"),
    *("lfm2_training", "llama3_training", "qwen2_5_vl_training", "qwen3_instruct_2507_training"),
    *("qwen3_training", "qwen3_vl_training"),
]


@pytest.mark.parametrize("name", SAME_MARKS)
def test_render_diff_equals_generation_marks(
    name: str, assets: Path, settings: Callable[..., Any], cases: dict[str, Sequence[Message]]
) -> None:
    source = (assets / "templates" / "with_generation_marks" / f"{name}.jinja").read_text(encoding="utf-8")
    marked = auto_template(source, settings)
    # The same template without its marks: the mask must come from the render diff.
    bare = auto_template(re.sub(r"\{%-?\s*(end)?generation\s*-?%\}", "{%- if true %}{%- endif %}", source), settings)
    assert marked.template.has_marks
    assert not bare.template.has_marks
    for case in ("one_turn", "two_turns", "blanks_around", "blanks_in_history", "unicode", "thought"):
        (by_marks,), (by_diff,) = marked.samples(Chat(cases[case])), bare.samples(Chat(cases[case]))
        assert join_text(by_marks) == join_text(by_diff)
        told = [[span.text for span in spans if span.trained] for spans in (by_marks, by_diff)]
        # Marks may take in the line end behind the stop token; no model is ever asked to write it.
        assert [text.rstrip("\n") for text in told[0]] == told[1], case


def test_own_marks_equal_those_of_transformers(
    assets: Path,
    settings: Callable[..., Any],
    tokenizer_of: Callable[[str], Any],
    cases: dict[str, Sequence[Message]],
    as_dicts: Callable[..., Any],
) -> None:
    tokenizer = tokenizer_of("qwen3")
    before = tokenizer.chat_template
    file = assets / "templates" / "with_generation_marks" / "qwen3_training.jinja"
    tokenizer.chat_template = file.read_text(encoding="utf-8")
    try:
        renderer = make_renderer(settings(), tokenizer)
        for case, messages in cases.items():
            rows = as_dicts(messages)
            truth = tokenizer.apply_chat_template(rows, return_dict=True, return_assistant_tokens_mask=True)
            ((sample,),) = renderer.encode_chats([Chat(messages)])
            assert list(sample.ids) == truth["input_ids"], case
            assert list(map(int, sample.trained)) == truth["assistant_masks"], case
    finally:
        tokenizer.chat_template = before
