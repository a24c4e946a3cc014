"""Several adapters as one change of the weights: each is merged into the base by itself, and the changes are weighed
against each other.

    linear              the weighted sum (task arithmetic, https://arxiv.org/abs/2212.04089)
    ties                the largest part of each, where most agree on the sign (https://arxiv.org/abs/2306.01708)
    dare_linear, _ties  a random part of each, made larger (https://arxiv.org/abs/2311.03099), then as above

The arithmetic is PEFT's. It gets changes of weights, not the matrices of adapters, so adapters of any kinds and ranks
go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tunesmith.core.log import get_logger
from tunesmith.methods.merge import attach_adapter, fold

if TYPE_CHECKING:
    from tunesmith.config.export import ExportConfig
    from tunesmith.methods.base import Adapters

__all__ = ["combine", "combine_adapters"]


def combine_adapters(model: Any, adapters: Adapters, config: ExportConfig, *, seed: int) -> Any:
    """The plain model with all adapters in its weights. `seed`: of what dare keeps. Raises what `fold` raises."""
    base = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    changes: list[dict[str, Tensor]] = []
    for adapter in adapters.names:
        model = fold(attach_adapter(model, adapter, adapters), adapter)
        changes.append(_changes(model, base))
        _put(model, base)
        get_logger().info("the adapter %s changes %d weights", adapter, len(changes[-1]))
    weights = list(config.merge_weights) or [1.0] * len(changes)
    combined = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name in base:
            if any(name in change for change in changes):
                parts = [change.get(name, torch.zeros_like(base[name])) for change in changes]
                combined[name] = base[name] + combine(parts, weights, config.merge_method, config.merge_density)
    _put(model, combined)
    return model


def combine(changes: Sequence[Tensor], weights: Sequence[float], method: str, density: float) -> Tensor:
    """Changes of one weight, all of its shape, as one."""
    from peft.utils import merge_utils

    more: dict[str, Any] = {} if method == "linear" else {"density": density}
    of = {"linear": merge_utils.task_arithmetic, "ties": merge_utils.ties}
    of |= {"dare_linear": merge_utils.dare_linear, "dare_ties": merge_utils.dare_ties}
    scale = torch.tensor(list(weights), dtype=changes[0].dtype, device=changes[0].device)
    found: Tensor = of[method](list(changes), scale, **more)
    return found


def _changes(model: Any, base: dict[str, Tensor]) -> dict[str, Tensor]:
    now = dict(model.named_parameters())
    return {name: now[name].detach() - before for name, before in base.items() if not torch.equal(now[name], before)}


def _put(model: Any, weights: dict[str, Tensor]) -> None:
    now = dict(model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            now[name].copy_(weight)
