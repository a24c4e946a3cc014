"""Low-rank spaces for gradients, as GaLore (arXiv:2403.03507) and APOLLO (arXiv:2412.05270) use them.

A gradient G of shape [m, n] is projected to `G @ right.T` of [m, r], to `left.T @ G` of [r, n], or with both to [r, r].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Space", "random_space", "sides", "singular_space"]


@dataclass(frozen=True, slots=True)
class Space:
    """`left` [m, r] and `right` [r, n], or one of them."""

    left: Tensor | None
    right: Tensor | None

    def down(self, grad: Tensor) -> Tensor:
        """[m, n] -> the low-rank gradient."""
        low = grad if self.left is None else self.left.T.to(grad.dtype) @ grad
        return low if self.right is None else low @ self.right.T.to(grad.dtype)

    def up(self, low: Tensor) -> Tensor:
        """What a step in the space means for the weight, [m, n]."""
        full = low if self.left is None else self.left.to(low.dtype) @ low
        return full if self.right is None else full @ self.right.to(low.dtype)


def sides(kind: str, shape: torch.Size) -> tuple[bool, bool]:
    """(left, right) of `std`, `reverse_std`, `left`, `right`, `full` for a weight of that shape. `std` keeps the longer
    dimension and projects the shorter one."""
    tall = shape[0] >= shape[1]
    return {
        "std": (not tall, tall),
        "reverse_std": (tall, not tall),
        "left": (True, False),
        "right": (False, True),
        "full": (True, True),
    }[kind]


def singular_space(grad: Tensor, kind: str, rank: int) -> Space:
    """The space of the `rank` largest singular vectors of a gradient [m, n]."""
    left, right = sides(kind, grad.shape)
    u, _, vh = torch.linalg.svd(grad.float(), full_matrices=False)
    return Space(u[:, :rank].contiguous() if left else None, vh[:rank].contiguous() if right else None)


def random_space(shape: torch.Size, kind: str, rank: int, chance: torch.Generator, device: torch.device) -> Space:
    """A Gaussian space of variance 1 / rank, which keeps lengths in the mean (Johnson and Lindenstrauss)."""
    left, right = sides(kind, shape)

    def draw(*size: int) -> Tensor:
        return (torch.randn(size, generator=chance, device=chance.device) / math.sqrt(rank)).to(device)

    return Space(draw(shape[0], rank) if left else None, draw(rank, shape[1]) if right else None)
