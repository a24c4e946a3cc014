"""Activation checkpointing: what of a layer is kept for the backward pass, and what is computed again there.

full keeps the input of every layer. selective keeps the output of its attention too, so that attention, which costs the
square of a sequence, is computed once. offload keeps the inputs in main memory instead of on the device.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.models.offload import HiddenStates, OnStreams
from tunesmith.models.quirks.checkpoint_function import wrap_checkpoint_function

__all__ = ["ATTENTION_OPS", "enable_checkpointing"]

# What `scaled_dot_product_attention` runs as, by device and size, and the kernels of flash-attention 2 and 3.
ATTENTION_OPS = frozenset(
    (
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_flash_attention_for_cpu",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
        "aten::_scaled_dot_product_fused_attention_overrideable",
        "flash_attn::_flash_attn_forward",
        "flash_attn::_flash_attn_varlen_forward",
        "flash_attn_3::fwd",
        "flash_attn_3::_flash_attn_forward",
    )
)


def enable_checkpointing(model: Any, mode: str, *, reentrant: bool) -> str:
    """Compute activations again in the backward pass; `mode` says what is kept. Returns the mode that the model takes.
    `reentrant`: torch's kind of that name; selective is always the other one, which alone can tell one operation from
    another.

    Raises UsageError where the model cannot.
    """
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise UsageError(
            Problem(
                "E-MODEL-009",
                f"{type(model).__name__} cannot recompute activations",
                where="disable_gradient_checkpointing",
                fix="write disable_gradient_checkpointing: true",
            )
        )
    if mode == "selective" and not _keeps_more_than_inputs(model):
        get_logger().warning(
            "gradient_checkpointing_mode: selective keeps no more than full, which is taken: attention runs here by no "
            "kernel whose output could be kept (soft caps, sinks, dropout, short rows in bfloat16 on a CPU)"
        )
        mode = "full"
    arguments: dict[str, Any] = {"use_reentrant": reentrant and mode != "selective"}
    if mode == "selective":
        arguments["context_fn"] = partial(create_selective_checkpoint_contexts, _keep_attention)
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(arguments)
    if arguments["use_reentrant"]:  # this kind only differentiates through inputs that need a gradient
        model.enable_input_require_grads()
    if mode == "offload":
        states = HiddenStates(OnStreams(model.device))
        layers = wrap_checkpoint_function(model, states.around)
        assert layers, "a model that supports checkpointing has layers that are checkpointed"
    return mode


def _keep_attention(_context: Any, operation: Any, *_arguments: Any, **_keywords: Any) -> CheckpointPolicy:
    kept = operation.name() in ATTENTION_OPS
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _keeps_more_than_inputs(model: Any) -> bool:
    """Whether attention in training is one of the operations whose output is kept. A long row tells: short ones may be
    attended to in another way."""
    heard: set[str] = set()

    def hear(_context: Any, operation: Any, *_arguments: Any, **_keywords: Any) -> CheckpointPolicy:
        heard.add(operation.name())
        return CheckpointPolicy.PREFER_RECOMPUTE

    length = min(256, getattr(model.config, "max_position_embeddings", None) or 256)
    training, device = model.training, model.device
    listening, _ = create_selective_checkpoint_contexts(hear)
    model.train()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), listening:
            model(input_ids=torch.zeros(1, length, dtype=torch.long, device=device), use_cache=False)
    finally:
        model.train(training)
    return not heard.isdisjoint(ATTENTION_OPS)
