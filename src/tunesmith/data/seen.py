"""What a model takes for the media of sequences, read while a batch is put together (in a loader's process, if there
are any), and laid out as the batch is.

K sequences in B rows of T positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Placed

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.media.processor import Media

__all__ = ["MediaOfSequences", "Seen", "laid_out"]


@dataclass(frozen=True, slots=True)
class Seen:
    """Of one sequence: `inputs` by the model's names, `tokens` [T, ...] what it is told of each token; `bad`: a medium
    could not be read, so a blank one is in its place and nothing of the sequence is to be trained."""

    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    bad: bool = False


class MediaOfSequences:
    """Reads the media of a sequence. `skip`: those that cannot be read any more are left out, as `on_bad_media` says;
    otherwise they end the run, with their row."""

    def __init__(self, media: Media, *, skip: bool = False) -> None:
        self.media, self.skip = media, skip
        self._told: set[str] = set()

    def __call__(self, ids: Sequence[int], trained: Sequence[bool], placed: Sequence[Placed]) -> Seen:
        """Raises DataError with the rows of media that cannot be read."""
        inputs: Mapping[str, Tensor] = {}
        bad = False
        if placed:
            own = [one.medium for one in placed]
            try:
                inputs = self.media.inputs(own)
            except DataError as error:
                if not self.skip:
                    raise DataError([_at(problem, placed) for problem in error.problems]) from error
                self._tell(error.problems[0], placed)
                inputs, bad = self.media.inputs(own, blank=True), True
        return Seen(inputs, self.media.token_types(ids, trained=trained, inputs=inputs), bad)

    def _tell(self, problem: Problem, placed: Sequence[Placed]) -> None:
        where = placed[0].where
        if where not in self._told:
            self._told.add(where)
            get_logger().warning("%s: %s (%s): left out", where, problem.what, problem.got or problem.where)


def _at(problem: Problem, placed: Sequence[Placed]) -> Problem:
    where = ", ".join(dict.fromkeys(one.where for one in placed if one.where))
    fix = problem.fix or "mend the file, or leave such rows out with on_bad_media: skip and max_bad_rows"
    return Problem(problem.code, problem.what, ": ".join(filter(None, (where, problem.where))), problem.got, fix)


def laid_out(parts: Sequence[Tensor], rows: Sequence[int], width: int) -> Tensor:
    """[B, T, ...] of K sequences [t, ...], `rows` of them in each row, one behind the other; 0 where there is none."""
    sizes = [max(size) for size in zip(*(part.shape[1:] for part in parts), strict=True)]
    found = parts[0].new_zeros(len(rows), width, *sizes)
    for row, (first, last) in enumerate(pairwise(accumulate(rows, initial=0))):
        at = 0
        for part in parts[first:last]:
            place: tuple[Any, ...] = (row, slice(at, at + len(part)), *(slice(size) for size in part.shape[1:]))
            found[place] = part
            at += len(part)
    return found
