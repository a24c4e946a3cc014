"""Which text is trained: replies with their stop token, under every setting, in Jinja and in declarative templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message, Origin, ToolCall
from tunesmith.render.auto import AutoTemplate
from tunesmith.render.control import ControlTokens
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import compile_template
from tunesmith.render.slot_files import load_slots
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import Span, join_text

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Old thoughts are dropped, the last reply always has one: the behaviour of Qwen3, in short.
FORGETFUL = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and loop.last %}"
    "{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
TWO_TURNS = Chat((Message("user", "q1"), Message("assistant", "a1"), Message("user", "q2"), Message("assistant", "a2")))


def auto(source: str, eos: str = "<|im_end|>", **settings: Any) -> AutoTemplate:
    words = ("<|im_start|>", "<|im_end|>", "<|end|>", "<|user|>", "<|bot|>", "<think>", "</think>", "</s>", "<s>")
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    added = [{"id": i, "content": word, "special": "think" not in word, **flags} for i, word in enumerate(words)]
    template = compile_template(source)
    control = ControlTokens(added, "\0".join(template.literals))
    return AutoTemplate(template, control, TemplateConfig(**settings), {"eos_token": eos, "bos_token": "<s>"})


def named(name: str, **settings: Any) -> SlotTemplate:
    return SlotTemplate(load_slots(name), TemplateConfig(**settings), "<s>", "</s>")


def trained(samples: list[list[Span]]) -> list[list[str]]:
    """The trained stretches of each sample."""
    found = []
    for spans in samples:
        stretches: list[str] = []
        before = False
        for span in spans:
            if span.trained:
                stretches[-1:] = [stretches[-1] + span.text] if before else [*stretches[-1:], span.text]
            before = span.trained
        found.append(stretches)
    return found


BOTH = pytest.mark.parametrize(
    "make", [lambda **s: auto(CHATML, **s), lambda **s: named("chatml", **s)], ids=["auto", "named"]
)


@BOTH
def test_replies_are_trained_with_their_stop_token_only(make: Callable[..., Any]) -> None:
    assert trained(make().samples(TWO_TURNS)) == [["a1<|im_end|>", "a2<|im_end|>"]]


@BOTH
def test_mask_history_trains_the_last_reply(make: Callable[..., Any]) -> None:
    assert trained(make(mask_history=True).samples(TWO_TURNS)) == [["a2<|im_end|>"]]


@BOTH
def test_train_on_prompt_trains_everything(make: Callable[..., Any]) -> None:
    template = make(train_on_prompt=True)
    (spans,) = template.samples(TWO_TURNS)
    assert all(span.trained for span in spans)
    assert join_text(spans) == join_text(template.prompt(TWO_TURNS, False))


@BOTH
def test_single_messages_overrule_the_mask(make: Callable[..., Any]) -> None:
    messages = list(TWO_TURNS.messages)
    messages[1] = replace(messages[1], trained=True)
    messages[3] = replace(messages[3], trained=False)
    chat = Chat(messages)
    assert trained(make().samples(chat)) == [["a1<|im_end|>"]]
    assert trained(make(mask_history=True).samples(chat)) == [["a1<|im_end|>"]]
    (spans,) = make(train_on_prompt=True).samples(chat)
    assert "".join(span.text for span in spans if not span.trained).strip() == "a2<|im_end|>"


@BOTH
def test_only_replies_can_ask_to_be_trained(make: Callable[..., Any]) -> None:
    chat = Chat((Message("user", "q", trained=True), Message("assistant", "a")), origin=Origin("rows.jsonl", 3, 4))
    with pytest.raises(RenderError, match="E-RENDER-007") as caught:
        make().samples(chat)
    assert "rows.jsonl:4" in str(caught.value)


@BOTH
def test_a_chat_without_reply_trains_nothing(make: Callable[..., Any]) -> None:
    assert trained(make().samples(Chat((Message("user", "q"),)))) == [[]]


@BOTH
def test_replies_in_a_row_and_a_reply_first(make: Callable[..., Any]) -> None:
    chat = Chat(
        (Message("assistant", "a0"), Message("user", "q"), Message("assistant", "a1"), Message("assistant", "a2"))
    )
    assert trained(make().samples(chat)) == [["a0<|im_end|>", "a1<|im_end|>", "a2<|im_end|>"]]


@BOTH
def test_default_system_is_for_chats_without_one(make: Callable[..., Any]) -> None:
    template = make(default_system="Be kind.")
    assert join_text(template.prompt(TWO_TURNS, False)).startswith("<|im_start|>system\nBe kind.<|im_end|>\n")
    own = Chat((Message("system", "Own."), *TWO_TURNS.messages))
    assert "Be kind." not in join_text(template.prompt(own, False))


@pytest.mark.parametrize(
    "make", [lambda **s: auto(FORGETFUL, **s), lambda **s: named("qwen3", **s)], ids=["auto", "named"]
)
class TestThinking:
    """The meaning of enable_thinking, and what happens to thoughts in history."""

    def test_true_trains_the_empty_thought(self, make: Callable[..., Any]) -> None:
        samples = make(enable_thinking=True).samples(Chat(TWO_TURNS.messages[:2]))
        assert trained(samples) == [["<think>\n\n</think>\n\na1<|im_end|>"]]

    def test_false_puts_the_empty_thought_into_the_prompt(self, make: Callable[..., Any]) -> None:
        chat = Chat((Message("user", "q"), Message("assistant", "a", reasoning="long thought")))
        template = make(enable_thinking=False)
        samples = template.samples(chat)
        assert trained(samples) == [["a<|im_end|>"]]
        assert "<think>\n\n</think>\n\na<|im_end|>" in join_text(samples[0])
        assert join_text(template.prompt(Chat(chat.messages[:1]), True)).endswith("<think>\n\n</think>\n\n")

    def test_null_follows_the_data(self, make: Callable[..., Any]) -> None:
        template = make(enable_thinking=None)
        without, thought = Message("assistant", "a"), Message("assistant", "a", reasoning="t")
        assert trained(template.samples(Chat((Message("user", "q"), without)))) == [["a<|im_end|>"]]
        assert trained(template.samples(Chat((Message("user", "q"), thought)))) == [
            ["<think>\nt\n</think>\n\na<|im_end|>"]
        ]

    def test_a_chat_whose_history_changes_becomes_one_sample_per_reply(self, make: Callable[..., Any]) -> None:
        template = make()
        samples = template.samples(TWO_TURNS)
        assert trained(samples) == [
            ["<think>\n\n</think>\n\na1<|im_end|>"],
            ["<think>\n\n</think>\n\na2<|im_end|>"],
        ]
        # Each sample ends as the model would have seen it: the first without what came later.
        assert "q2" not in join_text(samples[0])
        assert "<|im_start|>assistant\na1<|im_end|>" in join_text(samples[1])
        assert (template.statistics.split_chats, template.statistics.extra_samples) == (1, 1)
        assert "1 of 1 chats were split" in template.statistics.lines()[0]

    def test_the_last_reply_alone_needs_no_split(self, make: Callable[..., Any]) -> None:
        template = make(mask_history=True)
        assert trained(template.samples(TWO_TURNS)) == [["<think>\n\n</think>\n\na2<|im_end|>"]]
        assert template.statistics.split_chats == 0


def test_a_thought_goes_into_the_text_where_the_template_knows_none() -> None:
    chat = Chat((Message("user", "q"), Message("assistant", "a", reasoning="t")))
    for template in (auto(CHATML), named("chatml")):
        assert trained(template.samples(chat)) == [["<think>\nt\n</think>\n\na<|im_end|>"]]


def test_thoughts_that_a_named_template_does_not_write_are_counted() -> None:
    chat = Chat((Message("user", "q"), Message("assistant", "a", reasoning="t"), *TWO_TURNS.messages))
    for name, lost in (("deepseek3", 1), ("qwen3", 0), ("chatml", 0)):
        template = named(name)
        template.samples(chat)
        assert template.statistics.dropped_thoughts == lost, name


def test_calls_and_their_stop_token_are_trained_and_results_are_not() -> None:
    call = ToolCall("f", {"a": 1})
    chat = Chat((Message("user", "q"), Message("assistant", "", tool_calls=(call,)), Message("tool", "r")))
    chat = Chat((*chat.messages, Message("assistant", "a")), ({"type": "function", "function": {"name": "f"}},))
    written = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><|im_end|>'
    assert trained(named("qwen").samples(chat)) == [[written, "a<|im_end|>"]]
    (harmony,) = trained(named("gpt_oss").samples(chat))
    assert [stretch.endswith(stop) for stretch, stop in zip(harmony, ("<|call|>", "<|return|>"), strict=True)] == [
        True
    ] * 2
    (glm,) = trained(named("glm4_moe", enable_thinking=False).samples(chat))
    assert [stretch.endswith(stop) for stretch, stop in zip(glm, ("<|observation|>", "<|user|>"), strict=True)] == [
        True
    ] * 2


def test_text_behind_the_stop_token_is_the_templates() -> None:
    """Phi-3: a line end and the end-of-text token follow the stop token of the last reply only."""
    source = (
        "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|bot|>' }}{{ m.content + '<|end|>\\n' }}"
        "{% endfor %}{{ '<|bot|>' if add_generation_prompt else eos_token }}"
    )
    template = auto(source, eos="</s>")
    assert trained(template.samples(TWO_TURNS)) == [["a1<|end|>", "a2<|end|>"]]
    assert set(template.stops) == {"</s>", "<|end|>"}


def test_stop_tokens_in_a_row_are_trained_together() -> None:
    """Cohere: the reply ends with two tokens; generation stops at the second."""
    source = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|><|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    assert trained(auto(source).samples(TWO_TURNS)) == [["a1<|end|><|im_end|>", "a2<|end|><|im_end|>"]]


def test_an_opening_that_is_not_kept_is_not_trained_and_counted() -> None:
    """DeepSeek R1: the generation prompt ends with a thought's beginning that a finished chat has not."""
    source = CHATML.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'")
    template = auto(source)
    assert trained(template.samples(TWO_TURNS)) == [["a1<|im_end|>", "a2<|im_end|>"]]
    assert template.statistics.other_openings == 2
    assert any("opens a reply" in line for line in template.statistics.lines())


def test_the_next_turns_beginning_is_the_stop_token_where_there_is_no_other() -> None:
    """GLM 4: a reply ends where the next turn begins. The last reply gets the token that would follow."""
    source = (
        "{% for m in messages %}{{ ('<|user|>' if m.role == 'user' else '<|bot|>') + m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|bot|>' }}{% endif %}"
    )
    template = auto(source, eos="</s>")
    (spans,) = template.samples(TWO_TURNS)
    assert trained([spans]) == [["a1<|user|>", "a2<|user|>"]]
    assert join_text(spans) == "<|user|>q1<|bot|>a1<|user|>q2<|bot|>a2<|user|>"
    assert join_text(template.prompt(TWO_TURNS, False)) == "<|user|>q1<|bot|>a1<|user|>q2<|bot|>a2"
    assert template.stops == ("</s>", "<|user|>")


def test_a_template_without_stop_token_says_so() -> None:
    """Plain text: only the last reply can be ended, with the tokenizer's own end."""
    source = (
        "{% for m in messages %}{{ ('Q: ' if m.role == 'user' else 'A: ') + m.content + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'A: ' }}{% endif %}"
    )
    template = auto(source, eos="</s>")
    assert trained(template.samples(TWO_TURNS)) == [["a1\n", "a2\n</s>"]]
    assert any("no stop token" in line for line in template.statistics.lines())


def test_an_unclear_beginning_is_an_error() -> None:
    """Mistral Nemo: the last user message changes once a reply follows."""
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ '<|user|>' + ('!' if loop.last else '') + m.content }}"
        "{% else %}{{ m.content + '<|end|>' }}{% endif %}{% endfor %}"
    )
    with pytest.raises(RenderError, match="E-RENDER-002"):
        auto(source).samples(TWO_TURNS)


def test_a_refusal_of_the_template_names_row_and_fix() -> None:
    source = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
    )
    chat = Chat((Message("system", "s"), *TWO_TURNS.messages), origin=Origin("rows.jsonl", 0, 7))
    with pytest.raises(RenderError, match="E-RENDER-001") as caught:
        auto(source).samples(chat)
    message = str(caught.value)
    assert "System role not supported" in message
    assert "rows.jsonl:7" in message
    assert "first user message" in message


def test_tools_are_never_dropped_silently() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with pytest.raises(RenderError, match="E-RENDER-003"):
        auto(CHATML).samples(Chat(TWO_TURNS.messages, (tool,)))
    with pytest.raises(RenderError, match="E-RENDER-011"):
        named("chatml").samples(Chat(TWO_TURNS.messages, (tool,)))


def test_generation_marks_are_the_mask_and_obey_the_settings() -> None:
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}"
        "{% endif %}{{ '\\n' }}{% endfor %}"
    )
    assert trained(auto(source).samples(TWO_TURNS)) == [["a1<|im_end|>", "a2<|im_end|>"]]
    assert trained(auto(source, mask_history=True).samples(TWO_TURNS)) == [["a2<|im_end|>"]]


def test_a_system_message_needs_a_user_message_where_it_is_written_into_one() -> None:
    with pytest.raises(RenderError, match="E-RENDER-012"):
        named("gemma").samples(Chat((Message("system", "s"),)))


def test_text_in_the_private_use_area_comes_through() -> None:
    """The stand-ins for look-alikes step aside for texts that use the same characters."""
    private = "".join(chr(first + offset) for first in range(0x10C000, 0x10E000, 1024) for offset in (0, 5, 1022, 1023))
    chat = Chat((Message("user", private + "<|im_end|>"), Message("assistant", private)))
    (spans,) = auto(CHATML).samples(chat)
    assert join_text(spans) == (
        f"<|im_start|>user\n{private}<|im_end|><|im_end|>\n<|im_start|>assistant\n{private}<|im_end|>\n"
    )
    assert trained([spans]) == [[private + "<|im_end|>"]]
