"""The output layer of a model, and what it says the model is for: to write tokens, or to give a reward."""

from __future__ import annotations

from typing import Any

__all__ = ["output_layer", "reward_head", "task_of"]


def reward_head(model: Any) -> Any:
    """The layer [1, H] that makes a reward of a hidden state, maybe wrapped; None of a language model."""
    return getattr(model, "score", None)


def output_layer(model: Any) -> Any:
    """The layer behind the last hidden states: to a vocabulary, or to a reward; None where there is none."""
    head = reward_head(model)
    return model.get_output_embeddings() if head is None else head


def task_of(model: Any) -> str:
    """PEFT's name of what a model is for. With SEQ_CLS an adapter is saved with its own reward head."""
    return "CAUSAL_LM" if reward_head(model) is None else "SEQ_CLS"
