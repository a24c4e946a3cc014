"""Keys of training backends that are plug-ins: Megatron, HyperParallel and KTransformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.config.fields import never, section

_MEGATRON = "needs the backend plug-in `megatron`, which is not installed"
_HYPER = "needs the backend plug-in `hyper_parallel`, which is not installed"
_KT = "needs the backend plug-in `ktransformers`, which is not installed"


@section
class BackendConfig:
    """Refused with the name of the missing plug-in."""

    use_mca: bool = never(False, _MEGATRON)
    """Train through the Megatron-Core adapter."""
    use_megatron_bridge: bool = never(False, _MEGATRON)
    """Train through Megatron-Bridge."""
    tensor_model_parallel_size: int = never(1, _MEGATRON)
    """Devices that share each matrix."""
    pipeline_model_parallel_size: int = never(1, _MEGATRON)
    """Devices that share the layers."""
    expert_model_parallel_size: int = never(1, _MEGATRON)
    """Devices that share the experts."""
    context_parallel_size: int = never(1, _MEGATRON)
    """Devices that share a sequence."""
    virtual_pipeline_model_parallel_size: int | None = never(None, _MEGATRON)
    """Chunks of an interleaved pipeline."""
    sequence_parallel: bool = never(False, _MEGATRON)
    """Split norms and dropout along the sequence."""
    recompute_granularity: str | None = never(None, _MEGATRON)
    """What is computed again: full or selective."""
    recompute_method: Literal["uniform", "block"] | None = never(None, _MEGATRON)
    """How those layers are picked."""
    recompute_num_layers: int | None = never(None, _MEGATRON)
    """Layers per unit."""
    account_for_embedding_in_pipeline_split: bool | None = never(None, _MEGATRON)
    """Count the embedding as a layer of the pipeline."""
    account_for_loss_in_pipeline_split: bool | None = never(None, _MEGATRON)
    """Count the loss as a layer of the pipeline."""
    bias_activation_fusion: bool | None = never(None, _MEGATRON)
    """Fuse bias and activation."""
    apply_rope_fusion: bool | None = never(None, _MEGATRON)
    """Fuse rotary positions."""
    masked_softmax_fusion: bool | None = never(None, _MEGATRON)
    """Fuse the masked softmax."""
    cross_entropy_loss_fusion: bool | None = never(None, _MEGATRON)
    """Fuse the cross-entropy."""
    moe_grouped_gemm: bool | None = never(None, _MEGATRON)
    """Group the products of the experts."""
    moe_token_dispatcher_type: Literal["allgather", "alltoall", "flex"] | None = never(None, _MEGATRON)
    """How tokens travel to their experts."""
    calculate_per_token_loss: bool | None = never(None, _MEGATRON)
    """Average the loss over tokens."""
    use_distributed_optimizer: bool = never(True, _MEGATRON)
    """Shard the optimizer's state."""
    overlap_param_gather: bool = never(True, _MEGATRON)
    """Gather weights while computing."""
    overlap_grad_reduce: bool = never(True, _MEGATRON)
    """Reduce gradients while computing."""
    use_packed_sequences: bool = never(False, _MEGATRON)
    """Pack samples."""
    mixed_precision: str = never("bf16_mixed", _MEGATRON)
    """Recipe of number types."""
    megatron_pretrained_checkpoint: str | None = never(None, _MEGATRON)
    """Checkpoint in Megatron's format."""
    export_hf_on_finish: bool = never(False, _MEGATRON)
    """Convert the result at the end."""
    extra_config: Mapping[str, Any] | str | None = never(None, _MEGATRON)
    """Further settings: JSON, a mapping, or a file."""
    use_hyper_parallel: bool = never(False, _HYPER)
    """Train through HyperParallel."""
    hyper_parallel_args: str | None = never(None, _HYPER)
    """JSON file with its strategy."""
    hyper_parallel_cp_size: int = never(1, _HYPER)
    """Devices that share a sequence."""
    use_kt: bool = never(False, _KT)
    """Compute experts in main memory."""
    kt_cpu_activation: Literal["retain", "recompute"] | None = never(None, _KT)
    """Keep or compute again the experts' activations."""
    kt_weight_path: str | None = never(None, _KT)
    """Experts in eight bits."""
    kt_non_expert_weight_path: str | None = never(None, _KT)
    """Cache of the other weights."""
    kt_expert_checkpoint_path: str | None = never(None, _KT)
    """Experts to convert."""
    kt_use_lora_experts: bool | None = never(None, _KT)
    """Add LoRA experts on the GPU."""
    kt_lora_expert_num: int | None = never(None, _KT)
    """Their number."""
    kt_lora_expert_intermediate_size: int | None = never(None, _KT)
    """Their width."""
    kt_config: Mapping[str, Any] | None = never(None, _KT)
    """Further settings of that library."""
