"""torchvision beside a torch of another build: a witness for tests, in a folder of its own (make test-media)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

__all__ = ["use_torchvision"]

_KEPT: list[Any] = []  # a library that is collected takes its schemas with it


def use_torchvision(folder: Path) -> None:
    """Make it importable. Its compiled operators do not load beside a torch of another build, and its modules ask for
    the schemas of two of them as they are imported."""
    import torch

    sys.path.insert(0, str(folder))
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
