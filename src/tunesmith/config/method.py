"""Which weights train."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.config.fields import ignored, section, works


@section
class MethodConfig:
    """Full, freeze, LoRA, OFT, every other adapter of PEFT, and their settings."""

    finetuning_type: Literal["lora", "oft", "freeze", "full", "peft"] = works("lora")
    """Which weights train: an adapter (lora, oft, or peft with `peft_type`), some layers (freeze), or all (full)."""
    pure_bf16: bool = works(False)
    """Hold and update the weights in bfloat16, without float32 copies."""
    freeze_trainable_layers: int = works(2)
    """freeze: the last n layers train; a negative number counts from the first."""
    freeze_trainable_modules: tuple[str, ...] = works(("all",))
    """freeze: comma list of modules inside those layers, or all."""
    freeze_extra_modules: tuple[str, ...] = works(())
    """freeze: comma list of modules outside the layers that train too."""
    additional_target: tuple[str, ...] = works(())
    """lora, oft, peft: comma list of modules trained in full and saved with the adapter."""
    lora_alpha: int | None = works(None, least=0)
    """lora: scale; left out or 0, twice the rank."""
    lora_dropout: float = works(0.0, least=0, below=1)
    """lora: dropout in front of the adapter."""
    lora_rank: int = works(8, least=1)
    """lora: rank of the matrices."""
    lora_target: tuple[str, ...] = works(("all",))
    """lora: comma list of modules that get an adapter, or all linear layers of the blocks."""
    use_rslora: bool = works(False)
    """lora: scale by alpha / sqrt(rank) instead of alpha / rank."""
    use_dora: bool = works(False)
    """lora: learn magnitude and direction apart (DoRA)."""
    init_lora_weights: Literal[
        "default", "gaussian", "orthogonal", "pissa", "olora", "eva", "corda", "lora_ga", "loftq"
    ] = works("default")
    """lora: how the matrices begin. eva, corda and lora_ga look at rows of the data, loftq at what rounding took."""
    lora_init_rows: int = works(64, least=1)
    """lora: rows of the data that eva, corda and lora_ga look at."""
    pissa_init: bool = works(False)
    """lora: begin from the principal singular vectors; the same as `init_lora_weights: pissa`."""
    pissa_iter: int = works(16, least=-1)
    """lora: iterations of the fast decomposition of pissa; -1 is exact."""
    pissa_convert: bool = ignored(False, "what is saved is always a plain LoRA, so that it fits the base as it came")
    """lora: turn an adapter that began with a part of the base into a plain one of twice the rank."""
    target_parameters: tuple[str, ...] = works(())
    """lora: comma list of weights that are no module of their own, such as the fused experts of a mixture."""
    layers_to_transform: tuple[float, ...] = works(())
    """lora, oft, peft: numbers of the layers that get an adapter; left out, all."""
    rank_pattern: Mapping[str, Any] = works({})
    """lora: other ranks by a regular expression of module names."""
    alpha_pattern: Mapping[str, Any] = works({})
    """lora: other values of `lora_alpha` by a regular expression of module names."""
    peft_type: str | None = works(None)
    """peft: kind of adapter by its name in PEFT, like vera, ia3, loha, adalora, prompt_tuning (docs/methods.md)."""
    peft_settings: Mapping[str, Any] = works({})
    """lora, oft, peft: more settings of PEFT's config of that adapter, by PEFT's names."""
    create_new_adapter: bool = works(False)
    """lora, oft, peft: merge the given adapters and begin a new one."""
    module_dropout: float = works(0.0, least=0, below=1)
    """oft: dropout."""
    oft_rank: int = works(0, least=0)
    """oft: number of blocks; 0 takes `oft_block_size`."""
    oft_block_size: int = works(32, least=0)
    """oft: size of the orthogonal blocks."""
    oft_target: tuple[str, ...] = works(("all",))
    """oft: comma list of modules, or all."""
    use_llama_pro: bool = works(False)
    """freeze, lora: train only the blocks that `tunesmith convert llama-pro` added to the model."""
    freeze_vision_tower: bool = works(True)
    """Do not train the encoder of a model that sees or hears."""
    freeze_multi_modal_projector: bool = works(True)
    """Do not train what lies between that encoder and the language model."""
    freeze_language_model: bool = works(False)
    """Do not train the language model beside them."""

    @property
    def kind(self) -> str:
        """What trains, by one name: full, freeze, lora, rslora, dora, oft, or a kind of PEFT's adapters."""
        if self.finetuning_type == "peft":
            return (self.peft_type or "").lower()
        if self.finetuning_type == "lora":
            return "dora" if self.use_dora else "rslora" if self.use_rslora else "lora"
        return self.finetuning_type

    @property
    def begins_as(self) -> str:
        """How the matrices of a LoRA begin; `pissa_init` is the older name of one way."""
        return "pissa" if self.pissa_init else self.init_lora_weights

    @property
    def moves_base(self) -> bool:
        """Whether what the matrices begin with is taken out of the base, so that both together are as before."""
        return self.finetuning_type == "lora" and self.begins_as in ("pissa", "olora", "corda", "lora_ga")

    @property
    def looks_at_rounding(self) -> bool:
        """Whether the matrices begin with what quantizing the base took from it."""
        return self.finetuning_type == "lora" and self.begins_as == "loftq"

    @property
    def looks_at_rows(self) -> bool:
        return self.finetuning_type == "lora" and self.begins_as in ("eva", "corda", "lora_ga")
