"""Each key of the template section, from the config to the text and its mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.core.errors import ConfigError, UsageError
from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render import Renderer, make_renderer
from tunesmith.render.spans import join_text

THOUGHTS = Chat(
    (
        Message("user", "q1"),
        Message("assistant", "a1", reasoning="t1"),
        Message("user", "q2"),
        Message("assistant", "a2", reasoning="t2"),
    )
)
PLAIN = Chat(tuple(Message(message.role, message.content) for message in THOUGHTS.messages))
EMPTY = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def renderer(tokenizer: Any, template: str = "chatml", **keys: Any) -> Renderer:
    return make_renderer(load_config({"template": template, **keys}, verb="show").template, tokenizer)


def trained(renderer: Renderer, chat: Chat) -> list[str]:
    """The trained text of each sample."""
    return ["".join(span.text for span in spans if span.trained) for spans in renderer.samples(chat)]


def test_train_on_prompt(tokenizer: Any) -> None:
    assert trained(renderer(tokenizer), PLAIN) == ["a1<|im_end|>a2<|im_end|>"]
    both = renderer(tokenizer, train_on_prompt=True)
    assert trained(both, PLAIN) == [both.text(PLAIN)]
    (encoded,) = both.encode_chats([PLAIN])[0]
    assert all(encoded.trained)


def test_mask_history(tokenizer: Any) -> None:
    assert trained(renderer(tokenizer, mask_history=True), PLAIN) == ["a2<|im_end|>"]


def test_train_turns(tokenizer: Any) -> None:
    assert trained(renderer(tokenizer, train_turns="last"), PLAIN) == ["a2<|im_end|>"]
    assert trained(renderer(tokenizer, train_turns="all"), PLAIN) == ["a1<|im_end|>a2<|im_end|>"]


def test_default_system(tokenizer: Any) -> None:
    start = "<|im_start|>system\n"
    assert renderer(tokenizer, default_system="Be kind.").text(PLAIN).startswith(f"{start}Be kind.<|im_end|>\n")
    own = Chat((Message("system", "Own."), *PLAIN.messages))
    assert "Be kind." not in renderer(tokenizer, default_system="Be kind.").text(own)
    assert renderer(tokenizer, "qwen").text(PLAIN).startswith(start), "this template has a default of its own"
    assert renderer(tokenizer, "qwen", default_system="").text(PLAIN).startswith("<|im_start|>user\n")


CALLING = Chat(
    (
        Message("system", "s"),
        Message("user", "q"),
        Message("assistant", "", tool_calls=(ToolCall("f", {"a": 1}),)),
        Message("tool", "r"),
        Message("assistant", "a"),
    ),
    ({"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}},),
)


def test_tool_format(tokenizer: Any) -> None:
    """Who writes tools and calls; where they stand, and what wraps a result, stays the template's."""
    own = renderer(tokenizer, "qwen")
    other = renderer(tokenizer, "qwen", tool_format="mistral")
    assert trained(own, CALLING) == [
        '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>a<|im_end|>'
    ]
    assert trained(other, CALLING) == ['[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]<|im_end|>a<|im_end|>']
    assert other.text(CALLING).startswith("<|im_start|>system\ns\n\n[AVAILABLE_TOOLS] [")
    for one in (own, other):
        assert "<|im_start|>user\n<tool_response>\nr\n</tool_response><|im_end|>\n" in one.text(CALLING)
    (call,) = other.parse('[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}}]').tool_calls
    assert (call.name, call.arguments) == ("f", {"a": 1})


def test_tool_format_where_the_template_has_no_tools_of_its_own(tokenizer: Any) -> None:
    usual, other = renderer(tokenizer, "smollm"), renderer(tokenizer, "smollm", tool_format="qwen")
    assert trained(usual, CALLING) == ['Action: f\nAction Input: {"a": 1}<|im_end|>a<|im_end|>']
    assert usual.text(CALLING).startswith("<|im_start|>system\nsYou have access to the following tools:\n")
    assert trained(other, CALLING) == trained(renderer(tokenizer, "qwen"), CALLING)
    assert other.text(CALLING).startswith("<|im_start|>system\ns\n\n# Tools\n")
    for one in (usual, other):
        assert "<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n" in one.text(CALLING)


def test_tool_format_is_a_name_and_for_named_templates(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=r"E-RENDER-020.*qwem(.|\n)*qwen"):
        renderer(tokenizer, "qwen", tool_format="qwem")
    for template in ("auto", None):
        keys = {"model_name_or_path": "m", "template": template, "tool_format": "qwen"}
        with pytest.raises(ConfigError, match=r"E-CONFIG-021.*tool_format(.|\n)*template: qwen"):
            load_config(keys, verb="chat")


def test_enable_thinking(tokenizer: Any) -> None:
    """true: the empty thought is learnt; false: it is given, and thoughts are left out; null: as the data has it."""
    one = Chat(PLAIN.messages[:2])
    for value, learnt in ((True, EMPTY + "a1<|im_end|>"), (False, "a1<|im_end|>"), (None, "a1<|im_end|>")):
        assert trained(renderer(tokenizer, "qwen3", enable_thinking=value), one) == [learnt]
    thought = Chat(THOUGHTS.messages[:2])
    for value, learnt in ((True, "t1"), (None, "t1"), (False, None)):
        (text,) = trained(renderer(tokenizer, "qwen3", enable_thinking=value), thought)
        assert text == ("a1<|im_end|>" if learnt is None else "<think>\nt1\n</think>\n\na1<|im_end|>")
    question = Chat(PLAIN.messages[:1])
    for value, given in ((True, False), (False, True)):
        opened = renderer(tokenizer, "qwen3", enable_thinking=value).text(question, open_reply=True)
        assert opened.endswith(EMPTY) is given


def test_preserve_thinking(tokenizer: Any) -> None:
    """Thoughts of earlier turns stay in the text; left out, they go, and each reply is a sample of its own."""
    last = "<think>\nt2\n</think>\n\na2<|im_end|>"
    usual = renderer(tokenizer, "qwen3")
    assert trained(usual, THOUGHTS) == ["<think>\nt1\n</think>\n\na1<|im_end|>", last]
    assert "t1" not in join_text(usual.samples(THOUGHTS)[1])
    keeps = renderer(tokenizer, "qwen3", preserve_thinking=True)
    assert trained(keeps, THOUGHTS) == ["<think>\nt1\n</think>\n\na1<|im_end|>" + last]


def test_preserve_thinking_in_the_models_own_template(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates that know the word (GLM 4.7, Qwen 3.5) are told."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
        "{% if m.reasoning_content and (loop.last or (preserve_thinking is defined and preserve_thinking)) %}"
        "{{ '<think>\\n' + m.reasoning_content + '\\n</think>\\n\\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", source)
    assert "t1" not in renderer(tokenizer, "auto").text(THOUGHTS)
    assert "t1" in renderer(tokenizer, "auto", preserve_thinking=True).text(THOUGHTS)
