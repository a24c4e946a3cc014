"""Samples to one padded batch of tensors: the plain path, for models that cannot read flat batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["PaddingCollator"]


class PaddingCollator:
    """Pads B samples on the right to the longest one, T tokens.

    Returns input_ids [B, T] int64, attention_mask [B, T] int64 (0 on padding) and labels [B, T] int64 (the id where the
    model is trained to write it, else `label_pad`). `multiple_of` rounds T up: some devices like multiples of 8 or 64.
    """

    def __init__(self, pad_id: int, label_pad: int = -100, multiple_of: int = 1) -> None:
        self.pad_id, self.label_pad, self.multiple_of = pad_id, label_pad, multiple_of

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        import torch

        lengths = [len(sample["input_ids"]) for sample in samples]
        width = -(-max(lengths) // self.multiple_of) * self.multiple_of
        ids = np.full((len(samples), width), self.pad_id, dtype=np.int64)
        labels = np.full((len(samples), width), self.label_pad, dtype=np.int64)
        for row, (sample, length) in enumerate(zip(samples, lengths, strict=True)):
            ids[row, :length] = sample["input_ids"]
            labels[row, :length][sample["trained"]] = sample["input_ids"][sample["trained"]]
        mask = np.arange(width) < np.asarray(lengths)[:, None]
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "labels": torch.from_numpy(labels),
        }
