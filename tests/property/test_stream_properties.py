"""Laws of streams: the order of rows is that of the mix, and a stream that goes on is as one that never stopped."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.types import Origin
from tunesmith.data.mix import MIX_STRATEGIES, mix
from tunesmith.data.rows import Row
from tunesmith.data.streaming import rows as rows_module
from tunesmith.data.streaming.rows import RowStream
from tunesmith.data.streaming.turns import Turns

sizes = st.lists(st.integers(1, 20), min_size=1, max_size=4)
strategies = st.sampled_from(MIX_STRATEGIES)
weights = st.none() | st.lists(st.floats(0.05, 1), min_size=4, max_size=4)
seeds = st.integers(0, 2**32 - 1)


class Files:
    """A dataset of files with so many rows each; `reads` counts the rows that were asked for."""

    def __init__(self, name: int, counts: list[int], most: int | None = None) -> None:
        self.files = [
            SimpleNamespace(rows=lambda count=count, at=at: self._rows(at, count)) for at, count in enumerate(counts)
        ]
        self.name, self.max_samples = name, most

    def _rows(self, file: int, count: int) -> Any:
        for row in range(count):
            yield Row({"text": f"{self.name}.{file}.{row}"}, Origin(f"{self.name}.{file}", row))


def texts(window: Any) -> list[str]:
    return [row.row.values["text"] for row in window.rows]


def one_epoch(stream: RowStream, state: Any = None) -> list[Any]:
    found = []
    for window in stream.windows(state):
        if window.epoch:
            return found
        found.append(window)
    raise AssertionError("a stream has no end")


@given(sizes, strategies, seeds)
def test_without_shares_a_stream_has_the_order_of_the_mix(sizes: list[int], strategy: str, seed: int) -> None:
    datasets = [Files(number, [size]) for number, size in enumerate(sizes)]
    stream = RowStream(datasets, 7, strategy=strategy, probs=None, seed=seed)  # type: ignore[arg-type]
    found = [text for window in one_epoch(stream) for text in texts(window)]
    names = [f"{number}.0.{row}" for number, size in enumerate(sizes) for row in range(size)]
    assert found == [names[place] for place in mix(sizes, strategy, None, seed)]


@given(sizes, strategies, weights, seeds, st.integers(1, 25))
def test_what_a_strategy_promises(
    sizes: list[int], strategy: str, probs: list[float] | None, seed: int, size: int
) -> None:
    datasets = [Files(number, [(rows + 1) // 2, rows // 2] if rows > 1 else [1]) for number, rows in enumerate(sizes)]
    shares = probs and probs[: len(sizes)]
    stream = RowStream(datasets, size, strategy=strategy, probs=shares, seed=seed)  # type: ignore[arg-type]
    windows = one_epoch(stream)
    assert all(len(window.rows) == size for window in windows[:-1])
    rows = [row for window in windows for row in window.rows]
    drawn = Counter(row.dataset for row in rows)
    for number, count in enumerate(sizes):  # each in its order, again from the start where it has ended
        assert [row.number for row in rows if row.dataset == number] == [at % count for at in range(drawn[number])]
    if strategy in ("concat", "interleave_once"):
        assert drawn == Counter(dict(enumerate(sizes)))
    elif strategy == "interleave_under":
        assert sum(drawn[number] == count for number, count in enumerate(sizes)) == 1
        assert all(drawn[number] <= count for number, count in enumerate(sizes))
    else:
        assert all(drawn[number] >= count for number, count in enumerate(sizes))


@given(
    st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=3), min_size=1, max_size=3),
    strategies,
    weights,
    seeds,
    st.integers(1, 9),
    st.none() | st.integers(1, 8),
    st.data(),
)
def test_a_stream_goes_on_from_any_window(
    counts: list[list[int]],
    strategy: str,
    probs: list[float] | None,
    seed: int,
    size: int,
    most: int | None,
    data: st.DataObject,
) -> None:
    datasets = [Files(number, files, most) for number, files in enumerate(counts)]
    held = data.draw(st.sets(st.tuples(st.integers(0, len(counts) - 1), st.integers(1, 5)), max_size=4))
    shares = probs and probs[: len(counts)]

    def stream() -> RowStream:
        return RowStream(datasets, size, strategy=strategy, probs=shares, seed=seed, held=held)  # type: ignore[arg-type]

    whole = list(islice(stream().windows(), 12))
    number = data.draw(st.integers(0, len(whole) - 1))
    saved = json.loads(json.dumps(whole[number].state))  # as a checkpoint keeps it
    again = list(islice(stream().windows(saved), len(whole) - number))
    assert [(one.epoch, one.number, texts(one)) for one in again] == [
        (one.epoch, one.number, texts(one)) for one in whole[number:]
    ]
    assert not held & {(row.dataset, row.number) for window in whole for row in window.rows}
    assert (
        max(one.epoch for one in whole) == 0
        or [texts(one) for one in whole if one.epoch == 1]
        == [texts(one) for one in whole if one.epoch == 0][: sum(one.epoch == 1 for one in whole)]
    )


def test_shares_are_kept() -> None:
    """Of 10,000 draws with shares 3:1, 7,500 are of the first dataset, give or take five standard deviations."""
    turns = Turns(2, "interleave_once", [3, 1], seed=5)
    share = np.mean([turns.next() == 0 for _ in range(10_000)])
    assert abs(share - 0.75) < 5 * (0.75 * 0.25 / 10_000) ** 0.5


def test_a_window_of_long_texts_has_fewer_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_module, "MOST_CHARACTERS", 20)
    stream = RowStream([Files(0, [9])], 7, strategy="concat", probs=None, seed=0)  # type: ignore[list-item]
    assert [len(window.rows) for window in one_epoch(stream)] == [4, 4, 1], "five characters a row, until there are 20"
