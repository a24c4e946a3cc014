"""Which layers of a model choose their tokens (Mixture-of-Depths, `models.depths`): from the config and config.json.

config.json of such a model says `mixture_of_depths: {capacity, every, first}`. A folder that says so is loaded as what
it is, whether the run's config names the key or not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.models.families import DEPTHS

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["FLAG", "Depths", "plan_depths", "told_depths"]

FLAG = "mixture_of_depths"
"""The key of config.json, and of ours."""


@dataclass(frozen=True, slots=True)
class Depths:
    """`capacity`: the share of tokens that a routed layer computes. `every`, `first`: which layers those are."""

    capacity: float = 0.125
    every: int = 2
    first: int = 1

    def layers(self, count: int) -> range:
        """Numbers of the routed layers of a model with `count` of them."""
        return range(self.first, count, self.every)

    def chosen(self, length: int) -> int:
        """How many tokens of a sequence are computed."""
        return min(length, math.ceil(self.capacity * length - 1e-9))  # 0.07 * 100 is a little more than 7

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def told_depths(settings: Any) -> Depths | None:
    """What config.json says; None: an ordinary model. Raises MissingInputError where it says what cannot be."""
    found = getattr(settings, FLAG, None)
    if found is None:
        return None
    try:
        made = Depths(float(found["capacity"]), int(found["every"]), int(found["first"]))
        whole = 0 < made.capacity <= 1 and made.every >= 1 and 0 <= made.first < settings.num_hidden_layers
    except (AttributeError, KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        what, fix = "config.json does not say how its layers choose tokens", "get the model's own config.json again"
        raise MissingInputError(Problem("E-MODEL-032", what, FLAG, str(found), fix))
    return made


def plan_depths(config: ModelConfig, settings: Any, *, trains: bool = True) -> Depths | None:
    """How the layers of a model choose tokens; None: it is an ordinary model. settings: its config.json. trains:
    whether routers may be new.

    Raises UsageError (E-MODEL-031) for a type whose layers cannot, E-MODEL-032 where `mixture_of_depths` asks for
    another kind of folder.
    """
    told, asked = told_depths(settings), config.mixture_of_depths
    where = f"model_name_or_path: {config.model_name_or_path}"
    if told is not None and asked == "convert":
        what, fix = "the model is a mixture of depths already", "mixture_of_depths: load, or leave the key out"
        raise UsageError(Problem("E-MODEL-032", what, where, f"config.json: {FLAG}", fix))
    if told is None and asked == "load":
        what, fix = "the model is no mixture of depths", "mixture_of_depths: convert makes one of it, in training"
        raise UsageError(Problem("E-MODEL-032", what, where, f"config.json has no {FLAG}", fix))
    if asked == "convert" and not trains:
        what = "mixture_of_depths: convert makes routers of random numbers, which only training can use"
        fix = "train it first, then name what was saved, and leave mixture_of_depths out"
        raise UsageError(Problem("E-MODEL-032", what, where, fix=fix))
    if told is None and asked is None:
        return None
    depths = told or Depths(config.mixture_of_depths_capacity)
    if reason := _unfit(settings, depths):
        fix = "another model (docs/surgery.md names what fits), or leave mixture_of_depths out"
        raise UsageError(Problem("E-MODEL-031", "layers of this model cannot choose tokens", where, reason, fix))
    return depths


def _unfit(settings: Any, depths: Depths) -> str | None:
    """What of a model does not go with layers that compute a part of the tokens."""
    if settings.model_type not in DEPTHS:
        return f"the type {settings.model_type} is not among those that were compared with the mathematics"
    if getattr(settings, "num_kv_shared_layers", None):
        return "its layers share keys and values"
    routed = depths.layers(settings.num_hidden_layers)
    if not routed:
        return f"it has {settings.num_hidden_layers} layers, and layer {depths.first} would be the first to choose"
    kinds = getattr(settings, "layer_types", None)
    if kinds is None and getattr(settings, "sliding_window", None):
        return "its layers see a window of the sequence only"
    others = [number for number in routed if kinds is not None and kinds[number] != "full_attention"]
    return f"layer {others[0]} is of the kind {kinds[others[0]]}, not full_attention" if others else None  # type: ignore[index]
