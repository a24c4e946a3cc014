"""Declarative templates: which text ends a reply, and which setting of thinking each reply is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render.errors import RenderError
from tunesmith.render.slot_files import load_slots, parse_slots
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import Span, join_text

PLAIN: dict[str, Any] = {"user": "<u>{{content}}", "assistant": {"open": "<a>", "body": "{{content}}", "close": "</a>"}}
TURN = Chat((Message("user", "q"), Message("assistant", "a")))


def chat_of(*thoughts: str | None) -> Chat:
    """One turn per thought."""
    pairs = [
        (Message("user", f"q{n}"), Message("assistant", f"a{n}", reasoning=thought))
        for n, thought in enumerate(thoughts, 1)
    ]
    return Chat(tuple(message for pair in pairs for message in pair))


def template(keys: dict[str, Any], **settings: Any) -> SlotTemplate:
    return SlotTemplate(parse_slots("mine", {**PLAIN, **keys}), TemplateConfig(**settings), "<s>", "</s>")


def trained(samples: Sequence[Sequence[Span]]) -> list[str]:
    return ["".join(span.text for span in spans if span.trained) for spans in samples]


# ---- what ends a reply ----


def closed(close: str) -> dict[str, Any]:
    return {"assistant": {**PLAIN["assistant"], "close": close}}


@pytest.mark.parametrize("stop", [["{{eos}}", "</q>"], ["</q>", "{{eos}}"], None])
def test_the_tokenizers_end_is_a_stop_token_beside_others(stop: list[str] | None) -> None:
    mine = template({**closed("{{eos}}\n"), **({"stop": stop} if stop else {})})
    assert trained(mine.samples(TURN)) == ["a</s>"]
    assert mine.stops == tuple({"{{eos}}": "</s>"}.get(word, word) for word in stop or ["{{eos}}"])


@pytest.mark.parametrize(
    ("close", "stop"), [("{{eos}}", ["</q>"]), ("</a>", ["</q>"]), ("</a>", ["{{eos}}"]), ("\n", []), ("", ["</a>"])]
)
def test_a_reply_that_writes_none_of_the_stop_tokens_is_refused(close: str, stop: list[str]) -> None:
    with pytest.raises(RenderError, match=r"assistant.close: writes none of the stop tokens"):
        template({**closed(close), "stop": stop})


def test_openchat_ends_replies_with_the_tokenizers_end() -> None:
    openchat = SlotTemplate(load_slots("openchat-3.6"), TemplateConfig(), "<s>", "</s>")
    assert trained(openchat.samples(TURN)) == ["a</s>"]
    assert openchat.stops == ("</s>", "<|eot_id|>")


# ---- whether a reply thinks is told by itself ----

KEEPS = {"thinking": {"open": "<t>", "close": "</t>", "history": "keep"}, "stop": ["</a>"]}
# What the prompt writes depends on the reply, as in Laguna's template: an opened thought, or a closed one.
OPENED = {
    "assistant": {
        "open": "<a>",
        "prompt": "{% if no_thinking %}</t>{% else %}<t>{% endif %}",
        "body": "{% if thought %}<t>{{thought}}</t>{% else %}</t>{% endif %}{{content}}",
        "close": "</a>",
    },
    "stop": ["</a>"],
}


def test_a_reply_without_thought_takes_no_thought_from_earlier_ones() -> None:
    mine = template(KEEPS, enable_thinking=None)
    (spans,) = mine.samples(chat_of("t1", None))
    assert join_text(spans) == "<u>q1<a><t>t1</t>a1</a><u>q2<a>a2</a>"
    assert trained([spans]) == ["<t>t1</t>a1</a>a2</a>"]
    assert mine.statistics.dropped_thoughts == 0


def test_each_reply_answers_its_own_prompt() -> None:
    """An opening that the prompt writes is never trained, be the thought open or closed there."""
    (spans,) = template(OPENED, enable_thinking=None).samples(chat_of("t1", None, "t3"))
    assert join_text(spans) == "<u>q1<a><t>t1</t>a1</a><u>q2<a></t>a2</a><u>q3<a><t>t3</t>a3</a>"
    assert trained([spans]) == ["t1</t>a1</a>a2</a>t3</t>a3</a>"]


def test_a_chat_is_split_where_the_setting_of_a_reply_changes_the_text_before_it() -> None:
    asks = {**KEEPS, "prefix": "{% if thinking %}<think on>{% else %}<think off>{% endif %}"}
    first, second = template(asks, enable_thinking=None).samples(chat_of("t1", None))
    assert join_text(first) == "<think on><u>q1<a><t>t1</t>a1</a>"
    assert join_text(second) == "<think off><u>q1<a><t>t1</t>a1</a><u>q2<a>a2</a>"
    assert trained([first, second]) == ["<t>t1</t>a1</a>", "a2</a>"]
    (alike,) = template(asks, enable_thinking=None).samples(chat_of("t1", "t2"))
    assert trained([alike]) == ["<t>t1</t>a1</a><t>t2</t>a2</a>"]


@pytest.mark.parametrize("name", ["qwen3_6", "laguna", "nemotron3", "glm4_7", "minicpm5", "smollm3"])
def test_the_catalogs_templates_lose_no_thought_that_is_learnt(name: str) -> None:
    mine = SlotTemplate(load_slots(name), TemplateConfig(enable_thinking=None), "<s>", "</s>")
    told = "".join(trained(mine.samples(chat_of("first thought", None, "third thought"))))
    assert [told.count(word) for word in ("first thought", "third thought", "a1", "a2", "a3")] == [1] * 5
    assert mine.statistics.dropped_thoughts == 0


# ---- tools ----

TOOLS = ({"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},)
CALLING = Chat(
    (
        Message("user", "q1"),
        Message("assistant", "", tool_calls=(ToolCall("f", {"a": 1}, "id1"),)),
        Message("tool", "r1", tool_call_id="id1"),
        Message("assistant", "a1"),
        Message("user", "q2"),
        Message("assistant", "", tool_calls=(ToolCall("f", {"a": 2}, "id2"),)),
    ),
    TOOLS,
)


def named(name: str, **settings: Any) -> SlotTemplate:
    return SlotTemplate(load_slots(name), TemplateConfig(**settings), "<s>", "</s>")


def test_ids_of_calls_that_are_history_only_are_not_learnt() -> None:
    """Apriel writes a call's id once something follows it: the model itself never does."""
    apriel = named("apriel")
    samples = apriel.samples(CALLING)
    call = '\n<tool_calls>[{"name": "f", "arguments": {"a": %s}}]</tool_calls>\n<|end|>'
    assert trained(samples) == [call % 1, "a1\n<|end|>", call % 2]
    assert [join_text(spans).count('"id": "id1"') for spans in samples] == [0, 1, 1]
    assert '"id": "id2"' not in join_text(samples[2])
    assert apriel.statistics.split_chats == 1


def test_replies_that_no_token_ends_are_counted() -> None:
    """Command R+ goes on behind its calls without the token that ends a turn."""
    cohere = named("command_r_plus")
    assert [text.count("<|END_OF_TURN_TOKEN|>") for text in trained(cohere.samples(CALLING))] == [1]
    assert cohere.statistics.unstopped == 2
    (line,) = cohere.statistics.lines()
    assert "no stop token behind 2 replies" in line


def test_tools_are_described_otherwise_to_a_model_that_thinks() -> None:
    texts = [join_text(named("laguna", enable_thinking=value).prompt(CALLING, True)) for value in (True, False)]
    assert ["Wrap your thinking" in text for text in texts] == [True, False]


def test_a_chat_whose_tools_have_no_place_is_refused() -> None:
    late = Chat((*CALLING.messages[:1], Message("system", "s"), *CALLING.messages[1:]), TOOLS)
    with pytest.raises(RenderError, match=r"E-RENDER-014.*no place for the tools"):
        named("vicuna").samples(late)
    assert '"name": "f"' in join_text(named("qwen").prompt(CALLING, False))


def test_a_template_that_names_a_dialect_has_a_place_for_the_tools() -> None:
    facts = {"tools": {"dialect": "qwen"}, "stop": ["</a>"], "prefix": "{% if system %}{{system}}{% endif %}"}
    with pytest.raises(RenderError, match=r"tools: the tools have no place"):
        template(facts)
