"""What becomes of samples that are too long, against a reference that reads one token after the other."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import DataError
from tunesmith.core.types import Encoded, Origin
from tunesmith.data import length as length_module
from tunesmith.data.dataset import CHOSEN, LIKED, PROMPT, REJECTED, TokenDataset
from tunesmith.data.length import POLICIES, LengthOutcome, fit_lengths, histogram, length_bars, raise_for_lost_rows
from tunesmith.data.truncate import cut_point

masks = st.lists(st.lists(st.booleans(), min_size=1, max_size=40).map(tuple), max_size=12)
cutoffs = st.integers(2, 30)


def dataset(texts, rows=None) -> TokenDataset:
    """`texts`: "..TT" or a tuple of booleans. The ids count on over all samples, so that each token can be told."""
    count = iter(range(10**6))
    return TokenDataset.from_encoded(
        Encoded([next(count) for _ in text], [letter in ("T", True) for letter in text], Origin("a.json", row, row + 1))
        for row, text in zip(rows or range(len(texts)), texts, strict=True)
    )


def shown(tokens: TokenDataset):
    """Samples as (text, first id)."""
    return [
        ("".join("T" if trained else "." for trained in sample["trained"]), int(sample["input_ids"][0]))
        for sample in tokens
    ]


def learned(tokens: TokenDataset):
    """The ids that have a loss, with repeats: trained ones behind the first."""
    return sorted(int(i) for sample in tokens for i in sample["input_ids"][1:][sample["trained"][1:]])


def cut(texts, cutoff_len, policy):
    return fit_lengths(dataset(texts), cutoff_len, policy)


# --- truncate ---


@given(masks, cutoffs)
def test_truncate_cuts_where_the_reference_does(texts, cutoff_len):
    tokens = dataset(texts)
    found, outcome = fit_lengths(tokens, cutoff_len, "truncate")
    cuts = [cut_point(sample["trained"], cutoff_len) for sample in tokens]
    assert outcome.source.tolist() == [number for number, cut in enumerate(cuts) if cut.length]
    assert found.lengths.tolist() == [cut.length for cut in cuts if cut.length]
    assert found.trained_counts.tolist() == [int(sample["trained"].sum()) for sample in found]
    firsts = [int(tokens[number]["input_ids"][0]) for number in outcome.source]
    assert [first for _, first in shown(found)] == firsts
    assert [origin.row for origin in found.origins] == outcome.source.tolist()
    assert outcome.lost.tolist() == [number for number, cut in enumerate(cuts) if not cut.length]
    assert outcome.answers_cut.tolist() == [number for number, cut in enumerate(cuts) if cut.answer_cut]
    shortened = [number for number, cut in enumerate(cuts) if cut.turns_dropped and not cut.answer_cut]
    assert outcome.shortened.tolist() == shortened
    assert outcome.turns_left_out == sum(cut.turns_dropped for cut in cuts)


def test_truncate_keeps_whole_turns_and_tells_what_it_cut():
    found, outcome = cut(["..TT.TT", "..TTTT", ".....T", ".T"], 5, "truncate")
    assert shown(found) == [("..TT", 0), ("..TTT", 7), (".T", 19)]
    assert (outcome.shortened.tolist(), outcome.answers_cut.tolist(), outcome.lost.tolist()) == ([0], [1], [2])
    assert outcome.lines()[:4] == [
        "3 of 4 samples are longer than cutoff_len 5",
        "  1 shortened: 1 later answers are left out (first: a.json:1)",
        "  1 cut inside an answer (first: a.json:2)",
        "  1 lost: the prompt alone fills cutoff_len (first: a.json:3)",
    ]


# --- split ---


@given(masks, cutoffs)
def test_split_learns_each_token_once(texts, cutoff_len):
    tokens = dataset(texts)
    found, outcome = fit_lengths(tokens, cutoff_len, "split")
    assert learned(found) == learned(tokens)
    assert (found.lengths <= cutoff_len).all()
    assert (found.trained_counts > 0)[tokens.lengths[outcome.source] > cutoff_len].all()
    assert found.num_trained == tokens.num_trained
    assert (np.diff(outcome.source) >= 0).all()


@given(masks, cutoffs)
def test_a_piece_of_a_split_is_whole_turns_or_one_turn(texts, cutoff_len):
    tokens = dataset(texts)
    found, outcome = fit_lengths(tokens, cutoff_len, "split")
    for piece, number in zip(found, outcome.source, strict=True):
        text = "".join("T" if trained else "." for trained in tokens[number]["trained"])
        if len(text) <= cutoff_len:
            continue
        begin = int(piece["input_ids"][0] - tokens[number]["input_ids"][0])
        end = begin + len(piece["input_ids"])
        ends_a_turn = text[end - 1] == "T" and text[end : end + 1] != "T"
        begins_a_turn = begin == 0 or text[begin - 1 : begin + 1] == "T."
        if not (begins_a_turn and ends_a_turn):
            turns = text[begin:end].strip(".").split(".")
            assert len([turn for turn in turns if turn]) == 1, "what is cut inside is part of one turn"
            assert text[end - 1] == "T", "no piece ends with tokens that nothing is learned from"


@pytest.mark.parametrize(
    ("text", "cutoff_len", "pieces"),
    [
        (".T.T.T", 4, [(".T.T", 0), (".T", 4)]),
        (".T.T..", 4, [(".T.T", 0)]),  # a tail without training goes
        (".....TT", 4, [("..TT", 3)]),  # the answer with what stands right before it
        (".T.....TT.T", 4, [(".T", 0), ("..TT", 5), (".T", 9)]),
        ("..TTTTTT", 4, [("..TT", 0), ("TTTT", 3), ("TT", 6)]),  # each piece repeats one token for its sight
        ("....TTTT", 4, [("..TT", 2), ("TTT", 5)]),
        ("TTTTTTTT", 4, [("TTTT", 0), ("TTTT", 3), ("TT", 6)]),  # a text
        ("......", 4, []),
    ],
)
def test_where_a_sample_is_split(text, cutoff_len, pieces):
    found, outcome = cut([text], cutoff_len, "split")
    assert shown(found) == pieces
    assert outcome.lost.tolist() == ([] if pieces else [0])
    assert outcome.split.tolist() == ([0] if len(pieces) > 1 else [])


# --- drop, error, all ---


@given(masks, cutoffs)
def test_drop_keeps_what_fits(texts, cutoff_len):
    found, outcome = cut(texts, cutoff_len, "drop")
    fits = [len(text) <= cutoff_len for text in texts]
    assert outcome.source.tolist() == np.flatnonzero(fits).tolist()
    assert outcome.dropped.tolist() == np.flatnonzero(np.logical_not(fits)).tolist()
    assert found.lengths.tolist() == [len(text) for text in texts if len(text) <= cutoff_len]


def test_error_names_the_longest():
    with pytest.raises(DataError) as caught:
        cut([".T", ".TTT", ".TTTTTTT", ".TT"], 3, "error")
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E-DATA-090", "a.json:3, a.json:2")
    assert problem.what == "2 of 4 samples are longer than cutoff_len 3"
    assert problem.got == "the longest have 8, 4 tokens"
    assert problem.fix.startswith("cutoff_len: 8, ")


@pytest.mark.parametrize("policy", POLICIES)
def test_what_fits_is_left_alone(policy):
    tokens = dataset(["TT", "....", ".T"])
    found, outcome = fit_lengths(tokens, 4, policy)
    assert found is tokens
    assert outcome.source.tolist() == [0, 1, 2]
    assert (outcome.lines(), outcome.rows(), outcome.to_dict()["too_long"]) == ([], (0, 3), 0)


@given(masks, cutoffs, st.sampled_from(["truncate", "drop", "split"]))
def test_masks_that_are_read_in_parts_give_the_same(texts, cutoff_len, policy):
    found, outcome = cut(texts, cutoff_len, policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(length_module, "_AT_ONCE", 7)
        again, other = cut(texts, cutoff_len, policy)
    assert shown(again) == shown(found)
    assert other.to_dict() == outcome.to_dict()


def test_samples_of_several_stores_are_cut():
    both = TokenDataset.concatenate([dataset([".TTT", ".T"]), dataset(["..TT.T"])]).take(np.array([2, 0, 2]))
    found, _ = fit_lengths(both, 4, "split")
    assert [text for text, _ in shown(found)] == ["..TT", ".T", ".TTT", "..TT", ".T"]


# --- rows that lose all ---


def lost_outcome(lost, fitting) -> LengthOutcome:
    return cut(["....T"] * lost + [".T"] * fitting, 3, "truncate")[1]


def test_more_than_one_row_in_twenty_that_loses_all_is_an_error():
    raise_for_lost_rows([lost_outcome(1, 19)])
    with pytest.raises(DataError) as caught:
        raise_for_lost_rows([lost_outcome(2, 19)])
    (problem,) = caught.value.problems
    assert problem.code == "E-DATA-091"
    assert problem.what.splitlines()[0].startswith("2 of 21 rows would train nothing")
    assert len(problem.what.splitlines()) == 3  # 2 to 3 tokens, 4 to 7 tokens
    assert problem.where == "a.json:1, a.json:2"
    assert problem.fix.startswith("cutoff_len: 5,")
    raise_for_lost_rows([lost_outcome(2, 19), lost_outcome(0, 19)])  # of a whole run


def test_a_row_with_another_sample_is_not_lost():
    tokens = dataset(["....T", ".T", "....T"], rows=[0, 0, 1])
    assert fit_lengths(tokens, 3, "truncate")[1].rows() == (1, 2)


def test_rows_that_are_dropped_on_request_are_no_error():
    raise_for_lost_rows([cut(["....T"] * 20, 3, "drop")[1]])


def test_a_histogram_counts_every_sample():
    edges, counts = histogram(np.array([1, 2, 3, 4, 7, 8, 8]))
    assert edges.tolist() == [1, 2, 4, 8, 16]
    assert counts.tolist() == [1, 2, 2, 2]
    assert [array.tolist() for array in histogram(np.array([0, 1]))] == [[0, 1, 2], [1, 1]]
    assert histogram(np.zeros(0, np.int64))[1].sum() == 0


def test_bars_show_the_histogram():
    assert length_bars(np.array([1, 2, 3, 3])) == [
        "              1-1 tokens         1 ##########",
        "              2-3 tokens         3 ##############################",
    ]
    assert length_bars(np.zeros(0, np.int64)) == []


# --- pairs, feedback, prompts ---

sequences = st.lists(st.booleans(), min_size=1, max_size=40).map(tuple)


@given(st.lists(st.tuples(sequences, sequences), max_size=8), cutoffs)
def test_both_of_a_pair_are_cut_or_neither_is_there(pairs, cutoff_len):
    tokens = dataset([text for both in pairs for text in both])
    tokens = tokens_of(tokens, [CHOSEN, REJECTED] * len(pairs))
    found, outcome = fit_lengths(tokens, cutoff_len, "truncate")
    cuts = [cut_point(sample["trained"], cutoff_len) for sample in tokens]
    kept = [i for i in range(len(tokens)) if cuts[i].length and cuts[i ^ 1].length]
    assert outcome.source.tolist() == kept
    assert found.lengths.tolist() == [cuts[i].length for i in kept]
    assert found.kinds.tolist() == [CHOSEN, REJECTED] * (len(kept) // 2)
    assert sorted(outcome.lost.tolist()) == [i for i in range(len(tokens)) if i not in kept]
    assert outcome.turns_left_out == sum(cuts[i].turns_dropped for i in kept), "what is lost is not told as shortened"
    assert sorted(outcome.answers_cut.tolist()) == [i for i in kept if cuts[i].answer_cut]
    shorter, outcome = fit_lengths(tokens, cutoff_len, "drop")
    kept = [i for i in range(len(tokens)) if max(tokens.lengths[i], tokens.lengths[i ^ 1]) <= cutoff_len]
    assert outcome.source.tolist() == kept
    assert sorted(outcome.dropped.tolist()) == [i for i in range(len(tokens)) if i not in kept]
    assert len(shorter) == len(kept)


def tokens_of(tokens: TokenDataset, kinds) -> TokenDataset:
    """The same sequences, of these kinds."""
    kinds = np.array(kinds, dtype=np.int8)
    return TokenDataset(
        tokens.stores, tokens.store, tokens.starts, tokens.lengths, tokens.origins, tokens.trained_counts, kinds
    )


def test_feedback_is_cut_and_a_prompt_is_not():
    feedback = tokens_of(dataset(["..TTTT", "......T"]), [LIKED, LIKED])
    found, outcome = fit_lengths(feedback, 4, "truncate")
    assert shown(found) == [("..TT", 0)]
    assert (outcome.lost.tolist(), outcome.answers_cut.tolist()) == ([1], [0])
    prompts = tokens_of(dataset(["....", "....."]), [PROMPT, PROMPT])
    found, outcome = fit_lengths(prompts, 4, "truncate")
    assert (found.lengths.tolist(), outcome.lost.tolist()) == ([4], [1])
    with pytest.raises(DataError, match="E-DATA-090"):
        fit_lengths(prompts, 4, "error")
    with pytest.raises(AssertionError):
        fit_lengths(prompts, 4, "split")
