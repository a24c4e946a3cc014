"""Media of requests: read in threads of their own, while the model computes for others, and given to the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Placed
from tunesmith.models.seeing import rope_trunk, sequence_positions

if TYPE_CHECKING:
    from tunesmith.engines.base import Request
    from tunesmith.media.processor import Media

__all__ = ["Readers", "Sight", "keyed", "span_of"]

_THREADS = 2


@dataclass(slots=True)
class Sight:
    """What the model takes for the media of one request, whose prompt has `length` tokens.

    inputs   by the model's names
    """

    media: Media
    inputs: dict[str, Tensor]
    length: int
    _positions: Tensor | None = field(default=None, repr=False)

    def for_model(self, model: Any) -> dict[str, Tensor]:
        """The tensors, where the model is and in its precision."""
        return {
            name: value.to(model.device, model.dtype) if value.is_floating_point() else value.to(model.device)
            for name, value in self.inputs.items()
        }

    def tokens(self, ids: Sequence[int], device: torch.device) -> dict[str, Tensor]:
        """What the model is told of each token beside its id, [1, T, ...]. `ids`: the prompt and what is written."""
        written = [number >= self.length for number in range(len(ids))]
        told = self.media.token_types(ids, trained=written, inputs=self.inputs)
        return {name: value[None].to(device) for name, value in told.items()}

    def positions(self, model: Any, ids: Sequence[int], first: int = 0) -> Tensor | None:
        """[3, 1, n] from the token `first` on, where the model has positions of its own for what it sees: those of the
        prompt by its own code, and one more for each token that is written. None: a token has its number."""
        trunk = rope_trunk(model)
        if trunk is None:
            return None
        if self._positions is None:
            prompt = torch.tensor([list(ids[: self.length])], device=model.device)
            types = self.tokens(ids[: self.length], model.device)
            own = {name: value.to(model.device) for name, value in self.inputs.items()}
            self._positions = sequence_positions(trunk, prompt, types, own)
        written = torch.arange(max(first, self.length), len(ids), device=model.device) - self.length
        behind = (self._positions.max() + 1 + written).expand(3, 1, -1)
        return torch.cat([self._positions[..., first:], behind], -1)


def span_of(media: Sequence[Placed]) -> tuple[int, int]:
    """The first token that stands for a medium, and one past the last; (0, 0) where there is none."""
    return min((one.start for one in media), default=0), max((one.end for one in media), default=0)


def keyed(ids: Sequence[int], media: Sequence[Placed]) -> NDArray[np.int64]:
    """The ids, with numbers below 0 where they stand for media: two of them are alike where id and medium are."""
    found = np.asarray(ids, dtype=np.int64).copy()
    for one in media:
        facts = one.medium.facts
        assert facts is not None, "settled before it came here"
        digest = blake2b(f"{one.medium.kind} {facts.digest}".encode(), digest_size=7).digest()
        found[one.start : one.end] = -1 - (int.from_bytes(digest) ^ found[one.start : one.end])
    return found


class Readers:
    """Reads what requests see and hear, a few of them at a time."""

    def __init__(self, media: Media) -> None:
        self._media = media
        self._pool = ThreadPoolExecutor(_THREADS, "tunesmith-media")

    def begin(self, request: Request, told: Callable[[], None]) -> Future[Sight]:
        """`told` is called, in any thread, when it is read or has failed."""
        future = self._pool.submit(self._read, request)
        future.add_done_callback(lambda _: told())
        return future

    def _read(self, request: Request) -> Sight:
        """Raises DataError with the places that the media have in the data, if they are of any."""
        try:
            inputs = self._media.inputs([one.medium for one in request.media])
        except DataError as error:
            raise DataError([_at(problem, request) for problem in error.problems]) from error
        return Sight(self._media, dict(inputs), len(request.prompt))

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _at(problem: Problem, request: Request) -> Problem:
    """With the rows that the media are of, if they are of any."""
    rows = dict.fromkeys(one.where for one in request.media if one.where)
    return replace(problem, where=": ".join(filter(None, (", ".join(rows), problem.where))) or None)
