"""Which weights train."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import ignored, later, section, works

_OFT = "orthogonal fine-tuning (OFT)"
_PISSA = "PiSSA initialisation"
_MEDIA = "models that see or hear come later, and a text model has no such part"


@section
class MethodConfig:
    """Full, freeze, LoRA, and their settings."""

    finetuning_type: Literal["lora", "oft", "freeze", "full"] = works("lora", later=("oft",))
    """Which weights train: an adapter (lora), some layers (freeze), or all (full)."""
    pure_bf16: bool = works(False)
    """Hold and update the weights in bfloat16, without float32 copies."""
    freeze_trainable_layers: int = works(2)
    """freeze: the last n layers train; a negative number counts from the first."""
    freeze_trainable_modules: tuple[str, ...] = works(("all",))
    """freeze: comma list of modules inside those layers, or all."""
    freeze_extra_modules: tuple[str, ...] = works(())
    """freeze: comma list of modules outside the layers that train too."""
    additional_target: tuple[str, ...] = works(())
    """lora: comma list of modules trained in full and saved with the adapter."""
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
    pissa_init: bool = later(False, _PISSA)
    """lora: begin from the principal singular vectors."""
    pissa_iter: int = later(16, _PISSA)
    """lora: iterations of the fast decomposition; -1 is exact."""
    pissa_convert: bool = later(False, _PISSA)
    """lora: turn the adapter into a plain one at the end."""
    create_new_adapter: bool = works(False)
    """lora: merge the given adapters and begin a new one."""
    module_dropout: float = later(0.0, _OFT)
    """oft: dropout."""
    oft_rank: int = later(0, _OFT)
    """oft: number of blocks; 0 takes `oft_block_size`."""
    oft_block_size: int = later(32, _OFT)
    """oft: size of the orthogonal blocks."""
    oft_target: tuple[str, ...] = later(("all",), _OFT)
    """oft: comma list of modules, or all."""
    use_llama_pro: bool = later(False, "block expansion (LLaMA Pro)")
    """freeze, lora: train only blocks that were added to the model."""
    freeze_vision_tower: bool = ignored(True, _MEDIA)
    """Do not train the encoder of images and audio."""
    freeze_multi_modal_projector: bool = ignored(True, _MEDIA)
    """Do not train the projector between encoder and language model."""
    freeze_language_model: bool = later(False, "models that see or hear")
    """Do not train the language model."""
