"""Answers of a batch as sequences: where each of their tokens is predicted, and sums over them.

K sequences of a batch, N trained tokens in them. In padded rows [B, T] each row is a sequence, or holds several; in a
flat row [1, T] the borders tell them apart; where answers to one prompt share it, the first token of each is predicted
where it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tunesmith.objectives.inputs import IGNORE

__all__ = ["Answers", "answers_of"]


@dataclass(frozen=True, slots=True)
class Answers:
    """positions [N, 2] and targets [N] as `models/loss_forward.py` wants them; owners [N]: the sequence of each token;
    weights [N], None: all 1; lengths [K]: trained tokens."""

    positions: Tensor
    targets: Tensor
    owners: Tensor
    weights: Tensor | None
    lengths: Tensor

    @property
    def asked(self) -> dict[str, Tensor]:
        return {"loss_positions": self.positions, "loss_targets": self.targets}

    def sums(self, values: Tensor) -> Tensor:
        """[N] -> [K] over the tokens of each sequence, each by its weight; in float64, where the device has it."""
        return self._added(values, self.weights)

    def means(self, values: Tensor) -> Tensor:
        """[N] -> [K] over the tokens of each sequence, whatever their weights; 0 of a sequence without any."""
        return self._added(values) / self.lengths.clamp(min=1)

    def _added(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        values = values.to(torch.float64 if values.device.type != "mps" else torch.float32)
        weighted = values if weights is None else values * weights
        return weighted.new_zeros(len(self.lengths)).index_add(0, self.owners, weighted)


def answers_of(batch: Mapping[str, Any]) -> Answers:
    """`labels`, and `weights` if there are any, of a batch are [B, T] and not shifted (`data/collate.py`)."""
    labels = batch["labels"]
    row, before = (labels[:, 1:] != IGNORE).nonzero().unbind(1)  # nothing predicts the first token of a row
    place, owners = before + 1, row
    if "bounds" in batch:
        borders = batch["cu_seqlens"].long()
        owners = torch.searchsorted(borders[1:], place, right=True)
        if "segments" in batch:
            segments = torch.tensor(batch["segments"], device=labels.device)[owners]  # [N, 4]
            begins = (place == segments[:, 0]) & (segments[:, 2] < segments[:, 3])
            before = torch.where(begins, segments[:, 3] - 1, before)
    elif "row_pieces" in batch:
        owners = torch.searchsorted(_starts(batch), row * labels.shape[1] + place, right=True) - 1
    count = len(batch["lengths"]) if "lengths" in batch else len(labels)
    lengths = torch.bincount(owners, minlength=count)
    weights = batch["weights"][row, place] if "weights" in batch else None
    return Answers(torch.stack([row, before], 1), labels[row, place], owners, weights, lengths)


def _starts(batch: Mapping[str, Any]) -> Tensor:
    """[K] where each sequence of padded rows with several begins, in the batch read row by row."""
    lengths, pieces = batch["lengths"], batch["row_pieces"]
    starts = lengths.cumsum(0) - lengths
    first = starts[pieces.cumsum(0) - pieces]  # of each row, among all tokens
    rows = torch.arange(len(pieces), device=first.device) * batch["labels"].shape[1]
    return starts + (rows - first).repeat_interleave(pieces)
