"""Parts of a model that optimizers treat apart: matrices of layers, heads, layers, what is around the layers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from tunesmith.core.errors import Problem, UsageError
from tunesmith.models.heads import output_layer

__all__ = ["blocks_of", "hidden_matrices", "layers_of", "outer_weights", "target_matrices"]

# Projections to queries and to keys under all the names that transformers has for them.
_QUERIES = {"q_proj", "wq", "query", "q_lin", "q", "to_q", "query_proj"}
_KEYS = {"k_proj", "wk", "key", "k_lin", "k", "to_k", "key_proj"}
_LAYER = re.compile(r"^(.*?\.(?:layers|h|blocks|block|layer)\.(\d+))\.")
_SHOWN = 12


def outer_weights(model: Any) -> set[str]:
    """Names of the weights of embeddings and of the output layer."""
    head = output_layer(model) if hasattr(model, "get_output_embeddings") else None
    outer = [module for module in model.modules() if isinstance(module, nn.Embedding) or module is head]
    ids = {id(weight) for module in outer for weight in module.parameters()}
    return {name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in ids}


def hidden_matrices(model: Any) -> set[str]:
    """Names of the trained weights [m, n] that are neither embeddings nor the output layer."""
    outer = outer_weights(model)
    return {
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.ndim == 2 and name not in outer and "lora_embedding" not in name
    }


def target_matrices(model: Any, targets: Sequence[str], key: str) -> set[str]:
    """The hidden matrices in modules of these names; `all`: all of them. Raises UsageError where a name is of none."""
    matrices = hidden_matrices(model)
    if tuple(targets) == ("all",):
        return matrices
    within = {name: set(name.split(".")[:-1]) for name in matrices}
    there = sorted({part for parts in within.values() for part in parts if not part.isdigit()})
    for target in targets:
        if not any(target in parts for parts in within.values()):
            what = "no trained matrix lies in a module of this name"
            fix = f"all, or some of: {', '.join(there[:_SHOWN])}"
            raise UsageError(Problem("E-OPTIM-010", what, key, target, fix))
    return {name for name, parts in within.items() if not parts.isdisjoint(targets)}


def layers_of(model: Any, start: int | None) -> tuple[list[str], Callable[[str], int | None]]:
    """The layers that have trained weights, by the beginning of their weights' names, and a function from the name of
    a weight to the number of its layer; None for a weight outside. Raises UsageError where there are none, or no
    `start`."""
    found: dict[str, int] = {}
    for name, weight in model.named_parameters():
        match = _LAYER.match(name)
        if match and weight.requires_grad:
            found.setdefault(match[1], len(found))
    if not found:
        what = "BAdam trains layer by layer, and no layer of this model has trained weights"
        raise UsageError(Problem("E-OPTIM-011", what, "badam_mode: layer", fix="badam_mode: ratio"))
    if start is not None and not 0 <= start < len(found):
        what = f"there are {len(found)} blocks, counted from 0"
        fix = f"badam_start_block: 0 to {len(found) - 1}"
        raise UsageError(Problem("E-OPTIM-011", what, "badam_start_block", str(start), fix))

    def block_of(name: str) -> int | None:
        match = _LAYER.match(name)
        return found.get(match[1]) if match else None

    return list(found), block_of


def blocks_of(model: Any) -> Callable[[str, Tensor], int]:
    """For Adam-mini: into how many blocks of rows a weight is cut; 0 means each row."""
    config = getattr(model.config, "get_text_config", lambda: model.config)()
    heads = getattr(config, "num_attention_heads", None)
    key_heads = getattr(config, "num_key_value_heads", None) or heads

    def blocks(name: str, weight: Tensor) -> int:
        if weight.ndim < 2:
            return 1
        part = name.split(".")[-2] if "." in name else name
        count = heads if part in _QUERIES else key_heads if part in _KEYS else None
        return count if count and weight.shape[0] % count == 0 else 0

    return blocks
