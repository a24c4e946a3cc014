"""Low-rank adapters (https://arxiv.org/abs/2106.09685) through PEFT: plain, rank-stabilised, weight-decomposed.

Adapters named in the config: all but the last are merged into the base; the last one is trained on, unless
`create_new_adapter`: then it is merged too and a fresh one is trained.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.core.suggest import did_you_mean
from tunesmith.methods.base import NO_ADAPTERS, Adapters, Method, split_names
from tunesmith.methods.merge import attach_adapter, merge_adapters

if TYPE_CHECKING:
    from tunesmith.config.method import MethodConfig
    from tunesmith.models.family import Family

__all__ = ["Lora", "adapter_inputs", "linear_names"]


class Lora(Method):
    def apply(self, model: Any, family: Family, *, keep_dtype: bool, adapters: Adapters = NO_ADAPTERS) -> Any:
        resumed = bool(adapters.names) and not self.config.create_new_adapter
        model = merge_adapters(model, adapters.only(adapters.names[:-1]) if resumed else adapters)
        if resumed:
            last = adapters.names[-1]
            get_logger().info("training goes on with the adapter %s (its own rank and targets)", last)
            return attach_adapter(model, last, adapters, trainable=True, keep_dtype=keep_dtype)
        return self._fresh(model, family, keep_dtype)

    def _fresh(self, model: Any, family: Family, keep_dtype: bool) -> Any:
        from peft import LoraConfig, TaskType, get_peft_model

        config = self.config
        settings = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            r=config.lora_rank,
            lora_alpha=config.lora_alpha or 2 * config.lora_rank,
            lora_dropout=config.lora_dropout,
            target_modules=self._targets(model, family),
            modules_to_save=split_names(config.additional_target) or None,
            use_rslora=config.use_rslora,
            use_dora=config.use_dora,
        )
        return get_peft_model(model, settings, autocast_adapter_dtype=not keep_dtype)

    def _targets(self, model: Any, family: Family) -> list[str]:
        """Names for PEFT. Raises UsageError if the config names a module that the model does not have."""
        every = linear_names(model, family)
        wanted = split_names(self.config.lora_target)
        extra = split_names(self.config.additional_target)
        modules = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        problems = [
            Problem(
                "E-METHOD-004",
                f'the model has no module called "{name}"',
                where=key,
                fix=did_you_mean(name, modules) or "all, or some of: " + ", ".join(every),
            )
            for key, names in (("lora_target", wanted), ("additional_target", extra))
            for name in names
            if name not in {"all", "all-linear"} and name.rsplit(".", 1)[-1] not in modules
        ]
        if problems:
            raise UsageError(problems)
        return every if set(wanted) & {"all", "all-linear"} else wanted


@contextmanager
def adapter_inputs(model: Any, config: MethodConfig, autocast: str | None) -> Iterator[None]:
    """Under autocast the inputs of float32 adapters stay in half precision: PEFT makes them float32, and autocast makes
    them what they were, 5 % of a step of a small model. The bits are the same. DoRA computes its norms in the type of
    the inputs, so there they are left as PEFT wants them."""
    if autocast is None or config.use_dora or not hasattr(model, "peft_config"):
        yield
        return
    from peft.helpers import disable_input_dtype_casting

    with disable_input_dtype_casting(model):
        yield


def linear_names(model: Any, family: Family) -> list[str]:
    """Last components of the names of all linear modules but the output layer, sorted."""
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's transposed linear

    head = model.get_output_embeddings()
    names = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }
    return sorted(names - set(family.adapter_exclude))
