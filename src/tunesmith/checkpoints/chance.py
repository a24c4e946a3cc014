"""The states of all generators: what is drawn after them is what would have been drawn."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Chance"]


class Chance:
    """The states of all generators, as they were when this was made: of torch, of the device, numpy's and Python's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        self._own: Tensor | None = None
        if device.type == "cuda":
            self._own = torch.cuda.get_rng_state(device)
        elif device.type == "mps":
            self._own = torch.mps.get_rng_state()

    def restore(self) -> None:
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._own is not None:
            if self._device.type == "cuda":
                torch.cuda.set_rng_state(self._own, self._device)
            else:
                torch.mps.set_rng_state(self._own)

    def to_tree(self) -> dict[str, Any]:
        """For `save_tree`."""
        kind, words, *rest = self._numpy
        return {
            "python": self._python,
            "numpy": (kind, torch.from_numpy(np.asarray(words).astype(np.int64)), *rest),
            "torch": self._torch,
            "device": self._own,
        }

    @classmethod
    def from_tree(cls, tree: dict[str, Any], device: torch.device) -> Chance:
        """What `to_tree` gave. Where it was another kind of device, that one's generator stays as it is now."""
        found = cls(device)
        kind, words, *rest = tree["numpy"]
        found._python, found._torch = tree["python"], tree["torch"].cpu()
        found._numpy = (kind, words.cpu().numpy().astype(np.uint32), *rest)
        own = tree["device"]
        if own is not None and found._own is not None and own.shape == found._own.shape:
            found._own = own.cpu()
        return found
