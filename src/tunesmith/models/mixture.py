"""Mixtures of experts, by their config: which layers have experts, and how many of them a token meets.

A *dense* layer has one feed-forward part for all tokens, a *sparse* one has routed experts, of which a router chooses
some for each token, and often shared experts beside them, which every token meets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tunesmith.models.families.mixtures import CHOSEN, EXPERTS, NESTED, SWITCHES
from tunesmith.models.family import family_of

__all__ = ["Mixture", "active_parameters", "expert_modules", "mixture_of", "part_of_one"]


@dataclass(frozen=True, slots=True)
class Mixture:
    """experts  that a sparse layer has to choose from, without those that do nothing
    chosen   how many of them work for a token: a whole number, less on average where a token may be sent to experts
             that do nothing, as if all were chosen alike
    sparse   of each layer, whether it has them
    """

    experts: int
    chosen: float
    sparse: tuple[bool, ...]

    @property
    def dense_layers(self) -> tuple[int, ...]:
        return tuple(number for number, sparse in enumerate(self.sparse) if not sparse)


def mixture_of(settings: Any) -> Mixture | None:
    """From a config of transformers; None for a dense model, and for a type whose config has other names."""
    text = settings.get_text_config()
    family = family_of(text.model_type)
    experts, chosen = _mean(text, EXPERTS), _mean(text, CHOSEN)
    if not experts or not chosen or any(getattr(text, name, None) is False for name in SWITCHES):
        return None
    idle = family.idle_experts
    idle = int(getattr(text, idle) or 0) if isinstance(idle, str) else idle
    sparse = tuple(_sparse_layers(text, int(getattr(text, family.depth))))
    return Mixture(int(experts), chosen * experts / (experts + idle), sparse) if any(sparse) else None


def _mean(text: Any, names: tuple[str, ...]) -> float | None:
    """The number under the first of these names that there is; of a list, which has one for each layer, the mean."""
    for place in (text, *(getattr(text, name, None) for name in NESTED)):
        for name in names:
            if (value := getattr(place, name, None)) is not None:
                return sum(value) / len(value) if isinstance(value, list | tuple) else float(value)
    return None


def _sparse_layers(text: Any, depth: int) -> Iterator[bool]:
    rule = next((rule for name, rule in _RULES.items() if _tells(text, name)), None)
    return (rule is None or bool(rule(text, layer)) for layer in range(depth))


def _tells(text: Any, name: str) -> bool:
    value = getattr(text, name, None)
    if name == "layers_block_type":  # of most types it tells attention from other mixers only
        return bool({"moe", "mlp"}.intersection(value or ()))
    return value is not None


def _every_step(text: Any, layer: int) -> bool:
    return layer not in (text.mlp_only_layers or ()) and (layer + 1) % text.decoder_sparse_step == 0


def _between(text: Any, layer: int) -> bool:
    inside = text.moe_layer_start_index <= layer <= text.moe_layer_end_index
    return inside and (layer + 1) % text.moe_layer_interval == 0


# The key by which a config tells, and how; the first that is there holds. Without any all layers are sparse.
_RULES: dict[str, Callable[[Any, int], bool]] = {
    "mlp_layer_types": lambda text, layer: text.mlp_layer_types[layer] != "dense",
    "layers_block_type": lambda text, layer: text.layers_block_type[layer] == "moe",
    "moe_layers": lambda text, layer: layer in text.moe_layers,
    "expert_layer_period": lambda text, layer: layer % text.expert_layer_period == text.expert_layer_offset,
    "moe_layer_interval": _between,
    "mlp_only_layers": _every_step,
    "num_dense_layers": lambda text, layer: layer >= text.num_dense_layers,
    "first_k_dense_replace": lambda text, layer: layer >= text.first_k_dense_replace,
}


def expert_modules(model: Any) -> Iterator[tuple[str, Any]]:
    """Modules with the weights of all routed experts of a layer, as transformers calls them, with their names. Not
    those of experts that are modules of their own, nor shared ones."""
    for name, module in model.named_modules():
        if type(module).__name__.endswith("Experts") and "shared" not in name.rsplit(".", 1)[-1]:
            yield name, module


def active_parameters(model: Any, mixture: Mixture) -> int:
    """How many of the model's weights a token meets."""
    total = sum(one.numel() for one in model.parameters())
    held = [one for _, module in expert_modules(model) for one in module.parameters()]
    return round(total - sum(one.numel() - mixture.chosen * part_of_one(one, mixture) for one in held))


def part_of_one(weight: Any, mixture: Mixture) -> float:
    """Numbers that one expert has in a weight [E, ...] of all, or in one with E times as many rows. LongCat Flash holds
    rows for experts that do nothing, too."""
    return float(weight.numel() / (weight.shape[0] if weight.ndim == 3 else mixture.experts))
