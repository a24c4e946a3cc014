"""Weights of a checkpoint back into the model that they are of.

transformers' Trainer takes files by the names of the model's weights, and goes on without a word where they differ.
They do in models whose files have the names and shapes of an earlier release, or of their authors: mixtures of experts,
whose experts are one tensor in the model and many in the files, and models that see. Those are read as
`from_pretrained` reads.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

__all__ = ["take_weights"]

_FILES = "model*.safetensors"


def take_weights(model: Any, folder: str | Path) -> bool:
    """Read all weights from the files of `folder`, if these have other names than the weights of `model`; else nothing
    is done, and False given back."""
    if not (names := _names_in(Path(folder))) or names <= set(model.state_dict()):
        return False
    # In float32, which holds the bits of every type that a weight may have.
    read = type(model).from_pretrained(folder, config=deepcopy(model.config), dtype=torch.float32)
    with torch.no_grad():
        model.load_state_dict(read.state_dict())
    return True


def _names_in(folder: Path) -> set[str]:
    from safetensors import safe_open

    names: set[str] = set()
    for file in folder.glob(_FILES):
        with safe_open(file, framework="pt") as tensors:
            names.update(tensors.keys())
    return names
