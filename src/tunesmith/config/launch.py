"""Starting on several machines, eight-bit floats, and profiling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.config.fields import later, section, works

_RAY = "training on Ray"
_PROFILER = "the profiler"


@section
class LaunchConfig:
    """Ray, FP8 and the profiler."""

    ray_num_workers: int = later(1, _RAY)
    """Number of workers."""
    ray_init_kwargs: Mapping[str, Any] | None = later(None, _RAY)
    """Arguments of `ray.init`, as a mapping or JSON."""
    master_addr: str | None = later(None, _RAY)
    """Address where workers meet."""
    master_port: str | None = later(None, _RAY)
    """Port where workers meet."""
    fp8: bool = works(False)
    """Compute matrix products in eight-bit floats; needs a GPU of compute capability 8.9 or later."""
    fp8_backend: Literal["auto", "torchao", "te", "msamp"] = works("auto")
    """Library that does so; auto is torchao, and the others are refused."""
    fp8_enable_fsdp_float8_all_gather: bool = works(False)
    """Gather weights that FSDP sharded in eight bits."""
    enable_torch_profiler: bool = later(False, _PROFILER)
    """Record traces of PyTorch's profiler."""
    profiler_output_dir: str | None = later(None, _PROFILER)
    """Folder of the traces."""
    profiler_wait_steps: int = later(1, _PROFILER)
    """Steps that are skipped in each cycle."""
    profiler_warmup_steps: int = later(1, _PROFILER)
    """Steps that warm up in each cycle."""
    profiler_active_steps: int = later(1, _PROFILER)
    """Steps that are recorded in each cycle."""
    profiler_repeat: int = later(1, _PROFILER)
    """Number of cycles; 0 never ends."""
    profiler_record_shapes: bool = later(True, _PROFILER)
    """Record shapes of tensors."""
    profiler_profile_memory: bool = later(True, _PROFILER)
    """Record memory."""
    profiler_with_stack: bool = later(True, _PROFILER)
    """Record Python's call stacks."""
    profile_modules: str | None = later(None, _PROFILER)
    """Patterns of module names that are timed."""
