"""Who generates text in chat and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.config.fields import later, section, works

_VLLM = "the vLLM engine"
_SGLANG = "the SGLang engine"


@section
class EngineConfig:
    """The engine and its own settings."""

    infer_backend: Literal["huggingface", "vllm", "sglang"] = works("huggingface", later=("vllm", "sglang"))
    """Engine that generates."""
    use_kv_cache: bool = works(True)
    """Keep keys and values of earlier tokens while generating."""
    vllm_maxlen: int = later(4096, _VLLM)
    """Most tokens of prompt and reply together."""
    vllm_gpu_util: float = later(0.7, _VLLM)
    """Share of the GPU's memory that vLLM may take."""
    vllm_enforce_eager: bool = later(False, _VLLM)
    """Do without CUDA graphs."""
    vllm_max_lora_rank: int = later(32, _VLLM)
    """Largest LoRA rank that is accepted."""
    vllm_config: Mapping[str, Any] | None = later(None, _VLLM)
    """Further engine arguments, as a mapping or JSON."""
    sglang_maxlen: int = later(4096, _SGLANG)
    """Most tokens of prompt and reply together."""
    sglang_mem_fraction: float = later(0.7, _SGLANG)
    """Share of the GPU's memory that SGLang may take."""
    sglang_tp_size: int = later(-1, _SGLANG)
    """Devices for tensor parallelism; -1 takes all."""
    sglang_config: Mapping[str, Any] | None = later(None, _SGLANG)
    """Further server arguments, as a mapping or JSON."""
    sglang_lora_backend: Literal["triton", "flashinfer"] = later("triton", _SGLANG)
    """Kernels for LoRA."""
