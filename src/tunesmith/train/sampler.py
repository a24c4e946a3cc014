"""Which rows go into which micro-batch on which rank.

The order of an epoch is a pure function of (seed, epoch), and the rows of an optimizer step do not depend on how they
are split: rank r of R takes rows [r*b, (r+1)*b) of each block of R*b rows. At the end of an epoch a rank may get fewer
rows, or none: `BLANK` then stands for a row without trained tokens, so that no row is ever used twice and every rank
takes part in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

__all__ = ["BLANK", "ORDERS", "BlankableDataset", "EpochDataLoader", "RankBatchSampler", "is_blank"]

BLANK = -1  # an index that is no row

_MEGABATCH = (
    50  # batches whose rows are sorted together by length: long enough to save padding, short enough to shuffle
)


def _random(lengths: np.ndarray, rng: np.random.Generator, block: int) -> np.ndarray:
    return rng.permutation(len(lengths))


def _sequential(lengths: np.ndarray, rng: np.random.Generator, block: int) -> np.ndarray:
    return np.arange(len(lengths))


def _group_by_length(lengths: np.ndarray, rng: np.random.Generator, block: int) -> np.ndarray:
    """Rows of similar length together: sort within shuffled groups of blocks, then shuffle the blocks."""
    order = rng.permutation(len(lengths))
    size = block * _MEGABATCH
    groups = [order[i : i + size] for i in range(0, len(order), size)]
    order = np.concatenate([group[np.argsort(-lengths[group], kind="stable")] for group in groups])
    full = len(order) // block * block  # a short last block stays last, so that steps keep their size
    blocks = order[:full].reshape(-1, block)
    return np.concatenate([rng.permutation(blocks).reshape(-1), order[full:]])


Order = Callable[[np.ndarray, np.random.Generator, int], np.ndarray]
ORDERS: dict[str, Order] = {
    "random": _random,
    "sequential": _sequential,
    "group_by_length": _group_by_length,
}


class RankBatchSampler:
    """Yields this rank's lists of row numbers, one list per micro-batch.

    `lengths` are the rows' lengths in tokens, `step_rows` the rows of a whole optimizer step (the unit that
    group_by_length shuffles, so that the order does not depend on the split either).
    """

    def __init__(
        self,
        lengths: Sequence[int] | np.ndarray,
        batch_size: int,
        *,
        order: str = "sequential",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        step_rows: int | None = None,
        drop_last: bool = False,
    ) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._order = ORDERS[order]
        self._seed = seed
        self._rank = rank
        self._world_size = world_size
        self._step_rows = step_rows or batch_size * world_size
        self._drop_last = drop_last
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __len__(self) -> int:
        block = self._batch_size * self._world_size
        rows = len(self._lengths)
        return rows // block if self._drop_last else -(-rows // block)

    def rows(self, epoch: int) -> np.ndarray:
        """[N, b] numbers of the rows in this rank's N micro-batches of an epoch; BLANK where there is none."""
        return self.all_rows(epoch)[:, self._rank]

    def all_rows(self, epoch: int) -> np.ndarray:
        """[N, R, b]: those of all R ranks."""
        rng = np.random.default_rng((self._seed, epoch))
        order = self._order(self._lengths, rng, self._step_rows)
        places = np.full((len(self), self._world_size, self._batch_size), BLANK)
        taken = order[: places.size]
        places.reshape(-1)[: len(taken)] = taken
        return places

    def __iter__(self) -> Iterator[list[int]]:
        for row in self.rows(self._epoch):
            yield row[row != BLANK].tolist() or [BLANK]


class BlankableDataset:
    """A map-style dataset that answers `BLANK` with a short row in which nothing is trained."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        if index != BLANK:
            return self._rows[index]
        row = self._rows[0]
        return {"input_ids": row["input_ids"][:2], "trained": np.zeros_like(row["trained"][:2])}


def is_blank(batch: Mapping[str, Any]) -> bool:
    """True for a micro-batch [1, 2] that stands in for rows that this rank does not have."""
    labels = batch["labels"]
    return labels.shape == (1, 2) and bool((labels < 0).all())


class EpochDataLoader(DataLoader[Any]):
    """A DataLoader that hands the epoch on to its sampler, which transformers asks of the loader."""

    def set_epoch(self, epoch: int) -> None:
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]
