"""Are these the same samples? A digest of the tokens that a run trains on, in their order."""

from __future__ import annotations

import hashlib

import numpy as np

from tunesmith.data.dataset import TokenDataset
from tunesmith.data.pack import PackedDataset

__all__ = ["fingerprint"]


def fingerprint(samples: TokenDataset | PackedDataset) -> str:
    """The same for the same ids, masks, weights, kinds, margins and media in the same order and packs, wherever they
    are stored."""
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(samples, PackedDataset):
        digest.update(np.ascontiguousarray(samples.bounds).data)
        samples = samples.pieces
    beside = [samples.margins] if samples.has_margins else []
    for numbers in (samples.store, samples.starts, samples.lengths, samples.kinds, *beside):
        digest.update(np.ascontiguousarray(numbers).data)
    for tokens in samples.stores:
        for array in (tokens.ids, tokens.trained, tokens.weights):
            digest.update(b"-" if array is None or not len(array) else np.ascontiguousarray(array).data)
        if tokens.media is not None:
            digest.update(tokens.media.digest_of())
    return digest.hexdigest()
