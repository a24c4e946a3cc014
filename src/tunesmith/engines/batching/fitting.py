"""Which runner a loaded model gets, and the model as it is called."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.core.log import get_logger
from tunesmith.engines.batching.runners import Alone, Runner, Together
from tunesmith.engines.batching.slots import LayerShape
from tunesmith.engines.batching.step import layer_shapes
from tunesmith.engines.batching.threads import Mode
from tunesmith.models.attention import KEPT, attention_of, register
from tunesmith.models.depth_plan import told_depths
from tunesmith.models.family import Family, family_of
from tunesmith.models.rope import longest_kinds
from tunesmith.models.seeing import set_attention
from tunesmith.models.segments import tell_limit

if TYPE_CHECKING:
    from tunesmith.config.engine import EngineConfig
    from tunesmith.engines.batching.adapters import NamedAdapters

__all__ = ["Fitted"]

_GB = 1024**3


class Fitted:
    """A model that is ready to run. `one_by_one`: requests have a forward of their own in any case. `sees`: they may
    have media. `undo` gives the model back as it was."""

    def __init__(
        self,
        model: Any,
        adapters: NamedAdapters,
        settings: EngineConfig,
        mode: Mode,
        *,
        one_by_one: bool = False,
        sees: bool = False,
    ) -> None:
        self.bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.device: torch.device = model.device
        self._before = attention_of(self.bare)
        family = family_of(self.bare.config.model_type)
        reason = _alone(self.bare, family, settings, sees=sees)
        chooses = told_depths(self.bare.config) is not None
        if adapters.replies != "together":
            reason = "its adapter wants whole rows"
        if one_by_one:
            reason = "flash_attn or full_determinism asks for it"
        if chooses:
            reason = "it is a mixture of depths, whose choice of tokens changes with each new one: nothing is kept"
        shapes = None if reason else self._shapes(adapters, family, mode)
        if shapes is None:
            self.undo()
            get_logger().info(
                "each request is computed by itself: %s",
                reason or "its layers attend to something else than what they keep",
            )
            keeps = settings.use_kv_cache and not chooses and adapters.replies != "again"
            self.runner: Runner = Alone(adapters, self.bare, self.device, use_cache=keeps, sees=sees)
            self.budget: int | None = None
        else:
            self.budget = _tokens(settings.kv_cache_gb, shapes, self.device)
            self.runner = Together(adapters, self.bare, self.device, shapes, self.budget, settings.prefill_chunk_tokens)

    def _shapes(self, adapters: NamedAdapters, family: Family, mode: Mode) -> tuple[LayerShape, ...] | None:
        register()
        set_attention(self.bare, KEPT)
        if family.mask_only is not None:
            tell_limit(self.bare, family.mask_only)
        return layer_shapes(lambda **inputs: adapters([None] * 2, inputs, flat=True), self.device, mode)

    def undo(self) -> None:
        if attention_of(self.bare) != self._before:
            set_attention(self.bare, self._before)


def _alone(model: Any, family: Family, settings: EngineConfig, *, sees: bool) -> str | None:
    """Why the requests of a model are not computed together; None: they are."""
    reasons = {
        "use_kv_cache is false": not settings.use_kv_cache,
        "a model of this type reads no flat batches": not family.flat,
        "it has modules that read one sequence at a time": bool(family.per_sequence),
        "its positions depend on the longest sequence": bool(longest_kinds(model.config)),
        "what it sees has a mask of its own": sees and hasattr(model, "create_masks_for_generate"),
        "it has logits of all tokens": "logits_to_keep" not in inspect.signature(type(model).forward).parameters,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _tokens(gigabytes: float | None, shapes: Sequence[LayerShape], device: torch.device) -> int:
    """How many tokens the keys and values of all requests may have. None: half of what is free on a GPU, else 1 GB."""
    if gigabytes is not None:
        size = gigabytes * _GB
    elif device.type == "cuda":
        size = torch.cuda.mem_get_info(device)[0] / 2
    else:
        size = _GB
    return max(int(size / sum(shape.bytes_per_token for shape in shapes)), 1)
