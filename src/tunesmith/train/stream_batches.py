"""Micro-batches of a stream, for any rank, from any place on.

As everywhere, rank r of R takes samples [r*b, (r+1)*b) of each block of R*b, so what a step trains on does not depend
on the split. An epoch has no end here: a batch may hold the last samples of one and the first of the next. Every rank
reads the whole stream and takes its part.

A place in the stream is kept in a checkpoint (`stream.json`): the window, and how many of its samples were used.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch.utils.data import DataLoader, IterableDataset

from tunesmith.core.errors import DataError, Problem
from tunesmith.train.checkpoint import POSITION
from tunesmith.train.sampler import ORDERS

if TYPE_CHECKING:
    from tunesmith.data.streaming.samples import SampleStream, Window

__all__ = ["StreamBatches", "StreamLoader"]


class _Sample(NamedTuple):
    """A sample of a window: its number there, and how many samples of the window are used with it."""

    window: Window
    number: int
    used: int


class StreamBatches(IterableDataset[Any]):
    """Yields `total` micro-batches, collated. The first `passed` of them are None: transformers counts those off that
    were trained before the checkpoint, and none of them is made for that."""

    def __init__(
        self,
        stream: SampleStream,
        collate: Callable[[list[Any]], Any],
        *,
        batch_size: int,
        total: int,
        order: str,
        seed: int,
        step_rows: int,
        rank: int = 0,
        world_size: int = 1,
        position: Mapping[str, Any] | None = None,
        passed: int = 0,
        keep: int = 1,
    ) -> None:
        self._stream, self._collate = stream, collate
        self._batch_size, self._total, self._passed = batch_size, total, passed
        self._order, self._seed, self._step_rows = order, seed, step_rows
        self._rank, self._world_size = rank, world_size
        self._position = position
        self.ranks = world_size
        self.given: deque[list[_Sample]] = deque(maxlen=keep)
        """The samples of the last `keep` micro-batches, of all ranks."""
        self.at: tuple[Mapping[str, Any], int] | None = None
        """The place behind the last micro-batch that was given: the state of its window, and how many of the window's
        samples are used. None before the first."""
        sampling = self._sampling()
        if position is not None and position["sampling"] != sampling:
            got = f"was {position['sampling']}, is {sampling}"
            fix = "write them as they were, or overwrite_output_dir: true to start afresh"
            what = "the checkpoint draws the samples of a stream in another way"
            raise DataError(Problem("E-DATA-113", what, where="data_seed, train_sampling_strategy", got=got, fix=fix))

    def _sampling(self) -> dict[str, Any]:
        grouped = {"step": self._step_rows} if self._order == "group_by_length" else {}
        return {"order": self._order, "seed": self._seed, **grouped}

    def __len__(self) -> int:
        return self._total

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._passed):
            yield None
        samples = self._samples()
        block = self._batch_size * self._world_size
        for _ in range(self._total - self._passed):
            found = list(islice(samples, block))
            mine = self.part(found, self._rank)
            self.given.append(found)
            self.at = found[-1].window.state, found[-1].used
            yield self._collate([sample.window.samples[sample.number] for sample in mine])

    def _samples(self) -> Iterator[_Sample]:
        used = 0 if self._position is None else int(self._position["used"])
        for window in self._stream.windows():
            generator = np.random.default_rng((self._seed, window.epoch, window.number))
            order = ORDERS[self._order](window.samples.lengths, generator, self._step_rows).tolist()
            for place in range(used, len(order)):
                yield _Sample(window, order[place], place + 1)
            used = 0

    def part(self, block: list[_Sample], rank: int) -> list[_Sample]:
        """What a rank takes of a block."""
        return block[rank * self._batch_size : (rank + 1) * self._batch_size]

    @contextmanager
    def placed(self, at: tuple[Mapping[str, Any], int] | None) -> Iterator[None]:
        """What is saved within belongs to this place: batches that were fetched since were not trained on."""
        now, self.at = self.at, at or self.at
        yield
        self.at = now

    def save(self, folder: Path, step: int) -> None:
        """Write the place that `at` tells, after `step` steps."""
        assert self.at is not None, "a checkpoint comes after a step"
        window, used = self.at
        content = {"key": self._stream.key, "files": self._stream.files, "sampling": self._sampling()}
        content |= {"window": window, "used": used, "step": step}
        (folder / POSITION).write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def _as_it_is(batch: Any) -> Any:
    return batch


class StreamLoader(DataLoader[Any]):
    """The batches of a stream as they come, in this process: encoding ahead is done below, in processes."""

    def __init__(self, batches: StreamBatches, *, pin_memory: bool) -> None:
        super().__init__(batches, batch_size=None, collate_fn=_as_it_is, pin_memory=pin_memory)
