"""The brief check of every run: copies and leaks among token ids, control tokens in texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tunesmith.core.types import Chat, Encoded, Message, Origin, Text
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.lint.quick import ControlFinder, quick_lint
from tunesmith.data.pack import pack
from tunesmith.render.control import ControlTokens


def dataset(*texts: str, trained: int = 1) -> TokenDataset:
    return TokenDataset.from_encoded(
        Encoded([ord(char) for char in text], [i >= trained for i in range(len(text))], Origin("x.jsonl", i, i + 1))
        for i, text in enumerate(texts)
    )


UNLIKE = [f"a text about the number {i} and nothing else" for i in range(50)]


def test_all_is_well() -> None:
    assert quick_lint(dataset(*UNLIKE), {"validation": dataset("something else")}) == []
    assert quick_lint(None, {"validation": dataset("x")}) == []
    assert quick_lint(dataset(), {"validation": dataset()}) == []


def test_copies_are_counted_without_the_first() -> None:
    (line,) = quick_lint(dataset(*UNLIKE, UNLIKE[3], UNLIKE[3], UNLIKE[7]), {})
    assert line.startswith("3 of 53 training samples are copies of others (first: x.jsonl:51)")


def test_a_few_copies_in_a_hundred_are_not_told() -> None:
    texts = [f"{i} and then some words" for i in range(200)]
    assert quick_lint(dataset(*texts, texts[0]), {}) == []


def test_samples_that_agree_in_the_probes_alone_are_no_copies() -> None:
    """16 tokens of 400 are looked at first; number 7 is not among them."""
    text = list("abcdefgh" * 50)
    other = [*text[:7], "X", *text[8:]]
    assert quick_lint(dataset("".join(text), "".join(other)), {}) == []
    (line,) = quick_lint(dataset("".join(text), "".join(other), "".join(other)), {})
    assert line.startswith("1 of 3 ")


def test_another_mask_is_another_sample() -> None:
    both = TokenDataset.concatenate([dataset("the same text"), dataset("the same text", trained=4)])
    assert quick_lint(both, {}) == []


def test_rows_that_the_mix_repeats_are_no_copies() -> None:
    repeated = dataset(*UNLIKE).take(np.arange(150) % 50)
    assert quick_lint(repeated, {}) == []


def test_leaks_are_told_for_each_evaluation_dataset() -> None:
    held = {"one": dataset(UNLIKE[4], "new", UNLIKE[9]), "two": dataset("new too")}
    (line,) = quick_lint(dataset(*UNLIKE), held)
    assert line.startswith('2 of 3 samples of "one" are training samples too (first: x.jsonl:1)')


def test_packed_samples_are_compared_one_by_one() -> None:
    packed = pack(dataset(*UNLIKE, UNLIKE[0]), 400, 1)
    (line,) = quick_lint(packed, {})
    assert line.startswith("1 of 51 ")


@pytest.mark.parametrize("content", ["<|im_end|>", "</think>"])
def test_control_tokens_are_found_wherever_they_stand(content: str) -> None:
    names = ("<|im_end|>", "</think>")
    flags = {"special": True, "lstrip": False, "rstrip": False, "single_word": False}
    finder = ControlFinder(ControlTokens([{"id": i, "content": name, **flags} for i, name in enumerate(names)], ""))
    chat = Chat((Message("user", "a < b | c </b>"), Message("assistant", "x", reasoning=f"y {content}")))
    assert finder.find(chat) == content
    assert finder.find(replace(chat, trusted_markup=True)) is None
    assert finder.find(replace(chat, messages=chat.messages[:1])) is None
    assert finder.find(Text(f"a{content}b")) == content
