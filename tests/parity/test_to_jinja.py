"""Chat templates that are written from the catalog's templates render what those render."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.real_calls import real_cases
from tests.tool_calls import Case, cases
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render.checking import builtin_chats
from tunesmith.render.compare import BOS, EOS, compare
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import compile_template
from tunesmith.render.jinja_facts import EMPTY, MESSAGE, OUTER, REPLY, USER
from tunesmith.render.jinja_forms import FORMS
from tunesmith.render.jinja_tools import JinjaTools
from tunesmith.render.slot_files import SlotFile, load_slots, template_names
from tunesmith.render.slot_text import FACTS
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text
from tunesmith.render.to_jinja import jinja_of
from tunesmith.render.tools import DIALECTS, get_dialect

RELAXED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
    "database": None,
}


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


def test_every_template_with_tools_writes_them() -> None:
    assert [slots.name for slots in loadable() if slots.dialect and not JinjaTools.of(slots)] == []


def test_every_tool_form_is_said() -> None:
    assert set(FORMS) == set(DIALECTS)


def offered(dialect: str, tools: Sequence[Any]) -> list[Any]:
    """DeepSeek V3.1's form has calls alone: both refuse a list of tools."""
    return [] if dialect == "deepseek_v3_1" else list(tools)


@pytest.mark.parametrize("dialect", FORMS)
def test_calls_of_all_kinds_are_written_as_the_dialect_writes_them(dialect: str) -> None:
    """With strings that look like numbers, quotes, line ends, the dialect's markup, nested objects. Where the dialect
    refuses, because it could not read the call back, another tool may still write it."""
    slots = load_slots("chatml", dialect)
    source = compile_template(jinja_of(slots))
    kinds: Counter[str] = Counter()

    @settings(max_examples=40, **RELAXED)
    @given(case=cases(get_dialect(dialect)))
    def check(case: Case) -> None:
        reply = Message("assistant", case.content, tool_calls=tuple(case.calls))
        results = [Message("tool", f"of {call.name}", tool_call_id=call.id) for call in reversed(case.calls)]
        chat = Chat(
            (Message("user", "Do."), reply, *results, Message("assistant", "Done.")), offered(dialect, case.tools)
        )
        for outcome in compare(slots, source, chat):
            kinds[outcome.kind] += 1
            assert outcome.kind in ("equal", "refused", "strict"), (outcome.ours, outcome.theirs)

    check()
    assert kinds["equal"] > 0.6 * kinds.total(), kinds


@pytest.mark.parametrize("dialect", FORMS)
def test_real_tools_and_calls_are_written_as_the_dialect_writes_them(dialect: str, assets: Path) -> None:
    slots = load_slots("chatml", dialect)
    source = compile_template(jinja_of(slots))
    kinds: Counter[str] = Counter()
    for case in real_cases(assets)[::12]:
        ids = [f"abcdefgh{at % 10}" for at in range(len(case.calls))]
        calls = tuple(replace(call, id=name) for call, name in zip(case.calls, ids, strict=True))
        tools = [tool if "function" in tool else {"type": "function", "function": tool} for tool in case.tools]
        chat = Chat((Message("user", "Do."), Message("assistant", "", tool_calls=calls)), offered(dialect, tools))
        for outcome in compare(slots, source, chat):
            kinds[outcome.kind] += 1
            assert outcome.kind in ("equal", "refused", "strict"), (case.where, outcome.ours, outcome.theirs)
    assert kinds["equal"] > 0.6 * kinds.total(), kinds


def test_calls_that_a_jinja_cannot_take_are_refused_with_a_sentence() -> None:
    import jinja2

    question = {"role": "user", "content": "Hi"}
    call: dict[str, Any] = {"type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    other = {"type": "function", "function": {"name": "f", "arguments": {"a": 1}}, "id": "short"}

    def refusal(dialect: str, *calls: dict[str, Any]) -> str:
        source = compile_template(jinja_of(load_slots("chatml", dialect)))
        with pytest.raises(jinja2.TemplateError) as refused:
            source.render(messages=[question, {"role": "assistant", "content": "", "tool_calls": list(calls)}])
        return str(refused.value)

    assert "must be an object, not JSON text" in refusal("qwen3_coder", call)
    assert "nine letters or digits" in refusal("mistral_v3", other)
    assert "one tool call in a reply" in refusal("glm4", call, call)


JSON_CALLS = ("qwen", "mistral", "granite4", "alpaca", "kimi_k2", "gpt_oss", "gigachat3", "functionary", "hermes")
MARKUP_CALLS = ("qwen3_coder", "glm4_7", "minimax2", "lfm2", "nemotron3", "seed_oss", "deepseek4", "gemma4")


@pytest.mark.parametrize(
    ("name", "as_text"),
    [*((name, text) for name in JSON_CALLS for text in (False, True)), *((name, False) for name in MARKUP_CALLS)],
)
def test_transformers_writes_the_same_calls(name: str, as_text: bool) -> None:
    slots = load_slots(name)
    config = TemplateConfig(template=name)
    template = SlotTemplate(slots, config, BOS, EOS)
    compared = 0
    for case, chat in builtin_chats(tools=True).items():
        try:
            expected = join_text(template.prompt(chat, False))
        except RenderError:  # several calls, or text beside them, in a form that has no room for it
            continue
        tools = [dict(tool) for tool in chat.tools]
        assert by_transformers(jinja_of(slots, config), chat, as_text, tools=tools) == expected, case
        compared += 1
    assert compared > 10


def by_transformers(source: str, chat: Chat, as_text: bool = False, **variables: Any) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    rows: list[dict[str, Any]] = [{"role": message.role, "content": message.content} for message in chat.messages]
    for row, message in zip(rows, chat.messages, strict=True):
        row |= {key: value for key in ("name", "tool_call_id") if (value := getattr(message, key)) is not None}
        if message.reasoning is not None:
            row["reasoning_content"] = message.reasoning
        if message.tool_calls:
            row["tool_calls"] = [
                {"type": "function", "id": call.id, "function": _function(call, as_text)} for call in message.tool_calls
            ]
    (text,), _ = render_jinja_template([rows], chat_template=source, bos_token=BOS, eos_token=EOS, **variables)
    return str(text)


def _function(call: ToolCall, as_text: bool) -> dict[str, Any]:
    told = json.dumps(call.arguments, ensure_ascii=False) if as_text else dict(call.arguments)
    return {"name": call.name, "arguments": told}


@pytest.mark.parametrize("name", ["alpaca", "gemma", "llama3", "mistral", "qwen3", "smollm2"])
def test_transformers_renders_the_same(name: str) -> None:
    slots = load_slots(name)
    config = TemplateConfig(template=name)
    template = SlotTemplate(slots, config, BOS, EOS)
    compared = 0
    for case, chat in builtin_chats().items():
        try:
            expected = join_text(template.prompt(chat, False))
        except RenderError:
            continue
        assert by_transformers(jinja_of(slots, config), chat) == expected, case
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("thinking", [True, False, None])
@pytest.mark.parametrize("system", ["Be brief.\n{{x}} 'y' \\n", "", None])
@pytest.mark.parametrize("name", ["smollm2", "qwen3", "youtu", "gemma"])
def test_what_a_run_sets_holds_where_nothing_is_said(name: str, system: str | None, thinking: bool | None) -> None:
    slots = load_slots(name)
    config = TemplateConfig(
        template=name, default_system=system, enable_thinking=thinking, preserve_thinking=thinking is None
    )
    template = SlotTemplate(slots, config, BOS, EOS)
    source = jinja_of(slots, config)
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
