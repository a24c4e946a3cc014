"""Keys that stand twice in one object are noticed, by a count of signs and, in doubt, by reading again."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data import doubled_keys
from tunesmith.data.doubled_keys import DoubledKeys, mark_doubled
from tunesmith.data.rows import Broken, Unparsed, parse

TWICE = {
    "at the top": ('{"a": 1, "b": 2, "a": 3}', "a"),
    "in a message": ('{"messages": [{"role": "user", "content": "x", "content": "y"}]}', "content"),
    "in arguments": ('{"m": [{"c": [{"f": {"q": 1, "q": 2}}]}]}', "q"),
    "with colons in texts": ('{"a": "x: y", "a": "http://z"}', "a"),
    "with blanks before the colons": ('{"a" : 1, "a"   : 3}', "a"),
    "with quotes in texts": ('{"a": "{\\"b\\": 1}", "a": ""}', "a"),
}


@pytest.mark.parametrize("case", TWICE)
def test_a_key_that_stands_twice_is_named(case):
    text, key = TWICE[case]
    for source in (text, text.encode()):
        found = mark_doubled(json.loads(text), source)
        assert isinstance(found, DoubledKeys)
        assert (found, found.key) == (json.loads(text), key)
    assert isinstance(parse(Unparsed(text.encode())), DoubledKeys)


def test_only_the_text_of_the_row_counts():
    text = '{"a": 1}, {"b": 1, "b": 2}'
    assert type(mark_doubled({"a": 1}, text, 0, 8)) is dict
    assert mark_doubled({"b": 2}, text, 10).key == "b"


@pytest.mark.parametrize(
    "row",
    [
        {"a": "", "b": "x"},
        {"a": 'he said: "b": 1', "b": "x:::"},
        {"messages": [{"role": "user", "content": 'x\\": y'}, {"role": "assistant", "tool_calls": [{"f": {"g": 1}}]}]},
        {"t": json.dumps({"name": "f", "arguments": json.dumps({"a": 1})})},
    ],
)
def test_rows_as_they_mostly_are_need_no_second_reading(row, monkeypatch):
    monkeypatch.setattr(doubled_keys, "_find", lambda text: pytest.fail(f"read again: {text}"))
    assert type(mark_doubled(row, json.dumps(row))) is dict


texts = st.text('":\\ a{},', max_size=6)
values = st.recursive(texts | st.none(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner))


@given(st.dictionaries(texts, values, max_size=4), st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]))
def test_no_row_is_accused_wrongly(row, separators):
    assert type(mark_doubled(row, json.dumps(row, separators=separators))) is dict


def test_words_that_json_has_not_are_refused():
    for word in ("NaN", "Infinity", "-Infinity"):
        found = parse(Unparsed(f'{{"a": {word}}}'.encode()))
        assert found == Broken("E-DATA-003", f"{word} is not JSON", f'{{"a": {word}}}')
