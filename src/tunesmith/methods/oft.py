"""Orthogonal fine-tuning (https://arxiv.org/abs/2306.07280, in the form of https://arxiv.org/abs/2506.19847): the
inputs of a layer are turned by a block-diagonal rotation, so the base may be quantized (QOFT)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.methods.adapter import AdapterMethod, with_settings
from tunesmith.models.heads import task_of

if TYPE_CHECKING:
    from peft import OFTConfig

    from tunesmith.models.family import Family

__all__ = ["Oft"]

_KEYS = {
    "r": "oft_rank",
    "oft_block_size": "oft_block_size",
    "module_dropout": "module_dropout",
    "target_modules": "oft_target",
    "modules_to_save": "additional_target",
    "layers_to_transform": "layers_to_transform",
}


class Oft(AdapterMethod):
    def settings(self, model: Any, family: Family) -> OFTConfig:
        from peft import OFTConfig

        config = self.config
        # LlamaFactory reads lora_target here; a config that has none of oft_target keeps its meaning.
        key = "oft_target" if config.oft_target != ("all",) else "lora_target"
        found: dict[str, Any] = {
            "task_type": task_of(model),
            "r": config.oft_rank,
            "oft_block_size": 0 if config.oft_rank else config.oft_block_size,
            "module_dropout": config.module_dropout,
            "target_modules": self.targets(model, family, key, getattr(config, key)),
        }
        return with_settings(OFTConfig, found | self.common(), config.peft_settings, _KEYS)
