"""The checks of data take any example: no text makes them fail, and what they hide stays hidden."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.core.types import Chat, Feedback, Message, Preference, Prompt, Text, ToolCall
from tunesmith.data.lint.base import SEVERITIES
from tunesmith.data.lint.redact import find_secrets, redact
from tunesmith.data.lint.run import lint_examples
from tunesmith.data.lint.scripts import count_scripts
from tunesmith.data.lint.sketch import HASHES, sketch
from tunesmith.data.lint.texts import excerpt

KEY = "hf_" + "aB3" * 12
# Any character, half ones too, and what checks look for.
pieces = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12),
    st.sampled_from(["", " ", "\0", KEY, "a@b.org", "e\u0301", "\ufffd", "Ã©", "?", "\ud800", "\U0010ffff", "\x1b[2J"]),
)
texts = st.lists(pieces, max_size=4).map("".join)
json_values = texts | st.none() | st.floats() | st.integers() | st.dictionaries(texts, texts, max_size=2)
calls = st.builds(ToolCall, texts, st.dictionaries(texts, json_values, max_size=2))
messages = st.lists(
    st.builds(
        Message,
        st.sampled_from(["system", "user", "assistant", "tool"]),
        texts,
        reasoning=st.none() | texts,
        tool_calls=st.lists(calls, max_size=2),
        written=st.none() | texts,
    ),
    max_size=3,
)
tools = st.lists(st.dictionaries(texts, json_values, max_size=2), max_size=1)
kinds = {
    "pt": st.builds(Text, texts),
    "sft": st.builds(Chat, messages, tools),
    "dpo": st.builds(Preference, messages, messages, messages, tools),
    "kto": st.builds(Feedback, messages, messages, st.booleans(), tools),
    "ppo": st.builds(Prompt, messages, tools),
}
datasets = st.sampled_from(sorted(kinds)).flatmap(
    lambda stage: st.tuples(st.just(stage), st.lists(kinds[stage], max_size=4))
)


@settings(max_examples=60, deadline=None)
@given(datasets)
def test_lint_never_raises_and_counts_within_the_rows(data) -> None:
    stage, examples = data
    for finding in lint_examples(examples, stage=stage):
        assert 0 <= finding.count <= finding.total <= len(examples)
        assert finding.severity in SEVERITIES
        assert all(place.excerpt.isprintable() for place in finding.places)
        assert all(KEY[3:] not in place.excerpt for place in finding.places)


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(0, 50))
def test_no_excerpt_and_no_redacted_text_holds_a_secret(text: str, at: int) -> None:
    assert list(find_secrets(redact(text))) == []
    shown = excerpt(text, min(at, len(text)))
    assert list(find_secrets(shown)) == []
    assert "\n" not in shown


@settings(max_examples=100, deadline=None)
@given(st.lists(texts, max_size=5))
def test_numbers_are_kept_of_any_texts(many: list[str]) -> None:
    assert sketch(many).minima.shape == (len(many), HASHES)
    assert len(count_scripts(many)) == len(many)
