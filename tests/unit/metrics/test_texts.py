"""Figures of predictions against sacrebleu, rouge-score, and arithmetic by hand."""

from __future__ import annotations

import logging
import random
import sys

import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU

from tunesmith.metrics.texts import BLEU_TOKENIZERS, language_of, lcs, score_texts, words_of

ENGLISH = ["The cat sat on the mat.", "A dog, a fox!", "It's 12 o'clock", "", "no word in common", "same"]
EXPECTED = [
    "The cat is on a mat.",
    "a dog and a fox",
    "it is 12 o'clock now",
    "something",
    "entirely different",
    "same",
]
CHINESE = ["我喜欢吃苹果。", "今天天气很好", "你好"]
CHINESE_EXPECTED = ["我爱吃红苹果。", "今天的天气不错", "你好"]


def drawn(count: int, seed: int) -> list[str]:
    draw, words = random.Random(seed), ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "old", "fox"]
    return [" ".join(draw.choice(words) for _ in range(draw.randint(0, 25))) for _ in range(count)]


class Words:
    """Our words, as rouge-score takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words_of(text)


@pytest.mark.parametrize(
    ("predictions", "labels", "tokenizer"),
    [
        (ENGLISH, EXPECTED, None),
        (drawn(40, 1), drawn(40, 2), None),
        (CHINESE, CHINESE_EXPECTED, Words()),
    ],
)
def test_rouge_equals_rouge_score(predictions: list[str], labels: list[str], tokenizer: Words | None) -> None:
    """With its own words on English, where it has words for the texts at all."""
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=tokenizer)
    found = score_texts(predictions, labels, seed=1)
    for ours, theirs in (("rouge-1", "rouge1"), ("rouge-2", "rouge2"), ("rouge-l", "rougeL")):
        scores = [scorer.score(label, text)[theirs].fmeasure for text, label in zip(predictions, labels, strict=True)]
        assert found[ours] == pytest.approx(100 * sum(scores) / len(scores))
        assert found[f"{ours}_low"] <= found[ours] <= found[f"{ours}_high"]
    assert found["rouge-1"] > 20


def test_rouge_by_hand() -> None:
    """the cat sat / the cat is here: two of three and four words, one of two and three pairs, two in a row."""
    found = score_texts(["The cat sat"], ["the cat is here"], seed=1)
    assert found["rouge-1"] == pytest.approx(100 * 2 * 2 / (3 + 4))
    assert found["rouge-2"] == pytest.approx(100 * 2 * 1 / (2 + 3))
    assert found["rouge-l"] == pytest.approx(100 * 2 * 2 / (3 + 4))


def test_the_longest_common_subsequence_is_that_of_the_table() -> None:
    draw = random.Random(4)
    for _ in range(60):
        one, other = (draw.choices("abcd", k=draw.randint(0, 12)) for _ in range(2))
        table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
        for row, left in enumerate(one):
            for column, right in enumerate(other):
                longest = max(table[row][column + 1], table[row + 1][column])
                table[row + 1][column + 1] = table[row][column] + 1 if left == right else longest
        assert lcs(one, other) == table[-1][-1]


@pytest.mark.parametrize(
    ("predictions", "labels", "tokenizer"),
    [(ENGLISH, EXPECTED, "13a"), (drawn(40, 1), drawn(40, 2), "13a"), (CHINESE, CHINESE_EXPECTED, "zh")],
)
def test_bleu_equals_sacrebleu(predictions: list[str], labels: list[str], tokenizer: str) -> None:
    metric = BLEU(tokenize=tokenizer)
    expected = metric.corpus_score(predictions, [labels])
    found = score_texts(predictions, labels, seed=1)
    assert found["bleu-4"] == pytest.approx(expected.score)
    assert found["bleu_signature"] == str(metric.get_signature())


def test_the_interval_of_bleu_is_about_that_of_sacrebleu() -> None:
    """Which draws other rows and gives half the width of 95 % of them."""
    predictions, labels = drawn(200, 1), drawn(200, 2)
    expected = BLEU().corpus_score(predictions, [labels], n_bootstrap=1000)
    found = score_texts(predictions, labels, seed=1)
    assert found["bleu-4"] == pytest.approx(expected.score)
    assert expected._ci is not None
    assert (found["bleu-4_high"] - found["bleu-4_low"]) / 2 == pytest.approx(expected._ci, rel=0.15)


def test_shares_by_hand() -> None:
    found = score_texts(["yes", " Yes", "no", "Straße "], ["yes", "yes", "yes", "STRASSE"], seed=1)
    assert found["exact_match"] == 0.25
    assert found["accuracy"] == 0.75
    assert 0 < found["exact_match_low"] < 0.25 < found["exact_match_high"] < 1


def test_the_seed_decides_the_intervals() -> None:
    predictions, labels = drawn(30, 1), drawn(30, 2)
    assert score_texts(predictions, labels, 1) == score_texts(predictions, labels, 1)
    assert score_texts(predictions, labels, 1)["rouge-1_low"] != score_texts(predictions, labels, 2)["rouge-1_low"]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Grüße, Ёлка, 123", "other"),
        ("我喜欢 Python 和 Rust", "zh"),  # 4 of 14 letters
        ("和 Python", "other"),  # 1 of 7
        ("我喜欢吃苹果 (apples)", "zh"),
        ("リンゴを食べる", "ja"),
        ("東京都は日本の首都である", "ja"),
        ("사과를 좋아해요", "ko"),
        ("", "other"),
    ],
)
def test_the_language_of_texts(text: str, language: str) -> None:
    assert language_of([text]) == language
    assert BLEU(tokenize=BLEU_TOKENIZERS[language_of([text])]).tokenizer is not None


def test_words_of_several_scripts() -> None:
    assert words_of("Äpfel und 苹果, リンゴ_2 사과") == ["äpfel", "und", "苹", "果", "リ", "ン", "ゴ", "2", "사", "과"]


def test_without_sacrebleu_the_rest_is_there(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "sacrebleu"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with caplog.at_level(logging.WARNING, "tunesmith"):
        found = score_texts(["a"], ["a"], 1)
    assert caplog.messages == ["bleu-4 is left out: sacrebleu is not installed: pip install 'tunesmith[metrics]'"]
    assert found["exact_match"] == 1
    assert found["rouge-l"] == 100
    assert "bleu-4" not in found


def test_no_rows_have_no_figures() -> None:
    assert score_texts([], [], 1) == {}
