"""Streaming text: pieces join to the whole, and no piece holds half a character."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.engines.detokenize import Detokenizer


@pytest.fixture(scope="module")
def byte_level(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def sentencepiece(stories):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(stories)


def stream(tokenizer, ids):
    detokenizer = Detokenizer(tokenizer)
    return [detokenizer.push(token) for token in ids] + [detokenizer.flush()]


def check(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    pieces = stream(tokenizer, ids)
    whole = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert "".join(pieces) == whole
    assert not any("\ufffd" in piece for piece in pieces if "\ufffd" not in whole)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(text=st.text(max_size=40))
def test_pieces_join_to_the_whole_byte_level(byte_level, text):
    check(byte_level, text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(text=st.text(max_size=40))
def test_pieces_join_to_the_whole_sentencepiece(sentencepiece, text):
    check(sentencepiece, text)


def test_a_character_of_several_tokens_comes_at_once(byte_level):
    ids = byte_level.encode("a 🦊 b", add_special_tokens=False)
    pieces = [piece for piece in stream(byte_level, ids) if piece]
    assert any("🦊" in piece for piece in pieces)
    assert len(ids) > len(pieces)
