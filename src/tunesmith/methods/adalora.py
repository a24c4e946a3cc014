"""AdaLoRA (https://openreview.net/pdf?id=lq62uWRJjiY): ranks are taken from layers that need them least.

PEFT has the layers and the arithmetic of the budget; here is when it runs, what is kept of it for a resume, and its
term of the loss. What is saved has all ranks; those that were taken are zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from tunesmith.core.log import get_logger
from tunesmith.models.loss_forward import LossForward

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BudgetCallback", "make_ready", "provisional"]

_UNKNOWN = 10**9
"""Steps of a run, as long as they are not known: PEFT's config wants a number."""
_FIRST, _LAST = 0.1, 0.3
"""Shares of the steps before ranks are taken, and after the last was taken, where the config does not say."""
_KEPT = {"ipt": "adalora_sensitivity", "exp_avg_ipt": "adalora_mean", "exp_avg_unc": "adalora_uncertainty"}


def provisional(own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that let PEFT make the config before the number of steps is known."""
    return {} if "total_step" in own else {"total_step": _UNKNOWN}


def make_ready(model: Any) -> None:
    """PEFT makes the number of ranks, which it divides by, a weight that trains, and does not save it: it stays.

    The mean of |P P' - 1| over the matrices of the adapter, times `orth_reg_weight`, joins the loss of training,
    once for each unit, so it counts once in their mean. It is PEFT's, which adds it to losses that it knows only."""
    import torch

    for name, weight in model.named_parameters():
        if ".ranknum." in name:
            weight.requires_grad_(False)
    settings = model.peft_config[model.active_adapter]
    matrices = [
        weight.T if "lora_B" in name else weight
        for name, weight in model.named_parameters()
        if "lora_A" in name or "lora_B" in name
    ]

    def term() -> Tensor:
        norms = [torch.norm(one @ one.T - torch.eye(len(one), device=one.device)) for one in matrices]
        found: Tensor = settings.orth_reg_weight * torch.stack(norms).mean()
        return found

    LossForward.within(model).for_each_unit = term


class BudgetCallback(TrainerCallback):
    """Takes ranks after each step of the optimizer, by the schedule of the paper. `own`: `tinit` and `tfinal` of the
    config.

    What PEFT remembers of each weight lies in the optimizer's states, so checkpoints hold it.
    """

    def __init__(self, model: Any, own: Mapping[str, int]) -> None:
        self._model, self._own = model, own
        tuner = model.base_model
        self._settings, self._allocator = tuner.peft_config[tuner.trainable_adapter_name], tuner.rankallocator
        self._weights = {name: weight for name, weight in tuner.model.named_parameters() if weight.requires_grad}
        self._pattern: dict[str, Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        total = state.max_steps
        first, last = self._own.get("tinit", int(_FIRST * total)), self._own.get("tfinal", int(_LAST * total))
        if first + last >= total:
            text = "adalora takes no ranks: tinit %d and tfinal %d leave none of %d steps"
            get_logger().warning(text, first, last, total)
        self._settings.total_step, self._settings.tinit, self._settings.tfinal = total, first, last
        if state.global_step >= total - last > first:  # a run that goes on
            self._pattern = self._remaining()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        step, last = state.global_step + 1, self._settings.total_step - self._settings.tfinal
        if self._settings.tinit >= last:
            return
        states = _plain(more["optimizer"]).state
        self._take_up(states)
        model = self._model.base_model.model
        if step <= last:
            _, pattern = self._allocator.update_and_allocate(model, step, force_mask=step == last)
            self._pattern = pattern if step == last else None
        else:
            # PEFT's own config is left without the pattern: it would save less than a resume needs.
            self._allocator.mask_using_rank_pattern(model, self._pattern)
        for place, kept in _KEPT.items():
            for name, value in getattr(self._allocator, place).items():
                states[self._weights[name]][kept] = value

    def _take_up(self, states: Mapping[Any, Any]) -> None:
        """What a checkpoint's optimizer remembers, into PEFT's allocator."""
        for place, kept in _KEPT.items():
            if not getattr(self._allocator, place):
                found = {name: states[weight][kept] for name, weight in self._weights.items() if kept in states[weight]}
                setattr(self._allocator, place, found)

    def _remaining(self) -> dict[str, Any]:
        """Which ranks are left, read off the zeros that each step leaves: after the last was taken, that is all."""
        return {
            name.replace(f".{self._model.base_model.trainable_adapter_name}", ""): (weight != 0).view(-1).tolist()
            for name, weight in self._weights.items()
            if "lora_E" in name
        }


def _plain(optimizer: Any) -> Any:
    return getattr(optimizer, "optimizer", optimizer)
