"""Low-rank adapters (https://arxiv.org/abs/2106.09685) through PEFT: plain, rank-stabilised, weight-decomposed, and
with the beginnings that PEFT knows (`methods/inits.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.methods.adapter import AdapterMethod, linear_names, put_on, with_settings
from tunesmith.methods.base import Given
from tunesmith.methods.freeze import expanded_blocks
from tunesmith.methods.inits import prepare, settings_of_init
from tunesmith.models.heads import task_of

if TYPE_CHECKING:
    from peft import LoraConfig

    from tunesmith.config.method import MethodConfig
    from tunesmith.models.family import Family

__all__ = ["Lora", "adapter_inputs", "linear_names"]

# Settings of PEFT's LoraConfig with a key of ours, which `peft_settings` does not repeat.
_KEYS = {
    "r": "lora_rank",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": "lora_target",
    "modules_to_save": "additional_target",
    "use_rslora": "use_rslora",
    "use_dora": "use_dora",
    "init_lora_weights": "init_lora_weights",
    "target_parameters": "target_parameters",
    "layers_to_transform": "layers_to_transform",
    "rank_pattern": "rank_pattern",
    "alpha_pattern": "alpha_pattern",
}


class Lora(AdapterMethod):
    def settings(self, model: Any, family: Family) -> LoraConfig:
        from peft import LoraConfig

        config = self.config
        found: dict[str, Any] = {
            "task_type": task_of(model),
            "r": config.lora_rank,
            "lora_alpha": config.lora_alpha or 2 * config.lora_rank,
            "lora_dropout": config.lora_dropout,
            "target_modules": self._places(model, family),
            "target_parameters": list(config.target_parameters) or None,
            "use_rslora": config.use_rslora,
            "use_dora": config.use_dora,
            "rank_pattern": {name: int(rank) for name, rank in config.rank_pattern.items()},
            "alpha_pattern": {name: float(alpha) for name, alpha in config.alpha_pattern.items()},
        }
        if config.use_llama_pro:
            found["layers_to_transform"] = expanded_blocks(model, config.freeze_trainable_layers)
        _check_parameters(model, config.target_parameters)
        return with_settings(LoraConfig, found | self.common() | settings_of_init(config), config.peft_settings, _KEYS)

    def fresh(self, model: Any, given: Given) -> Any:
        settings = self.settings(model, given.family)
        empty = self.config.begins_as == "eva"
        made = partial(put_on, model, settings, given.keep_dtype, empty=empty)
        return prepare(self.config, model, settings, given.calibration, made, given.adapters.hub)

    def _places(self, model: Any, family: Family) -> list[str]:
        """With `target_parameters` alone, no modules."""
        if self.config.target_parameters and self.config.lora_target == ("all",):
            return []
        return self.targets(model, family, "lora_target", self.config.lora_target)


def _check_parameters(model: Any, wanted: tuple[str, ...]) -> None:
    """Raises UsageError for a weight that the model does not have."""
    names = [name for name, _ in model.named_parameters()]
    problems = [
        Problem(
            "E-METHOD-013",
            f'the model has no weight whose name ends in "{name}"',
            where="target_parameters",
            fix="a weight's name or its end, like mlp.experts.gate_up_proj (print_param_status: true lists them)",
        )
        for name in wanted
        if not any(have == name or have.endswith(f".{name}") for have in names)
    ]
    if problems:
        raise UsageError(problems)


@contextmanager
def adapter_inputs(model: Any, config: MethodConfig, autocast: str | None) -> Iterator[None]:
    """Under autocast the inputs of float32 adapters stay in half precision: PEFT makes them float32, and autocast makes
    them what they were, 5 % of a step of a small model. The bits are the same. DoRA computes its norms in the type of
    the inputs, so there they are left as PEFT wants them, as they are for other kinds of adapters."""
    if autocast is None or config.use_dora or config.finetuning_type != "lora" or not hasattr(model, "peft_config"):
        yield
        return
    from peft.helpers import disable_input_dtype_casting
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    if not all(hasattr(layer, "cast_input_dtype_enabled") for layer in layers):
        yield  # rows of new tokens, which PEFT's own helper does not know
        return
    with disable_input_dtype_casting(model):
        yield
