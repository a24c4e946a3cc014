"""What becomes of samples that are longer than cutoff_len (`on_too_long`), over a whole dataset at once.

truncate  as many whole turns from the start as fit; where not even the first answer fits, its beginning, without a stop
drop      left out
split     several samples, each with whole turns; a turn that is too long by itself is cut inside its answer
error     the run stops and names the longest

A turn ends where a run of trained tokens ends (with its stop token); a text is one run. Tokens are not copied: a sample
that is cut is a shorter view. Only samples that are too long cost time.

cutoff_len is for each sequence of a pair. A pair of which one sequence is left out is left out. A prompt for generation
is never cut, which would change the question. What compares or answers cannot be split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import DataError, Problem
from tunesmith.data.dataset import CHOSEN, REJECTED, Origins, TokenDataset
from tunesmith.data.mix import distinct

__all__ = ["POLICIES", "LengthOutcome", "fit_lengths", "histogram", "length_bars", "raise_for_lost_rows"]

Ints = npt.NDArray[np.int64]

LOST_AT_MOST = 0.05
"""Share of the rows that cutoff_len may leave nothing of; more means that it is wrong for this data."""
_AT_ONCE = 2**24  # tokens whose masks are read together
_PLACES = 3
_BAR = 30  # columns of the longest bar


def _none() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(slots=True)
class LengthOutcome:
    """What `fit_lengths` did. Samples are told by their numbers in the dataset before; all arrays are int64."""

    policy: str
    cutoff_len: int
    before: TokenDataset
    source: Ints
    """[M]: the sample that each one that is left was made of."""
    shortened: Ints = field(default_factory=_none)
    """Later turns did not fit; the last one kept is whole."""
    turns_left_out: int = 0
    answers_cut: Ints = field(default_factory=_none)
    """An answer (of a text: the text) is cut inside, so that the end that is learned is none."""
    dropped: Ints = field(default_factory=_none)
    """Left out because the policy says so."""
    lost: Ints = field(default_factory=_none)
    """Left out because nothing that is trained fits: the prompt alone fills cutoff_len."""
    split: Ints = field(default_factory=_none)
    """Cut into several samples."""

    @property
    def too_long(self) -> int:
        return int(np.count_nonzero(self.before.lengths > self.cutoff_len))

    def rows(self) -> tuple[int, int]:
        """(rows of files that lost all their samples to `lost`, rows in all)."""
        keys = _row_keys(self.before.origins)
        gone = distinct(keys[self.lost])
        return int(np.count_nonzero(~np.isin(gone, keys[self.source]))), len(distinct(keys))

    def lines(self) -> list[str]:
        """One line for each thing that happened, and a histogram of the lengths; empty if all samples fit."""
        if not self.too_long:
            return []
        lines = [f"{self.too_long:,} of {len(self.before):,} samples are longer than cutoff_len {self.cutoff_len:,}"]
        lines += [f"  {text.format(**self._numbers())}{self._first(which)}" for which, text in self._told()]
        return lines + ["  " + line for line in length_bars(self.before.lengths)]

    def to_dict(self) -> dict[str, Any]:
        """Counts and the histogram as plain values."""
        edges, counts = histogram(self.before.lengths)
        return {
            "policy": self.policy,
            "cutoff_len": self.cutoff_len,
            **self._numbers(),
            "rows_lost": self.rows()[0],
            "histogram": {"edges": edges.tolist(), "samples": counts.tolist()},
        }

    def _numbers(self) -> dict[str, int]:
        return {
            "samples": len(self.before),
            "too_long": self.too_long,
            "shortened": len(self.shortened),
            "turns_left_out": self.turns_left_out,
            "answers_cut": len(self.answers_cut),
            "dropped": len(self.dropped),
            "lost": len(self.lost),
            "split": len(self.split),
            "samples_left": len(self.source),
        }

    def _told(self) -> Iterator[tuple[Ints, str]]:
        texts = {
            "shortened": "{shortened:,} shortened: {turns_left_out:,} later answers are left out",
            "answers_cut": "{answers_cut:,} cut inside an answer",
            "dropped": "{dropped:,} dropped",
            "lost": "{lost:,} lost: the prompt alone fills cutoff_len",
            "split": "{split:,} split into several samples",
        }
        return ((getattr(self, name), text) for name, text in texts.items() if len(getattr(self, name)))

    def _first(self, which: Ints) -> str:
        return f" (first: {self.before.origin(int(which[0]))})"


def fit_lengths(tokens: TokenDataset, cutoff_len: int, policy: str) -> tuple[TokenDataset, LengthOutcome]:
    """The samples with at most `cutoff_len` tokens each, in their order, and what was done to get there.

    Raises DataError where `policy` is `error` and a sample is longer.
    """
    assert cutoff_len > 1, "the first token of a sample is never learned"
    assert policy != "split" or not tokens.has_kinds, "half of an answer is none: the caller says so"
    outcome = LengthOutcome(policy, cutoff_len, tokens, np.arange(len(tokens)))
    is_long = tokens.lengths > cutoff_len
    if not is_long.any():
        return tokens, outcome
    stays = np.ones(len(tokens), np.bool_)
    if tokens.has_kinds:
        stays[_leave_out(tokens, np.flatnonzero(is_long), outcome)] = False
    too_long, short = np.flatnonzero(is_long & stays), np.flatnonzero(~is_long & stays)
    made = [POLICIES[policy](tokens, part, outcome) for part in _parts(too_long, tokens.lengths)]
    kept = _Pieces(short, np.zeros_like(short), tokens.lengths[short], tokens.trained_counts[short])
    pieces = _Pieces(*(np.concatenate(arrays) for arrays in zip(kept, *made, strict=True)))
    order = np.argsort(pieces.source, kind="stable")
    source, offset, length, trained = (array[order] for array in pieces)
    outcome.source = source
    starts = tokens.starts[source] + offset
    origins, kinds, margins = tokens.origins.take(source), tokens.kinds[source], tokens.margins[source]
    made = TokenDataset(tokens.stores, tokens.store[source], starts, length, origins, trained, kinds, margins)
    return made, outcome


def _leave_out(tokens: TokenDataset, too_long: Ints, outcome: LengthOutcome) -> Ints:
    """The samples of which the policy leaves nothing and, of pairs, the other one as well."""
    match outcome.policy:
        case "drop":
            outcome.dropped = gone = _with_their_others(tokens, too_long)
        case "truncate":
            parts = _parts(too_long, tokens.lengths)
            hopeless = [part[~_is_trained_before(tokens, part, outcome.cutoff_len)] for part in parts]
            outcome.lost = gone = _with_their_others(tokens, np.concatenate(hopeless))
        case _:
            gone = _none()
    return gone


def _is_trained_before(tokens: TokenDataset, samples: Ints, limit: int) -> npt.NDArray[np.bool_]:
    """[S] whether any of the first `limit` tokens of a sample is trained."""
    runs = _runs(tokens, samples)
    found = runs.number > 0
    found[found] = runs.begin[runs.first[found]] < limit
    return found


def _with_their_others(tokens: TokenDataset, samples: Ints) -> Ints:
    """The samples and, of pairs, the other one; ascending."""
    kinds = tokens.kinds[samples]
    others = samples + np.where(kinds == CHOSEN, 1, 0) - np.where(kinds == REJECTED, 1, 0)
    return distinct(np.concatenate([samples, others]))


def raise_for_lost_rows(outcomes: Iterable[LengthOutcome]) -> None:
    """DataError if more than 5 % of the rows keep nothing that is trained: cutoff_len is wrong for this data."""
    outcomes = list(outcomes)
    if not any(len(outcome.lost) for outcome in outcomes):
        return
    counts = [outcome.rows() for outcome in outcomes]
    lost, rows = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0)
    if lost <= rows * LOST_AT_MOST:
        return
    before = [outcome.before for outcome in outcomes]
    lengths = np.concatenate([one.lengths for one in before])
    places = dict.fromkeys(str(one.before.origin(int(n))) for one in outcomes for n in one.lost[: 2 * _PLACES])
    most = int(np.quantile(lengths, 1 - LOST_AT_MOST / 2, method="higher"))
    what = f"{lost:,} of {rows:,} rows would train nothing: their prompt alone fills cutoff_len. Tokens of all samples:"
    drop = "drop, to go on without them"
    other = drop if any(one.has_kinds for one in before) else f"split (or {drop})"
    raise DataError(
        Problem(
            "E-DATA-091",
            "\n".join([what, *("  " + line for line in length_bars(lengths))]),
            where=", ".join(list(places)[:_PLACES]),
            got=f"cutoff_len: {outcomes[0].cutoff_len}",
            fix=f"cutoff_len: {most}, or on_too_long: {other}",
        )
    )


class _Pieces(NamedTuple):
    """Stretches of samples: which sample, from which token of it, how many tokens, how many of them trained; [P]."""

    source: Ints
    offset: Ints
    length: Ints
    trained: Ints


class _Runs(NamedTuple):
    """Runs of trained tokens of S samples: sample [R] (0 to S - 1), begin and end [R] in it; number and first [S]: how
    many runs a sample has, and which is its first."""

    sample: Ints
    begin: Ints
    end: Ints
    number: Ints
    first: Ints

    def trained_before(self, limit: Ints) -> Ints:
        """[S] trained tokens among the first `limit` [S] of each sample."""
        inside = np.clip(np.minimum(self.end, limit[self.sample]) - self.begin, 0, None)
        return np.bincount(self.sample, weights=inside, minlength=len(self.number)).astype(np.int64)


def _parts(samples: Ints, lengths: Ints) -> list[Ints]:
    """`samples` in parts of about `_AT_ONCE` tokens."""
    ends = np.cumsum(lengths[samples])
    return [part for part in np.split(samples, np.flatnonzero(np.diff(ends // _AT_ONCE)) + 1) if len(part)]


def _runs(tokens: TokenDataset, samples: Ints) -> _Runs:
    views = zip(tokens.store[samples], tokens.starts[samples], tokens.lengths[samples], strict=True)
    mask = np.concatenate([tokens.stores[store].trained[start : start + length] for store, start, length in views])
    ends = np.cumsum(tokens.lengths[samples])
    starts = ends - tokens.lengths[samples]
    before, after = np.concatenate([[False], mask[:-1]]), np.concatenate([mask[1:], [False]])
    before[starts], after[ends - 1] = False, False
    begin, end = np.flatnonzero(mask & ~before), np.flatnonzero(mask & ~after) + 1
    sample = np.searchsorted(starts, begin, side="right") - 1
    number = np.bincount(sample, minlength=len(samples))
    return _Runs(sample, begin - starts[sample], end - starts[sample], number, np.cumsum(number) - number)


def _truncate(tokens: TokenDataset, samples: Ints, outcome: LengthOutcome) -> _Pieces:
    """`cut_point` of many samples at once."""
    limit, runs = outcome.cutoff_len, _runs(tokens, samples)
    whole = np.bincount(runs.sample[runs.end <= limit], minlength=len(samples))
    fits, trains = whole > 0, runs.number > 0
    length = np.zeros(len(samples), np.int64)
    length[fits] = runs.end[(runs.first + whole - 1)[fits]]
    cut = np.zeros(len(samples), np.bool_)
    cut[trains] = runs.begin[runs.first[trains]] < limit
    cut &= ~fits
    length[cut] = limit
    left_out = np.where(fits, runs.number - whole, np.where(cut, runs.number - 1, 0))
    outcome.turns_left_out += int(left_out.sum())
    outcome.shortened = np.append(outcome.shortened, samples[fits & (left_out > 0)])
    outcome.answers_cut = np.append(outcome.answers_cut, samples[cut])
    outcome.lost = np.append(outcome.lost, samples[length == 0])
    kept = length > 0
    return _Pieces(samples[kept], np.zeros_like(samples[kept]), length[kept], runs.trained_before(length)[kept])


def _drop(tokens: TokenDataset, samples: Ints, outcome: LengthOutcome) -> _Pieces:
    outcome.dropped = np.append(outcome.dropped, samples)
    return _Pieces(_none(), _none(), _none(), _none())


def _error(tokens: TokenDataset, samples: Ints, outcome: LengthOutcome) -> _Pieces:
    too_long = np.flatnonzero(tokens.lengths > outcome.cutoff_len)
    longest = too_long[np.argsort(-tokens.lengths[too_long], kind="stable")][:_PLACES]
    split = "" if tokens.has_kinds else ", split"
    raise DataError(
        Problem(
            "E-DATA-090",
            f"{len(too_long):,} of {len(tokens):,} samples are longer than cutoff_len {outcome.cutoff_len:,}",
            where=", ".join(str(tokens.origin(int(number))) for number in longest),
            got="the longest have " + ", ".join(f"{tokens.lengths[number]:,}" for number in longest) + " tokens",
            fix=f"cutoff_len: {tokens.lengths[longest[0]]}, or on_too_long: truncate{split} or drop",
        )
    )


def _split(tokens: TokenDataset, samples: Ints, outcome: LengthOutcome) -> _Pieces:
    runs = _runs(tokens, samples)
    found: list[tuple[int, int, int, int]] = []
    several, cut, lost = [], [], []
    for place, sample in enumerate(samples):
        mine = slice(runs.first[place], runs.first[place] + runs.number[place])
        begins, ends = runs.begin[mine], runs.end[mine]
        media = [(one.start, one.end) for one in tokens[int(sample)]["media"][0]] if tokens.has_media else []
        pieces = list(_pieces(begins, ends, outcome.cutoff_len, media))
        for begin, end, again in pieces:
            trained = int(np.clip(np.minimum(ends, end) - np.maximum(begins, begin), 0, None).sum()) - again
            found.append((int(sample), begin, end - begin, trained))
        several.append(len(pieces) > 1)
        cut.append(any(again for _, _, again in pieces))
        lost.append(not pieces)
    outcome.split = np.append(outcome.split, samples[several])
    outcome.answers_cut = np.append(outcome.answers_cut, samples[cut])
    outcome.lost = np.append(outcome.lost, samples[lost])
    return _Pieces(*np.array(found, dtype=np.int64).reshape(-1, 4).T)


def _behind(place: int, media: Sequence[tuple[int, int]]) -> int:
    return next((end for start, end in media if start < place < end), place)


def _pieces(
    begins: Ints, ends: Ints, limit: int, media: Sequence[tuple[int, int]] = ()
) -> Iterator[tuple[int, int, bool]]:
    """(begin, end, is its first token there for the second time) of the samples that one with these runs is split into.

    Each begins where a turn does and holds as many whole turns as fit; it knows nothing of the turns before. Of a turn
    that does not fit by itself the piece keeps the answer and as much as fits of what stands right before it. An answer
    that does not fit goes on in the next piece (after a prompt of half a piece at most), which repeats one token: the
    first token of a sample is never learned, so each trained token is learned exactly once. No piece begins inside of
    one of `media`, [first token, last + 1): it begins behind it.
    """
    start, turn = 0, 0
    while turn < len(ends):
        fits = int(np.searchsorted(ends, start + limit, side="right"))
        if fits > turn:
            yield start, int(ends[fits - 1]), False
            start, turn = int(ends[fits - 1]), fits
            continue
        begin, end = int(begins[turn]), int(ends[turn])
        if end - limit < begin:
            yield _behind(end - limit, media), end, False
        else:
            start = _behind(max(start, begin - limit // 2), media)
            yield start, start + limit, False
            while (start := start + limit - 1) + 1 < end:
                yield start, min(start + limit, end), True
        start, turn = end, turn + 1


POLICIES: dict[str, Callable[[TokenDataset, Ints, LengthOutcome], _Pieces]] = {
    "truncate": _truncate,
    "drop": _drop,
    "split": _split,
    "error": _error,
}


def histogram(lengths: Ints) -> tuple[Ints, Ints]:
    """(edges [B + 1], samples [B]): how many samples have at least edges[b] and fewer than edges[b + 1] tokens. The
    edges are powers of two, from the shortest sample's to the longest one's."""
    if not len(lengths):
        return np.array([0]), _none()
    powers = np.frexp(lengths)[1]  # 2 ** (power - 1) <= length < 2 ** power, and 0 of length 0
    lowest, highest = int(powers.min()), int(powers.max())
    edges = np.array([0 if power == 0 else 2 ** (power - 1) for power in range(lowest, highest + 2)], dtype=np.int64)
    return edges, np.bincount(powers - lowest, minlength=highest - lowest + 1)


def length_bars(lengths: Ints) -> list[str]:
    """The histogram as lines of text."""
    edges, counts = histogram(lengths)
    scale = _BAR / int(counts.max(initial=1))
    return [
        f"{f'{low:,}-{high - 1:,}':>17} tokens {count:>9,} {'#' * int(np.ceil(count * scale))}".rstrip()
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
    ]


def _row_keys(origins: Origins) -> Ints:
    """One number for each row of each file."""
    keys: Ints = origins.file.astype(np.int64) * (int(origins.row.max(initial=0)) + 1) + origins.row
    return keys
