"""Examples to samples: rendered in batches, cut, counted; rows that cannot be rendered are bad rows too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import Chat, Encoded, Example, Text
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.reading import LoadedDataset
from tunesmith.data.report import DatasetReport
from tunesmith.data.truncate import cut_point
from tunesmith.render.errors import RenderError

if TYPE_CHECKING:
    from tunesmith.render import Renderer

__all__ = ["Encoder", "Pool", "Progress", "render_examples"]

Progress = Callable[[int, int | None], None]
"""Called with (examples done, of how many)."""

NOTHING_TRAINED = "nothing of it is trained"
PROMPT_TOO_LONG = "the prompt alone is longer than cutoff_len"


@dataclass(slots=True)
class Pool:
    """The samples of some examples: those of example i are numbers first[i] to first[i + 1] of `tokens`."""

    tokens: TokenDataset
    first: npt.NDArray[np.int64]

    def take(self, examples: npt.NDArray[np.int64]) -> TokenDataset:
        """All samples of these examples, in this order."""
        counts = np.diff(self.first)[examples]
        before: npt.NDArray[np.int64] = np.cumsum(counts) - counts
        samples = np.arange(counts.sum(), dtype=np.int64) + np.repeat(self.first[examples] - before, counts)
        return self.tokens.take(samples)


@dataclass(slots=True)
class Encoder:
    """Renders and cuts examples. `cutoff_len` None: nothing is cut, because blocks are made later."""

    renderer: Renderer
    batch_size: int
    cutoff_len: int | None
    total: int
    notify: Progress | None
    done: int = 0

    def __call__(self, datasets: Sequence[LoadedDataset], wanted: npt.NDArray[np.int64]) -> Pool:
        """The samples of the examples `wanted` (sorted indices into the concatenated datasets)."""
        counts = np.zeros(sum(len(one.examples) for one in datasets), dtype=np.int64)
        batches, start = [], 0
        for one in datasets:
            end = start + len(one.examples)
            mine = wanted[(wanted >= start) & (wanted < end)]
            for begin in range(0, len(mine), self.batch_size):
                batch = mine[begin : begin + self.batch_size]
                kept = self._encode([one.examples[index - start] for index in batch], one)
                counts[batch] = [len(samples) for samples in kept]
                batches.append(TokenDataset.from_encoded(sample for samples in kept for sample in samples))
                self.done += len(batch)
                if self.notify is not None:
                    self.notify(self.done, self.total)
            start = end
        return Pool(TokenDataset.concatenate(batches), np.concatenate([[0], np.cumsum(counts)]))

    def _encode(self, examples: Sequence[Example], dataset: LoadedDataset) -> list[list[Encoded]]:
        """The samples of each example, cut; none for one that cannot be rendered, which becomes a bad row."""
        try:
            return [self._fit(samples, dataset.report) for samples in render_examples(self.renderer, examples)]
        except RenderError as error:
            if not error.failed:
                raise
            failed = set(error.failed)
            for index, problem in zip(error.failed, error.problems, strict=True):
                origin = examples[index].origin
                dataset.bad.add(origin, problem.code, problem.what, got=problem.got, fix=problem.fix)
                dataset.report.drop(problem.what, origin)
        others = [example for index, example in enumerate(examples) if index not in failed]
        rendered = iter(render_examples(self.renderer, others))
        return [[] if index in failed else self._fit(next(rendered), dataset.report) for index in range(len(examples))]

    def _fit(self, samples: Sequence[Encoded], report: DatasetReport) -> list[Encoded]:
        """The samples of one row, cut; counts what was lost. Empty where nothing can be trained."""
        kept: list[Encoded] = []
        reason = NOTHING_TRAINED
        for sample in samples:
            trained = np.asarray(sample.trained, dtype=np.bool_)
            if not trained.any():
                continue
            cut = cut_point(trained, len(trained) if self.cutoff_len is None else self.cutoff_len)
            if not cut.length:
                reason = PROMPT_TOO_LONG
                continue
            if cut.answer_cut:
                report.answers_cut.add(sample.origin, cut.turns_dropped)
            elif cut.turns_dropped:
                report.turns_dropped.add(sample.origin, cut.turns_dropped)
            kept.append(Encoded(sample.ids[: cut.length], sample.trained[: cut.length], sample.origin))
            report.tokens += cut.length
            report.trained += int(np.count_nonzero(trained[: cut.length]))
        if not kept:
            report.drop(reason, samples[0].origin if samples else None)
            return []
        if lost := len(samples) - len(kept):
            report.turns_dropped.add(samples[0].origin, lost)
        report.kept += 1
        report.samples += len(kept)
        return kept


def render_examples(renderer: Renderer, examples: Sequence[Example]) -> list[list[Encoded]]:
    """The samples of each example, as the renderer makes them. A stage has examples of one kind."""
    texts = [example for example in examples if isinstance(example, Text)]
    if texts:
        return [[encoded] for encoded in renderer.encode_texts(texts)]
    return renderer.encode_chats([example for example in examples if isinstance(example, Chat)])
