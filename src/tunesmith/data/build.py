"""The data of a run in one call: read, mix, hold out, render, cut, pack, count."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import DataError, Problem, UsageError
from tunesmith.core.types import Chat, Encoded, Example, Text
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.mix import hold_out, mix
from tunesmith.data.pack import pack
from tunesmith.data.reading import LoadedDataset, load_datasets
from tunesmith.data.report import DataReport, DatasetReport, SplitReport
from tunesmith.data.truncate import cut_point

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.render import Renderer

__all__ = ["Datasets", "Progress", "build_datasets", "read_examples"]

Progress = Callable[[int, int | None], None]
"""Called with (examples done, of how many)."""


@dataclass(slots=True)
class Datasets:
    """What a run trains on, what it is evaluated on (by name), and what became of the rows."""

    train: TokenDataset | None
    eval: dict[str, TokenDataset] = field(default_factory=dict)
    report: DataReport = field(default_factory=DataReport)


def read_examples(data: DataConfig, *, stage: str, which: str = "train", seed: int = 42) -> list[Example]:
    """The examples of `dataset` (`which="eval"`: of `eval_dataset`), one dataset after the other, not mixed."""
    return [example for one in load_datasets(data, stage=stage, seed=seed, uses=(which,)) for example in one.examples]


def build_datasets(
    data: DataConfig, renderer: Renderer, *, stage: str, seed: int, on_progress: Progress | None = None
) -> Datasets:
    """Everything between the config's `dataset` and token arrays.

    Raises DataError (65) or MissingInputError (66) with all problems of the rows; UsageError (2) where the keys of
    mixing and splitting do not fit the datasets.
    """
    loaded = load_datasets(data, stage=stage, seed=seed)
    train = [one for one in loaded if one.report.use == "train"]
    held_for_eval = [one for one in loaded if one.report.use == "eval"]
    order = _mixed_order(data, [len(one.examples) for one in train], seed)
    train_order, held = _split(data, order, seed)
    packed = stage == "pt" and data.packing is not False
    progress = _Counter(on_progress, len(np.unique(order)) + sum(len(one.examples) for one in held_for_eval))
    report = DataReport([one.report for one in loaded], notices=[note for one in loaded for note in one.notices])
    datasets = Datasets(None, report=report)

    def finish(pool: _Pool, indices: npt.NDArray[np.int64], name: str) -> TokenDataset:
        tokens = pool.tokens.take(pool.samples_of(indices))
        if not len(tokens):
            raise DataError(_nothing_left(name, loaded))
        tokens = pack(tokens, data.cutoff_len) if packed else tokens
        longest = int(tokens.lengths.max())
        report.splits.append(SplitReport(name, len(tokens), tokens.num_tokens, tokens.num_trained, longest))
        return tokens

    encode = _Encoder(renderer, data.preprocessing_batch_size, None if packed else data.cutoff_len, progress)
    if train:
        pool = encode(train, np.unique(order))
        datasets.train = finish(pool, train_order, "train")
        if len(held):
            datasets.eval["validation"] = finish(pool, held, "validation")
    for name, group in _eval_groups(held_for_eval, data.eval_on_each_dataset).items():
        every = np.arange(sum(len(one.examples) for one in group), dtype=np.int64)
        datasets.eval[name] = finish(encode(group, every), every, name)
    _warn_of_lost_prompts(report)
    return datasets


def _mixed_order(data: DataConfig, sizes: Sequence[int], seed: int) -> npt.NDArray[np.int64]:
    probs = data.interleave_probs or None
    if probs is not None and data.mix_strategy != "concat" and (len(probs) != len(sizes) or min(probs) <= 0):
        what = f"interleave_probs has {len(probs)} numbers for {len(sizes)} datasets; each must be above 0"
        raise UsageError(Problem("E-DATA-024", what, fix="one number above 0 per dataset, in the order of dataset"))
    return mix(sizes, data.mix_strategy, probs, seed) if sizes else np.zeros(0, np.int64)


def _split(
    data: DataConfig, order: npt.NDArray[np.int64], seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(train, held out); raises UsageError where one of them would be empty."""
    if not data.val_size or not len(order):
        return order, np.zeros(0, np.int64)
    train, held = hold_out(order, data.val_size, seed)
    if not len(train) or not len(held):
        rows, side = len(np.unique(order)), "training" if not len(train) else "validation"
        what = f"val_size {data.val_size:g} of {rows:,} rows leaves none for {side}"
        raise UsageError(Problem("E-DATA-025", what, fix=f"a number of rows below {rows:,}, or a share such as 0.1"))
    return train, held


def _eval_groups(loaded: Sequence[LoadedDataset], each: bool) -> Mapping[str, list[LoadedDataset]]:
    """Evaluation datasets by the name that their metrics carry: all as one, or each by itself."""
    if not each:
        return {"validation": list(loaded)} if loaded else {}
    groups: dict[str, list[LoadedDataset]] = {}
    for one in loaded:
        stem = Path(one.spec.name).stem
        name = stem if stem not in groups else f"{stem}_{len(groups) + 1}"
        groups[name] = [one]
    return groups


@dataclass(slots=True)
class _Counter:
    notify: Progress | None
    total: int
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        if self.notify is not None:
            self.notify(self.done, self.total)


@dataclass(slots=True)
class _Pool:
    """The samples of some examples: those of example i are numbers first[i] to first[i + 1] of `tokens`."""

    tokens: TokenDataset
    first: npt.NDArray[np.int64]

    def samples_of(self, examples: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        counts = np.diff(self.first)[examples]
        ends = np.cumsum(counts)
        shift: npt.NDArray[np.int64] = np.repeat(self.first[examples] - (ends - counts), counts)
        return np.arange(len(shift), dtype=np.int64) + shift


@dataclass(frozen=True, slots=True)
class _Encoder:
    """Renders and cuts examples batch by batch. `cutoff_len` None: nothing is cut, because blocks are made later."""

    renderer: Renderer
    batch_size: int
    cutoff_len: int | None
    progress: _Counter

    def __call__(self, datasets: Sequence[LoadedDataset], wanted: npt.NDArray[np.int64]) -> _Pool:
        """The samples of the examples `wanted` (sorted indices into the concatenated datasets)."""
        counts = np.zeros(sum(len(one.examples) for one in datasets), dtype=np.int64)
        batches, start = [], 0
        for one in datasets:
            end = start + len(one.examples)
            mine = wanted[(wanted >= start) & (wanted < end)]
            for begin in range(0, len(mine), self.batch_size):
                batch = mine[begin : begin + self.batch_size]
                groups = self._groups([one.examples[index - start] for index in batch])
                kept = [self._fit(group, one.report) for group in groups]
                counts[batch] = [len(group) for group in kept]
                batches.append(TokenDataset.from_encoded(sample for group in kept for sample in group))
                self.progress.add(len(batch))
            start = end
        return _Pool(TokenDataset.concatenate(batches), np.concatenate([[0], np.cumsum(counts)]))

    def _groups(self, examples: Sequence[Example]) -> list[list[Encoded]]:
        """The samples of each example; one stage has one kind of example."""
        texts = [example for example in examples if isinstance(example, Text)]
        if texts:
            return [[encoded] for encoded in self.renderer.encode_texts(texts)]
        return self.renderer.encode_chats([example for example in examples if isinstance(example, Chat)])

    def _fit(self, samples: Sequence[Encoded], report: DatasetReport) -> list[Encoded]:
        """The samples of one row, cut; counts what was lost. Empty where nothing can be trained."""
        kept: list[Encoded] = []
        reason = "nothing of it is trained"
        for sample in samples:
            trained = np.asarray(sample.trained, dtype=np.bool_)
            if not trained.any():
                continue
            limit = len(trained) if self.cutoff_len is None else self.cutoff_len
            cut = cut_point(trained, limit)
            if not cut.length:
                reason = "the prompt alone is longer than cutoff_len"
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


def _nothing_left(name: str, loaded: Sequence[LoadedDataset]) -> Problem:
    reasons = {reason: None for one in loaded for reason in one.report.dropped}
    fix = "raise cutoff_len" if any("cutoff_len" in reason for reason in reasons) else "see what the rows lack"
    return Problem("E-DATA-019", f"no sample is left for {name}", got="; ".join(reasons) or None, fix=fix)


def _warn_of_lost_prompts(report: DataReport) -> None:
    """A few rows that are too long are normal; many of them mean that cutoff_len is wrong for this data."""
    for one in report.datasets:
        lost = sum(number for reason, number in one.dropped.items() if "cutoff_len" in reason)
        if lost > one.rows * 0.05:
            report.notices.append(
                f"{one.name}: {lost:,} of {one.rows:,} rows are lost because the prompt alone fills cutoff_len"
            )
