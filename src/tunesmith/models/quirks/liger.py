"""Liger's Triton kernels in the layers of a model: norms, rotary positions and feed-forward parts, on a GPU.

Its functions patch the modules of the model, and the rotary positions of that type for the whole process. Its loss is
left out: ours needs no logits either, and counts weights and units.
"""

from __future__ import annotations

import inspect
from typing import Any

from tunesmith.core.errors import MachineError, Problem
from tunesmith.core.log import get_logger

__all__ = ["use_liger_kernels"]

_LOSSES = ("cross_entropy", "fused_linear_cross_entropy")
_IDLE = "enable_liger_kernel is without effect: %s"


def use_liger_kernels(model: Any, device: str) -> bool:
    """Patch a language model on `device`; whether it was, and a warning that says why not. Raises MachineError where
    the package is missing."""
    if not device.startswith("cuda"):
        get_logger().warning(_IDLE, f"its kernels run on a GPU, and this run is on the device {device}")
        return False
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as by_type
    except ImportError as error:
        fix = 'pip install "tunesmith[liger]", or leave the key out'
        what = "the package with Liger's kernels is missing"
        raise MachineError(Problem("E-MODEL-030", what, "enable_liger_kernel", str(error), fix)) from error
    kind = model.config.model_type
    if kind not in by_type:
        get_logger().warning(_IDLE, f"Liger has no kernels for models of the type {kind}")
        return False
    patch = by_type[kind]
    known = inspect.signature(patch).parameters
    patch(model=model, **{name: False for name in _LOSSES if name in known})
    return True
