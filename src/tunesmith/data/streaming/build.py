"""The data of a run that streams: training rows stay where they are, evaluation data is prepared beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.errors import DataError, Problem, TunesmithError, UsageError
from tunesmith.core.log import get_logger
from tunesmith.data.build import HELD_OUT, Datasets, build_datasets, raise_for_meaningless, reader_of
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.dataset_info import resolve
from tunesmith.data.lint.quick import quick_lint
from tunesmith.data.opened import OpenDataset, open_dataset
from tunesmith.data.pack import arrange
from tunesmith.data.prepare import Progress
from tunesmith.data.reading import raise_together
from tunesmith.data.report import SplitReport
from tunesmith.data.streaming.encode import WindowEncoder
from tunesmith.data.streaming.rows import RowStream, RowWindow
from tunesmith.data.streaming.samples import SampleStream, fitted, in_order
from tunesmith.data.streaming.tally import StreamTally
from tunesmith.data.workers import available_workers

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.render import Renderer

__all__ = ["build_stream"]

Place = tuple[int, int]
"""(dataset, number of a row in it)"""


def build_stream(
    data: DataConfig,
    renderer: Renderer,
    *,
    stage: str,
    seed: int,
    position: Mapping[str, Any] | None = None,
    on_progress: Progress | None = None,
) -> Datasets:
    """`train` is a SampleStream that has made its first window, so that what is wrong with the first `buffer_size` rows
    is told before the weights are read. `position`: where a checkpoint says that the stream goes on.

    The evaluation data is `eval_dataset`, or `val_size` rows drawn from the first rows of `dataset`, which are then not
    trained on. Raises what `build_datasets` raises; DataError (E-DATA-113) where `position` is of another stream.
    """
    raise_for_meaningless(data, stage)
    opened = _open(data, stage, seed)
    renderer.speed_up()
    workers = available_workers() if data.preprocessing_num_workers is None else data.preprocessing_num_workers
    ahead = -(-data.buffer_size // data.preprocessing_batch_size)
    encoder = WindowEncoder(opened, renderer, block=data.preprocessing_batch_size, workers=workers, ahead=ahead)
    splits: dict[str, Any] = {}
    held: set[Place] = set()
    if data.val_size:
        drawn, held = _hold_out(data, _rows(opened, data, seed, max(data.buffer_size, int(data.val_size))), seed)
        samples = _encode_held(drawn, opened, encoder, data, stage)
        splits[HELD_OUT] = arrange(samples, stage, data.cutoff_len, seed, packs=stage == "pt" and data.packs(stage))
    marked = [one.marked_files("train") for one in opened]
    key, files = _key(opened, data, renderer, stage, seed), [[file.digest for file in one] for one in marked]
    if position is not None:
        _check(position, key, files, opened)
    rows = _rows(opened, data, seed, data.buffer_size, held)
    start = None if position is None else position["window"]
    stream = SampleStream(opened, rows, encoder, data, stage=stage, seed=seed, key=key, files=files, start=start)
    encoder.on_progress = on_progress
    first = stream.first()
    encoder.on_progress = None
    report = stream.tally.report()
    if data.eval_dataset:
        rest = build_datasets(replace(data, dataset=(), streaming=False), renderer, stage=stage, seed=seed)
        splits |= rest.eval
        report.datasets += rest.report.datasets
        report.notices += rest.report.notices
        marked.append(rest.files)
    for name, samples in splits.items():
        longest = int(samples.lengths.max())
        report.splits.append(SplitReport(name, len(samples), samples.num_tokens, samples.num_trained, longest))
    report.notices += quick_lint(first.samples, splits)
    read = sum(one.rows for one in stream.tally.reports)
    report.notices.append(f"streaming: rows are read while training; counted so far are the first {read:,}")
    reads = None if renderer.media is None else reader_of(renderer.media, data)  # media may come in any window
    return Datasets(stream, splits, report, [file for one in marked for file in one], reads)


def _open(data: DataConfig, stage: str, seed: int) -> list[OpenDataset]:
    opened: list[OpenDataset] = []
    problems: list[Problem] = []
    for spec in resolve(list(data.dataset), data.dataset_dir, offline=data.offline):
        limits: dict[str, Any] = {"max_samples": data.max_samples, "seed": seed, "offline": data.offline}
        limits["media_dir"] = data.media_dir
        try:
            opened.append(open_dataset(spec, stage, streaming=True, **limits))
        except TunesmithError as error:
            problems += error.problems
    raise_together(problems)
    return opened


def _rows(
    opened: Sequence[OpenDataset], data: DataConfig, seed: int, window: int, held: set[Place] | None = None
) -> RowStream:
    probs = data.interleave_probs or None
    return RowStream(opened, window, strategy=data.mix_strategy, probs=probs, seed=seed, held=held or ())


def _hold_out(data: DataConfig, rows: RowStream, seed: int) -> tuple[RowWindow, set[Place]]:
    """`val_size` of the first rows. Raises UsageError where there are no more."""
    window, wanted = next(rows.windows()), int(data.val_size)
    places = [(row.dataset, row.number) for row in window.rows]
    different = list(dict.fromkeys(places))  # a mix may repeat rows
    if len(different) <= wanted:
        what = f"val_size {wanted:,} of {len(different):,} rows leaves none for training"
        raise UsageError(Problem("E-DATA-024", what, fix=f"a number of rows below {len(different):,}"))
    drawn = np.sort(np.random.default_rng(seed).permutation(len(different))[:wanted])
    held = {different[number] for number in drawn.tolist()}
    found = {place: row for place, row in zip(places, window.rows, strict=True) if place in held}
    return replace(window, rows=list(found.values())), held


def _encode_held(
    window: RowWindow, opened: Sequence[OpenDataset], encoder: WindowEncoder, data: DataConfig, stage: str
) -> TokenDataset:
    def once(_state: Any) -> Iterator[RowWindow]:
        return iter([window])

    encoded = next(encoder.encoded(once))
    StreamTally(opened, data).add(encoded, fitted(encoded, data, stage))
    samples = in_order(encoded)
    if not len(samples):
        raise DataError(Problem("E-DATA-019", f"no sample is left for {HELD_OUT}", fix="raise val_size or cutoff_len"))
    return samples


def _key(opened: Sequence[OpenDataset], data: DataConfig, renderer: Renderer, stage: str, seed: int) -> dict[str, Any]:
    """All that decides which samples follow a place in the stream, but for the contents of the files."""
    formats = [None if one.format is None else [type(one.format).__name__, one.format.columns] for one in opened]
    return {
        "stage": stage,
        "seed": seed,
        "dataset": [one.spec.location for one in opened],
        "columns": formats,
        "buffer_size": data.buffer_size,
        "mix_strategy": data.mix_strategy,
        "interleave_probs": list(data.interleave_probs),
        "max_samples": data.max_samples,
        "val_size": data.val_size,
        "cutoff_len": data.cutoff_len,
        "on_too_long": data.on_too_long,
        "packing": data.packs(stage),
        "template": renderer.fingerprint(),
    }


def _check(
    position: Mapping[str, Any], key: Mapping[str, Any], files: Sequence[Sequence[str]], opened: Sequence[OpenDataset]
) -> None:
    """Another stream is an error; other contents of a file, or another template, may be meant, and are told."""
    before = position["key"]
    changed = [name for name in key if before.get(name) != key[name]]
    if "template" in changed:
        changed.remove("template")
        get_logger().warning("the template or the tokenizer is not that of the checkpoint: the stream goes on with it")
    if changed:
        got = "; ".join(f"{name} was {before.get(name)}, is {key[name]}" for name in changed)
        fix = "write them as they were, or overwrite_output_dir: true to start afresh"
        what = f"the checkpoint is of another stream: {', '.join(changed)}"
        raise DataError(Problem("E-DATA-113", what, got=got, fix=fix))
    for one, marks, known in zip(opened, files, position["files"], strict=True):
        names = [file.name for file in one.files]
        if len(marks) != len(known):
            what = f"{one.spec.location} had {len(known):,} files and has {len(marks):,}"
            get_logger().warning("%s since the checkpoint: the stream goes on at the place that it had come to", what)
        for name in (name for name, mark, was in zip(names, marks, known, strict=False) if mark != was):
            get_logger().warning("%s has changed since the checkpoint: the stream goes on at the same row of it", name)
