"""The data of a run in one call: prepare, cut, mix, hold out, pack, count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import DataError, Problem, UsageError
from tunesmith.core.types import Example
from tunesmith.data.dataset import CHOSEN, TokenDataset
from tunesmith.data.formats.base import KINDS
from tunesmith.data.length import LengthOutcome, raise_for_lost_rows
from tunesmith.data.lint.quick import quick_lint
from tunesmith.data.mix import distinct, hold_out, mix
from tunesmith.data.opened import DataFile
from tunesmith.data.pack import PackedDataset, arrange
from tunesmith.data.prepare import Progress
from tunesmith.data.prepared import PROMPT_TOO_LONG, Pool, Prepared, prepare_datasets
from tunesmith.data.reading import load_datasets
from tunesmith.data.report import PLACES, DataReport, SplitReport
from tunesmith.data.seen import MediaOfSequences
from tunesmith.data.streaming.samples import SampleStream
from tunesmith.render.turns import Statistics

if TYPE_CHECKING:
    from tunesmith.config.data import DataConfig
    from tunesmith.media.processor import Media
    from tunesmith.render import Renderer

__all__ = ["Datasets", "build_datasets", "read_examples"]

Indices = npt.NDArray[np.int64]
HELD_OUT = "validation"

Samples: TypeAlias = TokenDataset | PackedDataset
"""What is trained on: sequences, or packs or pairs of them, by number, with their `lengths`."""


@dataclass(slots=True)
class Datasets:
    """What a run trains on, what it is evaluated on (by name), what became of the rows, and their files."""

    train: Samples | SampleStream | None
    eval: dict[str, Samples] = field(default_factory=dict)
    report: DataReport = field(default_factory=DataReport)
    files: list[DataFile] = field(default_factory=list)
    read_media: MediaOfSequences | None = None
    """What collators read media with; None where there are none."""

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence; of a pack or a pair, of its longest piece; of a stream, of its beginning."""
        train = self.train.first().samples if isinstance(self.train, SampleStream) else self.train
        parts = [part for part in (train, *self.eval.values()) if part is not None and len(part)]
        pieces = [part.pieces if isinstance(part, PackedDataset) else part for part in parts]
        return max((int(part.lengths.max()) for part in pieces), default=0)

    @property
    def stored_ids(self) -> Iterator[npt.NDArray[np.int32]]:
        """The ids that training may read, as they are stored: before anything is cut or held out; of a stream, its
        beginning."""
        train = self.train.first().samples if isinstance(self.train, SampleStream) else self.train
        pieces = train.pieces if isinstance(train, PackedDataset) else train
        yield from (store.ids for store in (() if pieces is None else pieces.stores))


def read_examples(data: DataConfig, *, stage: str, which: str = "train", seed: int = 42) -> list[Example]:
    """The examples of `dataset` (`which="eval"`: of `eval_dataset`), one dataset after the other, not mixed."""
    return [example for one in load_datasets(data, stage=stage, seed=seed, uses=(which,)) for example in one.examples]


def build_datasets(
    data: DataConfig,
    renderer: Renderer,
    *,
    stage: str,
    seed: int,
    resumes: bool = False,
    on_progress: Progress | None = None,
) -> Datasets:
    """Everything between the config's `dataset` and token arrays. A pair is one item, a PackedDataset's.

    The evaluation data is `eval_dataset`, or what `val_size` takes from `dataset`; named "validation", or after each
    dataset with `eval_on_each_dataset`. `resumes`: for a run that goes on.

    Raises DataError (65) or MissingInputError (66) with all problems of the rows; UsageError (2) where `val_size`
    leaves no rows for training or for validation, or where a setting has no meaning for the stage.
    """
    raise_for_meaningless(data, stage)
    blocks = stage == "pt" and data.packs(stage)
    prepared = prepare_datasets(data, renderer, stage=stage, seed=seed, resumes=resumes, on_progress=on_progress)
    outcomes = [] if blocks else [one.fit(data.cutoff_len, data.on_too_long) for one in prepared]
    raise_for_lost_rows(outcomes)
    for one in prepared:
        one.count()
    train = [one for one in prepared if one.report.use == "train"]
    evaluation = [one for one in prepared if one.report.use == "eval"]
    splits: dict[str, TokenDataset] = {}
    if train:
        pool = Pool.of(train)
        order = mix([len(order) for order in pool.orders], data.mix_strategy, data.interleave_probs or None, seed)
        train_order, held = _split(data, np.concatenate(pool.orders)[order], seed)
        splits["train"] = pool.take(train_order)
        if len(held):
            splits[HELD_OUT] = pool.take(held)
    for name, group in _eval_groups(evaluation, data.eval_on_each_dataset).items():
        pool = Pool.of(group)
        splits[name] = pool.take(np.concatenate(pool.orders))
    if empty := [name for name, tokens in splits.items() if not len(tokens)]:
        raise DataError([_nothing_left(name, prepared) for name in empty])
    packed = {name for name in splits if data.packs(stage) and (name == "train" or stage == "pt")}
    rows = {
        name: arrange(tokens, stage, data.cutoff_len, seed, packs=name in packed) for name, tokens in splits.items()
    }
    report = _report(prepared, rows, outcomes)
    evaluated = {name: samples for name, samples in rows.items() if name != "train"}
    report.notices += quick_lint(rows.get("train"), evaluated)
    reads = media_reader(renderer, data, splits.values())
    return Datasets(rows.pop("train", None), rows, report, [file for one in prepared for file in one.files], reads)


def media_reader(
    renderer: Renderer, data: DataConfig, samples: Iterable[TokenDataset | PackedDataset]
) -> MediaOfSequences | None:
    """What reads the media of these samples, if they have any."""
    pieces = (one.pieces if isinstance(one, PackedDataset) else one for one in samples)
    media = renderer.media
    return reader_of(media, data) if media is not None and any(one.has_media for one in pieces) else None


def reader_of(media: Media, data: DataConfig) -> MediaOfSequences:
    """What reads media as the config says."""
    return MediaOfSequences(media, skip=data.on_bad_media == "skip")


def raise_for_meaningless(data: DataConfig, stage: str) -> None:
    """The same as rules of the config's checks, for those who come without a config of a run."""
    problems = []
    if KINDS[stage] not in ("document", "chat") and data.on_too_long == "split":
        what = f"on_too_long: split makes several samples of one, and in stage {stage} a part of an answer is none"
        problems.append(Problem("E-CONFIG-021", what, "on_too_long", fix="on_too_long: truncate, drop or error"))
    if KINDS[stage] == "prompt" and data.packs(stage):
        what = f"packing is for what is trained on, and stage {stage} answers prompts"
        problems.append(Problem("E-CONFIG-021", what, "packing", fix="packing: false"))
    if problems:
        raise UsageError(problems)


def _split(data: DataConfig, order: Indices, seed: int) -> tuple[Indices, Indices]:
    """(train, held out); raises UsageError where one of them would be empty."""
    if not data.val_size:
        return order, np.zeros(0, np.int64)
    train, held = hold_out(order, data.val_size, seed)
    if not len(train) or not len(held):
        rows, side = len(distinct(order)), "training" if not len(train) else "validation"
        what = f"val_size {data.val_size:g} of {rows:,} rows leaves none for {side}"
        raise UsageError(Problem("E-DATA-024", what, fix=f"a number of rows below {rows:,}, or a share such as 0.1"))
    return train, held


def _eval_groups(evaluation: Sequence[Prepared], each: bool) -> Mapping[str, list[Prepared]]:
    """Evaluation datasets by the name that their metrics carry: all as one, or each by itself."""
    if not each:
        return {HELD_OUT: list(evaluation)} if evaluation else {}
    groups: dict[str, list[Prepared]] = {}
    for one in evaluation:
        name = one.name if one.registered else Path(one.name).stem
        groups[name if name not in groups and name != "train" else f"{name}_{len(groups) + 1}"] = [one]
    return groups


def _nothing_left(name: str, prepared: Sequence[Prepared]) -> Problem:
    reports = [one.report for one in prepared if (one.report.use == "train") == (name == "train")]
    reports = reports or [one.report for one in prepared]  # held out of what is trained on
    reasons = dict.fromkeys(reason for one in reports for reason in one.dropped)
    places = [places[0] for one in reports for places in one.dropped_places.values() if places]
    fix = "raise cutoff_len" if PROMPT_TOO_LONG in reasons else None
    where = ", ".join(places[:PLACES]) or None
    return Problem("E-DATA-019", f"no sample is left for {name}", where, "; ".join(reasons) or None, fix)


def _report(
    prepared: Sequence[Prepared], splits: Mapping[str, Samples], outcomes: Sequence[LengthOutcome]
) -> DataReport:
    report = DataReport([one.report for one in prepared])
    statistics = sum((one.statistics for one in prepared), Counter())
    report.notices = [notice for one in prepared for notice in one.notices] + Statistics(**statistics).lines()
    report.encoders = list(dict.fromkeys(one.encoder for one in prepared))
    report.lengths = [outcome.to_dict() for outcome in outcomes]
    for name, tokens in splits.items():
        pairs = int(np.count_nonzero(tokens.pieces.kinds == CHOSEN)) if isinstance(tokens, PackedDataset) else 0
        single = tokens.pieces if isinstance(tokens, PackedDataset) and pairs == len(tokens) else tokens
        longest = int(single.lengths.max())
        report.splits.append(SplitReport(name, len(tokens), tokens.num_tokens, tokens.num_trained, longest, pairs))
    return report
