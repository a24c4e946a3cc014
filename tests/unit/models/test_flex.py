"""The blocks of FlexAttention, counted from the borders, against torch's own way over a matrix of T x T."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask

from tunesmith.models.flex import block_mask

CPU = torch.device("cpu")


def dense(mask: BlockMask) -> tuple[Tensor, Tensor]:
    """[n, n] of blocks that are seen in part, and of those that are seen whole."""
    found = []
    for counts, numbers in (
        (mask.kv_num_blocks, mask.kv_indices),
        (mask.full_kv_num_blocks, mask.full_kv_indices),
    ):
        assert counts is not None
        assert numbers is not None
        blocks = torch.zeros(numbers.shape[-2:], dtype=torch.bool)
        for row, count in enumerate(counts[0, 0].tolist()):
            blocks[row, numbers[0, 0, row, :count].long()] = True
        found.append(blocks)
    return found[0], found[1]


@pytest.mark.parametrize("window", [None, 1, 100, 128, 129, 300])
@pytest.mark.parametrize(
    "bounds", [(0, 5), (0, 128), (0, 128, 256), (0, 700), (0, 3, 130, 131, 600, 640), (0, 256, 257, 900)]
)
def test_blocks_are_those_that_torch_finds(bounds: tuple[int, ...], window: int | None) -> None:
    length = bounds[-1]
    sequence = torch.bucketize(torch.arange(length), torch.tensor(bounds[1:]), right=True)

    def seen(_row: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        near = True if window is None else query - key < window
        return (sequence[query] == sequence[key]) & (key <= query) & near

    found, wanted = block_mask(bounds, window, CPU), create_block_mask(seen, 1, 1, length, length, device="cpu")
    for one, other in zip(dense(found), dense(wanted), strict=True):
        assert torch.equal(one, other)
    every = torch.arange(length)
    own = found.mask_mod(*(torch.tensor(0),) * 2, every[:, None], every)
    assert torch.equal(own, seen(*(torch.tensor(0),) * 2, every[:, None], every))
