"""How long the samples of a config are, what cutoff_len cuts, and what packing saves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import MachineError, OutputError, Problem
from tunesmith.stats.rows import make_renderer_of, refuse_streams, seed_of
from tunesmith.train.counting import Counting

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.data.dataset import TokenDataset

__all__ = ["Lengths", "lengths", "plot_lengths", "share_up_to"]

Ints = npt.NDArray[np.int64]
_PERCENTILES = (5, 25, 50, 75, 90, 95, 99)
_STEPS = 12  # of the cumulative table, about


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths in tokens of the samples of `dataset`, before anything is cut.

    up_to: (length, samples that are at most so long, their share). cut: share of samples longer than cutoff_len, and
    of tokens that are lost by it under on_too_long (None where that is `error`). rows: of the run with packing;
    padding: share of padding in padded batches of `batch` rows drawn at random; `filled`: share of packs that holds
    tokens."""

    samples: int
    tokens: int
    trained: int
    mean: float
    shortest: int
    longest: int
    percentiles: dict[int, int]
    up_to: list[tuple[int, int, float]]
    cutoff_len: int
    too_long: int
    cut_samples: float
    cut_tokens: float | None
    batch: int
    padding: float
    packs: int | None
    filled: float | None
    values: Ints = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        found.pop("values")
        return found


def lengths(config: RunConfig, interval: int | None = None) -> Lengths:
    """Read the rows of `dataset` as training does. `interval`: tokens between two lines of `up_to` (None: a round
    number that gives about a dozen)."""
    from tunesmith.data.prepared import prepare_datasets

    refuse_streams(config)
    renderer, _ = make_renderer_of(config)
    stage, seed = config.objective.stage, seed_of(config)
    with Counting("preparing", "rows") as count:
        prepared = prepare_datasets(config.data, renderer, stage=stage, seed=seed, on_progress=count)
    samples = _joined([one.tokens for one in prepared if one.report.use == "train"] or [one.tokens for one in prepared])
    values = samples.lengths
    cutoff_len = config.data.cutoff_len
    kept = _kept(samples, config)
    batch = int(config.train.hf.get("per_device_train_batch_size", 8))
    packs = _packs(kept, stage, cutoff_len, seed)
    return Lengths(
        samples=len(values),
        tokens=samples.num_tokens,
        trained=samples.num_trained,
        mean=round(float(values.mean()), 2),
        shortest=int(values.min()),
        longest=int(values.max()),
        percentiles={each: int(np.percentile(values, each, method="higher")) for each in _PERCENTILES},
        up_to=share_up_to(values, interval or _round(int(values.max()) / _STEPS)),
        cutoff_len=cutoff_len,
        too_long=int((values > cutoff_len).sum()),
        cut_samples=round(float((values > cutoff_len).mean()), 6),
        cut_tokens=None if config.data.on_too_long == "error" else round(1 - kept.num_tokens / samples.num_tokens, 6),
        batch=batch,
        padding=round(_padding(kept.lengths, batch, seed), 6),
        packs=packs,
        filled=round(kept.num_tokens / (packs * _capacity(stage, cutoff_len)), 6) if packs else None,
        values=values,
    )


def share_up_to(values: Ints, interval: int) -> list[tuple[int, int, float]]:
    """(length, samples at most so long, their share) for multiples of `interval`, up to the first that has all."""
    edges = np.arange(interval, int(values.max()) + interval, interval)
    counts = np.searchsorted(np.sort(values), edges, side="right")
    return [(int(edge), int(count), round(count / len(values), 6)) for edge, count in zip(edges, counts, strict=True)]


def _joined(parts: list[TokenDataset]) -> TokenDataset:
    from tunesmith.core.errors import DataError
    from tunesmith.data.dataset import TokenDataset

    joined = TokenDataset.concatenate(parts)
    if not len(joined):
        raise DataError(Problem("E-STATS-003", "no sample is left to measure", fix="tunesmith data check says why"))
    return joined


def _kept(samples: TokenDataset, config: RunConfig) -> TokenDataset:
    """What is left of them in training; `error` would end a run, so of those only what fits."""
    from tunesmith.data.length import fit_lengths

    policy = "drop" if config.data.on_too_long == "error" else config.data.on_too_long
    return fit_lengths(samples, config.data.cutoff_len, policy)[0]


def _capacity(stage: str, cutoff_len: int) -> int:
    """Tokens of a row: each of a pair may have cutoff_len."""
    from tunesmith.data.formats.base import KINDS

    return cutoff_len * (2 if KINDS[stage] == "preference" else 1)


def _packs(samples: TokenDataset, stage: str, cutoff_len: int, seed: int) -> int | None:
    """Rows of the run with packing; None where a stage has none."""
    from tunesmith.data.formats.base import KINDS
    from tunesmith.data.pack import arrange

    if KINDS[stage] == "prompt" or not len(samples):
        return None
    return len(arrange(samples, stage, cutoff_len, seed, packs=True))


def _padding(values: Ints, batch: int, seed: int) -> float:
    """Share of padding where each batch of rows in random order is padded to its longest."""
    drawn = np.random.default_rng(seed).permutation(values)
    widths = [
        int(drawn[begin : begin + batch].max()) * len(drawn[begin : begin + batch])
        for begin in range(0, len(drawn), batch)
    ]
    return 1 - int(values.sum()) / sum(widths) if widths else 0.0


def _round(number: float) -> int:
    """The next of 1, 2, 5, 10, 20, 50 ..."""
    power = 1
    while True:
        for digit in (1, 2, 5):
            if digit * power >= number:
                return digit * power
        power *= 10


def plot_lengths(found: Lengths, file: Path) -> None:
    """A histogram and the cumulative share as a picture. Raises MachineError without matplotlib, OutputError where the
    file cannot be written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        fix = 'pip install "tunesmith[plot]"; --json has the numbers'
        raise MachineError(Problem("E-STATS-004", "a picture needs matplotlib", "--plot", fix=fix)) from error
    figure = Figure(figsize=(8, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.hist(found.values, bins=60, color="#9ecae1")
    axes.set(xlabel="tokens", ylabel="samples")
    axes.axvline(found.cutoff_len, color="#d94801", linestyle="--", label=f"cutoff_len {found.cutoff_len:,}")
    share = axes.twinx()
    ordered = np.sort(found.values)
    share.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), color="#08519c")
    share.set(ylabel="share of samples", ylim=(0, 1.02))
    axes.set_xlim(0, max(found.longest, 1) * 1.02)
    if found.cutoff_len <= found.longest * 1.02:
        axes.legend(loc="center right")
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:  # ValueError: an ending that names no kind of picture
        what, fix = "the picture cannot be written", "--plot lengths.png, in a folder that exists"
        raise OutputError(Problem("E-STATS-005", what, str(file), str(error), fix)) from error
