"""Chat templates that are written from the catalog's templates render what those render."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render.checking import builtin_chats
from tunesmith.render.compare import BOS, EOS, compare
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import compile_template
from tunesmith.render.jinja_facts import EMPTY, MESSAGE, OUTER, REPLY, USER
from tunesmith.render.jinja_tools import JinjaTools
from tunesmith.render.slot_files import SlotFile, load_slots, template_names
from tunesmith.render.slot_text import FACTS
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text
from tunesmith.render.to_jinja import jinja_of


def loadable() -> list[SlotFile]:
    found = []
    for name in template_names():
        try:
            found.append(load_slots(name))
        except RenderError:  # one without a source
            continue
    return found


@pytest.mark.parametrize("slots", loadable(), ids=lambda slots: slots.name)
def test_the_text_is_that_of_the_template(slots: SlotFile) -> None:
    source = compile_template(jinja_of(slots))
    kinds: Counter[str] = Counter()
    tools = builtin_chats(tools=True) if JinjaTools.of(slots) else {}
    for case, chat in {**builtin_chats(), **tools}.items():
        for outcome in compare(slots, source, chat):
            assert outcome.kind in ("equal", "refused"), (case, outcome.way, outcome.ours, outcome.theirs)
            kinds[outcome.kind] += 1
    assert kinds["equal"] > kinds["refused"]


def test_every_fact_is_known() -> None:
    for facts in (MESSAGE, USER, REPLY, OUTER, EMPTY):
        assert facts.keys() == FACTS.keys()


WRITTEN = {"granite4", "ling", "mistral", "mistral_v7", "qwen"}
"""Dialects that a Jinja can write: tools and calls as JSON on one line. The others have markup of their own, number
their calls or name the function in a result, which needs more than the template's data; they are refused."""


def test_tools_are_written_or_refused() -> None:
    counts: Counter[bool] = Counter()
    for slots in loadable():
        if not slots.dialect:
            continue
        written = slots.dialect in WRITTEN
        assert (JinjaTools.of(slots) is not None) == written, (slots.name, slots.dialect)
        counts[written] += slots.dialect != "default"  # names without a form of their own, which have LlamaFactory's
        if not written:
            source = compile_template(jinja_of(slots))
            outcomes = [found for chat in builtin_chats(tools=True).values() for found in compare(slots, source, chat)]
            assert {outcome.theirs for outcome in outcomes} == {None}, slots.name
    assert counts[True] / counts.total() > 0.3, counts


@pytest.mark.parametrize("name", ["qwen", "mistral", "granite4"])
@pytest.mark.parametrize("as_text", [False, True])
def test_transformers_writes_the_same_calls(name: str, as_text: bool) -> None:
    slots = load_slots(name)
    settings = TemplateConfig(template=name)
    template = SlotTemplate(slots, settings, BOS, EOS)
    for case, chat in builtin_chats(tools=True).items():
        expected = join_text(template.prompt(chat, False))
        tools = [dict(tool) for tool in chat.tools]
        assert by_transformers(jinja_of(slots, settings), chat, as_text, tools=tools) == expected, case


def by_transformers(source: str, chat: Chat, as_text: bool = False, **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rows: list[dict[str, Any]] = [{"role": message.role, "content": message.content} for message in chat.messages]
    for row, message in zip(rows, chat.messages, strict=True):
        if message.reasoning is not None:
            row["reasoning_content"] = message.reasoning
        if message.tool_calls:
            row["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": _arguments(call, as_text)}}
                for call in message.tool_calls
            ]
    (text,), _ = render_jinja_template([rows], chat_template=source, bos_token=BOS, eos_token=EOS, **variables)
    return str(text)


def _arguments(call: ToolCall, as_text: bool) -> Any:
    return json.dumps(call.arguments, ensure_ascii=False) if as_text else dict(call.arguments)


@pytest.mark.parametrize("name", ["alpaca", "gemma", "llama3", "mistral", "qwen3", "smollm2"])
def test_transformers_renders_the_same(name: str) -> None:
    slots = load_slots(name)
    settings = TemplateConfig(template=name)
    template = SlotTemplate(slots, settings, BOS, EOS)
    compared = 0
    for case, chat in builtin_chats().items():
        try:
            expected = join_text(template.prompt(chat, False))
        except RenderError:
            continue
        assert by_transformers(jinja_of(slots, settings), chat) == expected, case
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("thinking", [True, False, None])
@pytest.mark.parametrize("system", ["Be brief.\n{{x}} 'y' \\n", "", None])
@pytest.mark.parametrize("name", ["smollm2", "qwen3", "youtu", "gemma"])
def test_what_a_run_sets_holds_where_nothing_is_said(name: str, system: str | None, thinking: bool | None) -> None:
    slots = load_slots(name)
    settings = TemplateConfig(
        template=name, default_system=system, enable_thinking=thinking, preserve_thinking=thinking is None
    )
    template = SlotTemplate(slots, settings, BOS, EOS)
    source = jinja_of(slots, settings)
    for case in ("one_turn", "system", "thought", "thought_in_history"):
        chat = builtin_chats()[case]
        assert by_transformers(source, chat) == join_text(template.prompt(chat, False)), case
    question = Chat((Message("user", "Hi"),))
    asked = by_transformers(source, question, add_generation_prompt=True)
    assert asked == join_text(template.prompt(question, True))


def test_what_it_cannot_say_is_refused_with_a_sentence() -> None:
    import jinja2

    source = jinja_of(load_slots("chatml"))
    question = {"role": "user", "content": "Hi"}
    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    template = compile_template(source)
    for variables in ({"messages": [question], "tools": [tool]}, {"messages": [question, call]}):
        with pytest.raises(jinja2.TemplateError, match="this chat template writes no tool"):
            template.render(**variables)
    assert len(source.splitlines()) < 40
    assert "{{- '<|im_start|>user\\n' ~ content ~ '<|im_end|>\\n' }}" in source
