"""RunConfig -> the optimizer of a Trainer: one of ours, or one of transformers with our groups of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import transformers

from tunesmith.config.optimizer_checks import options_of
from tunesmith.config.optimizer_facts import optimizer_of, steps_in_backward
from tunesmith.train.optimizers import OPTIMIZERS
from tunesmith.train.optimizers.ask import Ask

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from tunesmith.config import RunConfig
    from tunesmith.config.optimizer import OptimizerConfig

__all__ = ["OptimizerSettings", "optimizer_for"]


@dataclass(frozen=True, slots=True)
class OptimizerSettings:
    """`name` of the optimizer, `ours` where it is in OPTIMIZERS; `in_backward` is the key that has it step in the
    backward pass, or None."""

    config: OptimizerConfig
    name: str
    ours: bool
    options: Mapping[str, Any]
    in_backward: str | None

    def give(self, trainer: Any, model: Any) -> None:
        """Have a transformers.Trainer use it. Raises UsageError where the model has no such weights, ImportError and
        ValueError as transformers does."""
        arguments = trainer.args
        adam = {
            "lr": arguments.learning_rate,
            "betas": (arguments.adam_beta1, arguments.adam_beta2),
            "eps": arguments.adam_epsilon,
            "weight_decay": arguments.weight_decay,
        }
        decays = frozenset(trainer.get_decay_parameter_names(model))
        inside = partial(_made, arguments)
        ask = Ask(self.config, model, adam, decays, inside, arguments.seed, self.options)
        if self.ours:
            trainer.optimizer = OPTIMIZERS.get(self.name)(ask)
        elif self.config.lr_groups or self.config.loraplus_lr_ratio is not None:
            kind, settings = trainer.get_optimizer_cls_and_kwargs(arguments, model)
            trainer.optimizer_cls_and_kwargs = kind, {**settings, "params": ask.groups()}


def _made(arguments: Any, groups: Sequence[Mapping[str, Any]]) -> Optimizer:
    """What `optim` names, as it runs inside another optimizer."""
    kind, settings = transformers.Trainer.get_optimizer_cls_and_kwargs(arguments)
    made: Optimizer = kind(groups, **settings)
    return made


def optimizer_for(config: RunConfig) -> OptimizerSettings:
    facts = optimizer_of(config)
    options = options_of(config) if facts.ours else {}
    return OptimizerSettings(config.optimizer, facts.name, facts.ours, options, steps_in_backward(config))
