"""Laws of mixing, splitting, cutting and packing, and of damaged files: nobody sees a traceback."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.core.types import Encoded, Origin
from tunesmith.data import TokenDataset, read_examples
from tunesmith.data.mix import MIX_STRATEGIES, hold_out, mix, sample
from tunesmith.data.pack import cut_into_blocks
from tunesmith.data.sources.local import read_path
from tunesmith.data.truncate import cut_point

sizes = st.lists(st.integers(1, 20), min_size=1, max_size=4)
seeds = st.integers(0, 2**32 - 1)
weights = st.lists(st.floats(0.05, 1), min_size=4, max_size=4)


@given(sizes, st.sampled_from(MIX_STRATEGIES), st.none() | weights, seeds)
def test_mixing(sizes, strategy, probs, seed):
    probs = probs and probs[: len(sizes)]
    order = mix(sizes, strategy, probs, seed)
    assert np.array_equal(order, mix(sizes, strategy, probs, seed))
    starts = np.concatenate([[0], np.cumsum(sizes)])
    source = np.searchsorted(starts, order, side="right") - 1
    drawn = np.bincount(source, minlength=len(sizes))
    for index, size in enumerate(sizes):  # each dataset is read in its order, again from the start where it has ended
        mine = order[source == index] - starts[index]
        assert np.array_equal(mine, np.arange(len(mine)) % size)
    if strategy in ("concat", "interleave_once"):
        assert sorted(order) == list(range(sum(sizes)))
    elif strategy == "interleave_under" and len(sizes) > 1:
        assert (drawn == sizes).sum() == 1
        assert (drawn <= sizes).all()
    elif strategy == "interleave_over":
        assert (drawn >= sizes).all()


@given(sizes, seeds)
def test_by_turns_means_by_turns(sizes, seed):
    order = mix(sizes, "interleave_under", None, seed)
    source = np.searchsorted(np.cumsum(sizes), order, side="right")
    assert source.tolist() == [index % len(sizes) for index in range(len(order))] or len(sizes) == 1


def test_weights_are_kept():
    """Of 10,000 draws with weights 3:1, 7,500 come from the first dataset, give or take five standard deviations."""
    order = mix([100_000, 2_500], "interleave_under", [3, 1], seed=5)
    share = (order < 100_000).mean()
    assert abs(share - 0.75) < 5 * (0.75 * 0.25 / len(order)) ** 0.5


@given(st.integers(2, 200), st.one_of(st.integers(1, 50), st.floats(0.01, 0.99)), seeds, st.data())
def test_splitting(rows, val_size, seed, data):
    order = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=300)))
    train, held = hold_out(order, val_size, seed)
    different = len(np.unique(order))
    assert len(held) == min(different, ceil(val_size * different - 1e-9) if val_size < 1 else val_size)
    assert not set(train) & set(held)
    assert set(train) | set(held) == set(order)
    assert len(set(held)) == len(held)
    kept = iter(order)
    assert all(any(row == other for other in kept) for row in train)  # a subsequence: the order is kept
    assert all(np.array_equal(a, b) for a, b in zip((train, held), hold_out(order, val_size, seed), strict=True))


@given(st.integers(1, 100), st.integers(1, 250), seeds)
def test_sampling(rows, wanted, seed):
    found = sample(rows, wanted, seed)
    assert len(found) == wanted
    assert len(set(found[:rows])) == min(rows, wanted)
    assert np.array_equal(found, sample(rows, wanted, seed))


masks = st.lists(st.booleans(), min_size=1, max_size=60).map(lambda values: np.array(values, dtype=bool))


@given(masks, st.integers(1, 70))
def test_cutting(mask, cutoff_len):
    cut = cut_point(mask, cutoff_len)
    assert cut.length <= cutoff_len
    if len(mask) <= cutoff_len:
        assert cut == (len(mask), 0, False)
        return
    if not cut.length:
        assert not mask[:cutoff_len].any()  # dropped only if there is nothing to learn
        return
    kept = mask[: cut.length]
    assert kept[-1]  # nothing behind the last answer
    assert bool(mask[cut.length]) is cut.answer_cut  # else the answer at the end of what is kept is complete
    runs = int(np.count_nonzero(np.diff(mask.astype(int), prepend=0) == 1))
    kept_runs = int(np.count_nonzero(np.diff(kept.astype(int), prepend=0) == 1))
    assert runs == kept_runs + cut.turns_dropped
    if cut.answer_cut:
        assert (kept_runs, cut.length) == (1, cutoff_len)


@given(st.lists(st.lists(st.integers(0, 999), min_size=1, max_size=20), min_size=1, max_size=20), st.integers(1, 30))
def test_packing(documents, block):
    tokens = TokenDataset.from_encoded(
        Encoded(ids, [True] * len(ids), Origin("x", row)) for row, ids in enumerate(documents)
    )
    packed = cut_into_blocks(tokens, block)
    assert [token for sample in packed for token in sample["input_ids"]] == [id for ids in documents for id in ids]
    assert (packed.lengths[:-1] == block).all()
    assert 0 < packed.lengths[-1] <= block
    offsets = np.concatenate([[0], np.cumsum(tokens.lengths)])
    ends = set()
    for index in range(len(packed)):
        row = packed.origin(index).row
        assert offsets[row] <= index * block < offsets[row + 1]
        assert packed[index]["lengths"].sum() == packed.lengths[index]
        ends |= set((index * block + np.cumsum(packed[index]["lengths"])).tolist())
    assert set(offsets[1:].tolist()) <= ends  # a document never shares a piece with the next one


@given(st.lists(st.lists(st.integers(0, 99), min_size=0, max_size=9), min_size=1, max_size=9), st.data())
def test_taking(sequences, data):
    tokens = TokenDataset.from_encoded(Encoded(ids, [True] * len(ids)) for ids in sequences)
    chosen = data.draw(st.lists(st.integers(0, len(sequences) - 1), max_size=20))
    taken = tokens.take(np.array(chosen, dtype=np.int64))
    assert [found["input_ids"].tolist() for found in taken] == [sequences[index] for index in chosen]


values = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3))
tables = st.lists(st.dictionaries(st.text(max_size=5), values, max_size=4), min_size=1, max_size=8)
quiet = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@quiet
@given(tables, st.sampled_from([None, 0, 3]), st.booleans())
def test_reading_gives_back_what_was_written(tmp_path, rows, indent, ascii_only):
    array = tmp_path / "x.json"
    array.write_text(json.dumps(rows, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    found = list(read_path(array))
    assert [row.values for row in found] == rows
    text = array.read_text(encoding="utf-8").split("\n")
    assert all(row.origin.line is None or "{" in text[row.origin.line - 1] for row in found)
    lines = tmp_path / "x.jsonl"
    lines.write_text("\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows), encoding="utf-8")
    found = list(read_path(lines))
    assert [row.values for row in found] == rows
    assert [row.origin.line for row in found] == list(range(1, len(rows) + 1))


CORPUS = {
    "x.json": json.dumps([{"instruction": f"é {i}", "input": "", "output": "b"} for i in range(4)], indent=1).encode(),
    "x.jsonl": b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n' * 3,
    "y.jsonl": b'{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "tools": "[]"}\n'
    * 3,
    "x.csv": b'instruction,output\n"a ""b""",c\nd,"e\nf"\n',
}


@settings(quiet, max_examples=300)
@given(st.sampled_from(sorted(CORPUS)), st.data())
def test_a_damaged_file_is_an_error_or_says_what_it_lost(tmp_path: Path, name, data):
    """Cut a file, change a byte, or put bytes in: it is either refused with a code and a place, or read."""
    content = CORPUS[name]
    begin = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(begin, min(begin + 3, len(content))) | st.just(len(content)))
    damaged = content[:begin] + data.draw(st.binary(max_size=4)) + content[end:]
    path = tmp_path / name
    path.write_bytes(damaged)
    try:
        examples = read_examples(DataConfig(dataset=(str(path),)), stage="sft")
    except TunesmithError as error:
        refused = error
    else:
        assert examples
        return
    assert refused.code.startswith("E-DATA-")
    assert str(path) in str(refused)


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_the_corpus_itself_is_sound(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(CORPUS[name])
    assert len(read_examples(DataConfig(dataset=(str(path),)), stage="sft")) >= 2
