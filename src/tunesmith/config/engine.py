"""Who generates text in chat and prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.config.fields import section, works


@section
class EngineConfig:
    """The engine and its own settings."""

    infer_backend: Literal["huggingface", "vllm", "sglang", "remote"] = works("huggingface")
    """Engine that generates; remote: any server with OpenAI's protocol."""
    use_kv_cache: bool = works(True)
    """Keep keys and values of earlier tokens while generating."""
    kv_cache_gb: float | None = works(None, above=0)
    """Memory for the keys and values of all requests, in GB; left out: 1, on a GPU half of what is free."""
    max_batch_requests: int = works(32, least=1)
    """Most requests that are answered at once; of a reward model, texts that are read together."""
    max_queued_requests: int = works(64, least=1)
    """Most requests that wait; more are refused."""
    prefill_chunk_tokens: int = works(512, least=1)
    """Most tokens of prompts that are read between two tokens of the replies that are being written; of a reward model,
    at a time (left out: 8192 on a GPU)."""
    remote_url: str | None = works(None)
    """Base address of the server, like http://127.0.0.1:8000/v1. Its key is in the variable REMOTE_API_KEY."""
    remote_model: str | None = works(None)
    """Name of the model, or adapter, at the server (default: its only one)."""
    remote_prompts: Literal["messages", "ids"] = works("messages")
    """Send messages, or token ids (made here, with the tokenizer of `model_name_or_path`) to servers that take them."""
    remote_timeout: float = works(600.0, above=0)
    """Seconds of silence after which the server is given up."""
    remote_retries: int = works(4, least=0)
    """How often a server that is busy, or not there, is asked again."""
    vllm_maxlen: int = works(4096, least=1)
    """Most tokens of prompt and reply together."""
    vllm_gpu_util: float = works(0.7, above=0, most=1)
    """Share of the GPU's memory that vLLM may take."""
    vllm_enforce_eager: bool = works(False)
    """Do without CUDA graphs."""
    vllm_max_lora_rank: int = works(32, least=1, most=512)
    """Largest LoRA rank that is accepted, rounded up to one that vLLM has."""
    vllm_config: Mapping[str, Any] | None = works(None)
    """Further engine arguments, as a mapping or JSON."""
    sglang_maxlen: int = works(4096, least=1)
    """Most tokens of prompt and reply together."""
    sglang_mem_fraction: float = works(0.7, above=0, most=1)
    """Share of the GPU's memory that SGLang may take."""
    sglang_tp_size: int = works(-1)
    """Devices for tensor parallelism; -1 takes all."""
    sglang_config: Mapping[str, Any] | None = works(None)
    """Further server arguments, as a mapping or JSON."""
    sglang_lora_backend: Literal["triton", "csgmv", "torch_native", "flashinfer"] = works("triton")
    """Kernels for LoRA; which of them there are depends on the release of SGLang."""
