"""New tokens under an adapter: their rows train beside it and are saved with it, or they would stay noise."""

from __future__ import annotations

from typing import Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.models.vocabulary import fresh_tokens

__all__ = ["train_new_tokens"]


def train_new_tokens(settings: Any, model: Any) -> None:
    """Add to PEFT's settings of an adapter what trains the rows of the model's new tokens: these rows alone, in the
    embeddings and in an output layer of its own, or such a layer as a whole where PEFT cannot take rows of it. Layers
    that `modules_to_save` has already are left to it.

    Raises UsageError for a kind of adapter that can do neither.
    """
    fresh = list(fresh_tokens(model))
    if not fresh:
        return
    saved = {str(name).rsplit(".", 1)[-1] for name in getattr(settings, "modules_to_save", None) or ()}
    for names, layer in _layers(model):
        if saved.intersection(name.rsplit(".", 1)[-1] for name in names):
            if len(names) > 1 and hasattr(settings, "ensure_weight_tying"):
                settings.ensure_weight_tying = True  # one weight, before and after
            continue
        if hasattr(settings, "trainable_token_indices") and _has_rows(layer):
            rows = dict(settings.trainable_token_indices or {})
            settings.trainable_token_indices = {**rows, names[0]: fresh}
            text = "%s: the rows of %d new tokens are trained too, and saved with the adapter"
            get_logger().info(text, names[0], len(fresh))
        elif hasattr(settings, "modules_to_save"):
            settings.modules_to_save = [*(settings.modules_to_save or ()), names[0]]
            get_logger().info("%s is trained as a whole, for the sake of new tokens", names[0])
        else:
            what, fix = "this kind of adapter trains no rows for new tokens", "finetuning_type: lora, or full"
            raise UsageError(Problem("E-MODEL-018", what, "finetuning_type", type(settings).__name__, fix))


def _layers(model: Any) -> list[tuple[list[str], Any]]:
    """The layers that hold rows of tokens, each with the names of all modules that have its weight."""
    layers = [one for one in (model.get_input_embeddings(), model.get_output_embeddings()) if one is not None]
    if len(layers) == 2 and layers[0].weight is layers[1].weight:
        return [([_name_of(model, layer) for layer in layers], layers[0])]
    return [([_name_of(model, layer)], layer) for layer in layers]


def _name_of(model: Any, layer: Any) -> str:
    return next(name for name, module in model.named_modules() if module is layer)


def _has_rows(layer: Any) -> bool:
    """Whether PEFT computes this layer right with rows exchanged: it knows these two kinds, and leaves out a bias."""
    import torch

    return isinstance(layer, torch.nn.Embedding) or (type(layer) is torch.nn.Linear and layer.bias is None)
