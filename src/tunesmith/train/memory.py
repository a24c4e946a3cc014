"""What runs batches so that memory is enough: in parts, and where it runs out, again from the beginning in halves.

A step is all batches between two updates of the weights. Its loss and gradient are sums that are divided by the units
of the whole step, so smaller parts change neither; dropout is drawn anew for each part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from tunesmith.checkpoints.chance import Chance
from tunesmith.core.errors import TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.models.out_of_memory import free_memory, is_out_of_memory
from tunesmith.train.micro import Batch, cost, is_whole, split

__all__ = ["LIMITS", "Parts", "read_limits", "save_limits"]

LIMITS = "memory.json"
"""What a checkpoint tells of the sizes that memory had room for."""

_NEVER = 2**62  # in place of a size: what failed cannot be split

Run: TypeAlias = Callable[[Batch, bool], Tensor]
"""(part of a batch, whether it is the last of that batch) -> numbers that are summed over the parts."""


class Parts:
    """Runs the batches of a step in parts of at most `most` positions (None: whole).

    name      `train` or `eval`: for the metrics and for `memory.json`
    forget    takes away what a failed attempt left (gradients)
    hopeless  the error for (the part that failed, where, whether it is because a part cannot be split)
    on_event  hears of a halving: ("out_of_memory", facts)
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        *,
        forget: Callable[[], None],
        hopeless: Callable[[Batch, str, bool], TunesmithError],
        most: int | None = None,
        on_event: Callable[..., None] | None = None,
    ) -> None:
        self.name, self.most = name, most
        self._on_event = on_event
        self.halvings = 0
        self._device, self._forget, self._hopeless = device, forget, hopeless
        self.begin("")

    def begin(self, where: str, agree: Callable[[int], int] | None = None, *, redo: bool = True) -> None:
        """A step begins, `where` in words. `agree(number)` gives the largest number of all ranks, each of which calls
        it after each batch; without it ranks need not agree. `redo` False: a step cannot be made again."""
        self._where, self._agree, self._redo = where, agree, redo
        self._batches: list[Batch] = []
        self._given: Tensor | float = 0.0

    def run(self, batch: Batch, run: Run) -> Tensor:
        """The sum of what `run` gives for the parts of the step's next batch. Where memory runs out, all batches of the
        step so far run again; the sum then makes up for what was given for the earlier ones.

        Raises the hopeless error where a part that cannot be split is too large, and where the step cannot be made
        again.
        """
        if not self._batches:  # not in `begin`: a resumed run has its states loaded in between
            self._chance = Chance(self._device)
        self._batches.append(batch)
        total, failed = self._attempt([batch], run)
        again = False
        while largest := self._largest(failed):
            if largest == _NEVER or not self._redo:
                raise self._hopeless(batch if failed is None else failed, self._where, largest == _NEVER)
            self._shrink(largest)
            self._forget()
            free_memory(self._device)
            self._chance.restore()
            total, failed = self._attempt(self._batches, run)
            again = True
        assert total is not None, "an attempt ends with a sum or with the part that failed"
        found = total - self._given if again else total
        self._given = self._given + found
        return found

    def take_back(self) -> None:
        """Gradients and states of chance as they were when the step began."""
        self._forget()
        self._chance.restore()

    def _largest(self, failed: Batch | None) -> int:
        """The largest part that memory had no room for, on any rank; 0 where all went well."""
        number = 0 if failed is None else _NEVER if is_whole(failed) else cost(failed)
        return number if self._agree is None else self._agree(number)

    def _attempt(self, batches: list[Batch], run: Run) -> tuple[Tensor | None, Batch | None]:
        """(sum, None), or (None, the part that memory had no room for)."""
        total: Tensor | None = None
        for batch in batches:
            parts = split(batch, self.most)
            for number, part in enumerate(parts, 1):
                try:
                    found = run(part, number == len(parts))
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    return None, part  # the error goes here: its frames hold what is to be freed
                total = found if total is None else total + found
        return total, None

    def _shrink(self, largest: int) -> None:
        self.most = largest // 2
        self.halvings += 1
        text = "%s: out of memory with %s tokens at once; from now on at most %s (loss and gradient stay the same)"
        get_logger().warning(text, self._where, f"{largest:,}", f"{self.most:,}")
        if self._on_event is not None:
            self._on_event("out_of_memory", where=self._where, tokens=largest, tokens_at_once=self.most)

    def numbers(self) -> dict[str, float]:
        """For the metrics of a run: nothing where memory was enough."""
        if self.most is None:
            return {}
        return {f"{self.name}_memory_halvings": self.halvings, f"{self.name}_tokens_at_once": self.most}


def save_limits(folder: Path, *parts: Parts) -> None:
    """Write `memory.json` where there is a limit, so that a resumed run computes what this one would have."""
    if limits := {one.name: one.most for one in parts if one.most is not None}:
        (folder / LIMITS).write_text(json.dumps(limits), encoding="utf-8")


def read_limits(checkpoint: str | None) -> Mapping[str, int]:
    """The limits that a checkpoint tells, by name."""
    if checkpoint is None or not (file := Path(checkpoint) / LIMITS).is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
