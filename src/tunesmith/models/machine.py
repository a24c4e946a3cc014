"""What this machine can compute on, and in which precision."""

from __future__ import annotations

import functools
from pathlib import Path

from tunesmith.core import env

__all__ = ["cpu_has_bf16", "has_bf16", "pick_device"]


def pick_device(use_cpu: bool = False) -> str:
    """`cuda:N` for this process, `mps`, or `cpu`."""
    import torch

    if use_cpu:
        return "cpu"
    if torch.cuda.is_available():
        return f"cuda:{env.get_int('LOCAL_RANK')}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


@functools.cache
def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (AVX512-BF16, AMX, or Arm's bf16)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def has_bf16() -> bool:
    """Whether the device that a run would use here multiplies bfloat16 in hardware."""
    device = pick_device()
    if device.startswith("cuda"):
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and cpu_has_bf16()
