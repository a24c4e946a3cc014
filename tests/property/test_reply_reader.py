"""A reply that is taken apart while it comes is the message that its whole text is."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.tool_calls import Case, plain_cases, plain_texts
from tunesmith.core.types import Message
from tunesmith.render.replies import ReplyReader, parse_reply
from tunesmith.render.tools import DIALECTS, DialectRefusal, get_dialect
from tunesmith.render.tools.base import join_pieces

THINKING = ("<think>", "</think>")
RELAXED: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "derandomize": True,
    "database": None,
}


def read(reader: ReplyReader, text: str, seed: int) -> Message:
    """The text in pieces of one to nine characters."""
    draw = random.Random(seed)
    deltas, start = [], 0
    while start < len(text):
        size = draw.randint(1, 9)
        deltas.append(reader.push(text[start : start + size]))
        start += size
    deltas.append(reader.finish())
    reasoning = "".join(delta.reasoning for delta in deltas)
    return Message("assistant", "".join(delta.content for delta in deltas), reasoning or None, reader.calls)


@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_calls_of_every_form(name: str) -> None:
    dialect = get_dialect(name)
    seen = 0

    @settings(max_examples=15, **RELAXED)
    @given(plain_cases(), st.sampled_from(["", "<think>\nwell\n</think>\n\n"]), st.integers(0, 2**16))
    def check(case: Case, thought: str, seed: int) -> None:
        nonlocal seen
        try:
            text = thought + join_pieces(dialect.write_calls(case.calls, case.content, case.tools))
        except DialectRefusal:
            return
        expected = parse_reply(text, THINKING, (), name, case.tools)
        assert read(ReplyReader(THINKING, name, reads_calls=True, tools=case.tools), text, seed) == expected
        seen += bool(expected.tool_calls)

    check()
    assert seen


@pytest.mark.parametrize("name", [None, *sorted(DIALECTS)])
def test_text_that_is_no_call(name: str | None) -> None:
    opens = ("<tool_call>",) if name is None else get_dialect(name).opens or ("word",)

    @settings(max_examples=15, **RELAXED)
    @given(plain_texts, st.sampled_from(opens), plain_texts, st.integers(0, 2**16))
    def check(before: str, opening: str, behind: str, seed: int) -> None:
        for text in (before, before + opening + behind, before + opening[:-1], before + " \n"):
            expected = parse_reply(text, THINKING, (), name)
            assert read(ReplyReader(THINKING, name, reads_calls=True), text, seed) == expected

    check()


@pytest.mark.parametrize("first", [False, True])
@settings(max_examples=60, **RELAXED)
@given(plain_texts, plain_texts, st.integers(0, 3), st.integers(0, 2**16))
def test_thoughts(first: bool, thought: str, said: str, lines: int, seed: int) -> None:
    """`first`: the prompt has written the opening word already."""
    text = ("" if first else "<think>") + "\n" * lines + thought + "\n" * lines + "</think>" + "\n" * lines + said
    expected = parse_reply(text, THINKING, ())
    assert read(ReplyReader(THINKING, None, thinks_first=first), text, seed) == expected


def test_an_unfinished_thought_is_all_thought() -> None:
    assert read(ReplyReader(THINKING, None), "<think>so far", 1).reasoning == "so far"
    assert read(ReplyReader(THINKING, None, thinks_first=True), "so far\n", 1).reasoning == "so far"


def test_a_closing_word_without_an_opening_is_text_if_no_thought_was_begun() -> None:
    assert read(ReplyReader(THINKING, None), "the tag </think> ends it", 1).content == "the tag </think> ends it"


def test_text_comes_as_soon_as_it_is_certain() -> None:
    reader = ReplyReader(THINKING, "hermes", reads_calls=True)
    assert reader.push("Let me look").content == "Let me look"
    assert reader.push(" it up. <to").content == " it up."
    assert reader.push("ad> is no call. ").content == " <toad> is no call."
    assert reader.push('<tool_call>\n{"name": "f", "argu').content == ""
    assert reader.push('ments": {"a": 1}}\n</tool_call>') == ("", "")
    assert reader.finish().content == " "
    assert [(call.name, call.arguments) for call in reader.calls] == [("f", {"a": 1})]
