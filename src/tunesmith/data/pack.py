"""Packing for pre-training: one stream of documents, cut into blocks; nothing dropped, nothing overwritten."""

from __future__ import annotations

import numpy as np

from tunesmith.data.dataset import TokenDataset

__all__ = ["pack"]


def pack(documents: TokenDataset, block: int) -> TokenDataset:
    """Blocks of `block` tokens over the documents in their order; the last block is shorter unless it comes out even.

    Each document ends with the EOS that the renderer gave it, which is all that parts it from the next one. The arrays
    are shared with `documents`; only the offsets are new.
    """
    total = documents.num_tokens
    starts = np.arange(0, total, block, dtype=np.int64)
    first_document = np.searchsorted(documents.offsets, starts, side="right") - 1
    origins = [documents.origins[index] for index in first_document]
    return TokenDataset(documents.ids, documents.trained, np.append(starts, total), origins)
