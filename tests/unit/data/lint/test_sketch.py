"""MinHash sketches against exact Jaccard similarities."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from tunesmith.data.lint.sketch import SHINGLE, Sketches, candidates, clusters, shingles, similarity, sketch

WORDS = [
    "the", "a", "owl", "fox", "bee", "mole", "lives", "eats", "sees", "in", "under", "near", "tree", "barn",
    "tunnel", "river", "quick", "old", "green", "small",
]  # fmt: skip


def sentence(random: Random, words: int) -> str:
    return " ".join(random.choice(WORDS) + str(random.randrange(30)) for _ in range(words))


def edited(text: str, edits: int, random: Random) -> str:
    letters = list(text)
    for _ in range(edits):
        letters[random.randrange(len(letters))] = random.choice("abcdefgh ")
    return "".join(letters)


def jaccard(one: str, two: str) -> float:
    sets = [{text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))} for text in (one, two)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.fixture(scope="module")
def pairs() -> tuple[list[str], list[str], np.ndarray]:
    """600 texts of 8 to 120 words, the same with 0 to 5 % of their letters changed, and their exact similarity."""
    random = Random(7)
    texts = [sentence(random, random.randint(8, 120)) for _ in range(600)]
    others = [edited(text, random.randint(0, len(text) // 20), random) for text in texts]
    return texts, others, np.array([jaccard(*pair) for pair in zip(texts, others, strict=True)])


def test_shingles_are_those_of_each_text_alone() -> None:
    together, starts = shingles(["abcdef", "xy", "", "abcde"])
    assert starts.tolist() == [0, 2, 3, 4]
    assert len(together) == 5  # abcde bcdef | xy | nothing | abcde
    assert together[4] == together[0]
    assert len(set(together.tolist())) == 4
    alone = [shingles([text])[0].tolist() for text in ("abcdef", "xy", "", "abcde")]
    assert together.tolist() == [value for values in alone for value in values]


def test_a_sketch_does_not_depend_on_its_batch(pairs) -> None:
    texts = pairs[0][:50]
    whole = sketch(texts)
    single = Sketches.concatenate([sketch([text]) for text in texts])
    assert np.array_equal(whole.minima, single.minima)
    assert np.array_equal(whole.bands, single.bands)


def test_the_estimate_is_near_the_exact_similarity(pairs) -> None:
    texts, others, exact = pairs
    sketches = sketch([*texts, *others])
    index = np.arange(len(texts))
    estimate = similarity(sketches.minima, np.stack([index, index + len(texts)], axis=1))
    error = estimate - exact
    assert abs(error.mean()) < 0.005  # unbiased: 600 errors of 0.04 have a mean of 0.0016
    assert error.std() < 0.045
    unlike = similarity(sketches.minima, np.stack([index, np.roll(index, 1)], axis=1))
    assert unlike.max() < 0.5


def test_recall_and_precision_on_edited_texts(pairs) -> None:
    texts, others, exact = pairs
    sketches = sketch([*texts, *others])
    found = candidates(sketches.bands)
    alike = {tuple(pair) for pair in found[similarity(sketches.minima, found) >= 0.8].tolist()}
    mates = {(i, i + len(texts)) for i in range(len(texts))}
    clearly = {(i, i + len(texts)) for i in np.flatnonzero(exact >= 0.88)}
    assert len(clearly) > 100
    assert len(clearly & alike) / len(clearly) > 0.98
    assert alike <= mates  # no two different texts
    hardly = {(i, i + len(texts)) for i in np.flatnonzero(exact < 0.7)}
    assert len(hardly) > 30
    assert len(hardly & alike) / len(hardly) < 0.02


def test_candidates_are_told_once_and_anchors_come_first() -> None:
    bands = np.array([[1, 9], [2, 9], [1, 8], [1, 7]], dtype=np.uint32)
    assert candidates(bands).tolist() == [[0, 1], [0, 2], [0, 3], [2, 3]]
    anchored = candidates(bands, anchor=np.array([False, False, False, True]))
    assert [3, 0] in anchored.tolist()
    assert [3, 2] in anchored.tolist()


def test_clusters_follow_chains_and_are_sorted_by_size() -> None:
    pairs = np.array([[5, 4], [4, 3], [3, 2], [0, 1]])
    assert [group.tolist() for group in clusters(7, pairs)] == [[2, 3, 4, 5], [0, 1]]
    assert clusters(3, np.zeros((0, 2), np.int64)) == []
    assert clusters(0, np.zeros((0, 2), np.int64)) == []


def test_long_chains_come_to_an_end() -> None:
    order = np.random.default_rng(3).permutation(500)
    (group,) = clusters(500, np.stack([order[:-1], order[1:]], axis=1))
    assert len(group) == 500
