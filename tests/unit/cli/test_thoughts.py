"""Thoughts are split off a stream whatever its pieces are."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.cli.thoughts import split_thoughts

MARKS = "<think>", "</think>"


def joined(chunks: list[str], thought: bool = False) -> tuple[str, str]:
    """(thoughts, words)"""
    pieces = list(split_thoughts(chunks, *MARKS, thought=thought))
    assert all(piece.text for piece in pieces)
    return "".join(p.text for p in pieces if p.thought), "".join(p.text for p in pieces if not p.thought)


def test_marks_are_left_out_and_thoughts_told_apart() -> None:
    assert joined(["<think>hm", "m</think>Yes", "."]) == ("hmm", "Yes.")


def test_text_without_marks_comes_at_once() -> None:
    pieces = split_thoughts(iter(["a", "b < c", " <thin"]), *MARKS)
    assert [piece.text for piece in pieces] == ["a", "b < c", " ", "<thin"]


def test_a_stream_can_begin_inside_a_thought() -> None:
    assert joined(["hm</think>Yes"], thought=True) == ("hm", "Yes")


@given(st.data())
def test_where_the_chunks_are_cut_does_not_matter(data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(["a", "<", "</", "think>", *MARKS, "\n"]))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    edges = [0, *cuts, len(text)]
    chunks = [text[start:end] for start, end in pairwise(edges)]
    assert joined(chunks) == joined([text])
