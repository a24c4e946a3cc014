"""Feedback beside answers that belong to other prompts: what KTO estimates the divergence from the reference of.

Each sequence gets the answer of the next one whose prompt is another, in the order of the dataset, the first after the
last. So which answer goes with which prompt depends on the data alone: not on batches, ranks or where a run resumes.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.dataset import TokenDataset

__all__ = ["MISMATCHED", "MismatchedDataset", "mismatched"]

Ints = npt.NDArray[np.int64]

MISMATCHED = "mismatched_"
"""What the arrays of a mismatched sequence are called in a sample, before their own names."""


class MismatchedDataset(TokenDataset):
    """A TokenDataset whose samples bring a second sequence: their prompt with the answer of another sample.

    `others` is a dataset with the N answers' samples. In a sample stand `mismatched_input_ids` and
    `mismatched_trained` [T], with weights also `mismatched_weights`, and `mismatched_lengths` [1]; at most `longest`
    tokens.
    """

    def __init__(self, samples: TokenDataset, others: TokenDataset, longest: int) -> None:
        super().__init__(
            samples.stores,
            samples.store,
            samples.starts,
            samples.lengths,
            samples.origins,
            samples.trained_counts,
            samples.kinds,
        )
        assert len(others) == len(self), "one answer for each"
        self.others, self.longest = others, longest
        self.columns = samples.columns

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample, other = super().__getitem__(index), self.others[index]
        prompt, answer = slice(_prompt(sample["trained"])), slice(_prompt(other["trained"]), None)
        for name in ("input_ids", "trained", "weights"):
            if name in sample:
                joined = np.concatenate([sample[name][prompt], other[name][answer]])
                sample[MISMATCHED + name] = joined[: self.longest]
        if "media" in sample:
            sample[MISMATCHED + "media"] = [
                tuple(one for one in own if one.end <= prompt.stop) for own in sample["media"]
            ]
        sample[MISMATCHED + "lengths"] = np.array([len(sample[MISMATCHED + "input_ids"])])
        return sample

    def take(self, indices: Ints) -> TokenDataset:
        return MismatchedDataset(super().take(indices), self.others.take(indices), self.longest)


def mismatched(samples: TokenDataset, longest: int) -> MismatchedDataset:
    """`samples` with mismatched answers, cut to `longest` tokens. Where all prompts are the same, so are those."""
    return MismatchedDataset(samples, samples.take(_partners(samples)), longest)


def _prompt(trained: npt.NDArray[np.bool_]) -> int:
    """Tokens before the first trained one."""
    return int(trained.argmax()) if trained.any() else len(trained)


def _partners(samples: TokenDataset) -> Ints:
    """[N]: the next sequence with another prompt; the next one where there is none."""
    count = len(samples)
    prompts = np.array([_digest(sample) for sample in samples], dtype=np.uint64)
    ends = np.flatnonzero(prompts != np.roll(prompts, -1))  # the last of each run of equal prompts
    each = np.arange(count)
    last = ends[np.searchsorted(ends, each) % len(ends)] if len(ends) else each
    found: Ints = (last + 1) % max(count, 1)
    return found


def _digest(sample: dict[str, Any]) -> int:
    prompt = sample["input_ids"][: _prompt(sample["trained"])]
    digest = hashlib.blake2b(np.ascontiguousarray(prompt).data, digest_size=8)
    for own in sample.get("media", ()):
        digest.update("".join(one.medium.facts.digest for one in own if one.medium.facts is not None).encode())
    return int.from_bytes(digest.digest(), "little")
