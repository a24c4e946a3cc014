"""Optimizers beyond those that `optim` names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tunesmith.config.fields import ignored, section, works


@section
class OptimizerConfig:
    """When the optimizer steps, rates of groups of weights, and GaLore, APOLLO, BAdam, Adam-mini and Muon."""

    optimizer_in_bwd: bool = works(False)
    """Step each weight in the backward pass as soon as its gradient is there, and free the gradient."""
    lr_groups: Mapping[str, Any] | None = works(None)
    """Regular expression of weights' names -> `lr` or `lr_factor`, and `weight_decay`. The first that fits holds."""
    loraplus_lr_ratio: float | None = works(None, above=0)
    """lora: learning rate of the B matrices, as a multiple of `learning_rate` (LoRA+)."""
    loraplus_lr_embedding: float = works(1e-06, least=0)
    """lora: learning rate of the B matrices of embeddings, with `loraplus_lr_ratio`."""
    use_galore: bool = works(False)
    """full, freeze: project gradients of matrices to a low rank (GaLore); `optim` steps there."""
    galore_target: tuple[str, ...] = works(("all",))
    """Comma list of names of modules, or all matrices of the layers."""
    galore_rank: int = works(16, least=1)
    """Rank of the projection."""
    galore_update_interval: int = works(200, least=1)
    """Steps between two projections."""
    galore_scale: float = works(2.0, above=0)
    """Scale of the update."""
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = works("std")
    """Side of the projection."""
    galore_layerwise: bool = works(False)
    """Update each layer during the backward pass."""
    use_apollo: bool = works(False)
    """full, freeze: AdamW of a low rank says how to scale gradients (APOLLO; APOLLO-Mini at rank 1)."""
    apollo_target: tuple[str, ...] = works(("all",))
    """Comma list of names of modules, or all matrices of the layers."""
    apollo_rank: int = works(16, least=1)
    """Rank of the auxiliary space."""
    apollo_update_interval: int = works(200, least=1)
    """Steps between two projections."""
    apollo_scale: float = works(32.0, above=0)
    """Scale of the update."""
    apollo_proj: Literal["svd", "random"] = works("random")
    """How the projection is found."""
    apollo_proj_type: Literal["std", "right", "left"] = works("std")
    """Side of the projection."""
    apollo_scale_type: Literal["channel", "tensor"] = works("channel")
    """One scale per channel or per tensor."""
    apollo_layerwise: bool = works(False)
    """Update each layer during the backward pass."""
    apollo_scale_front: bool = ignored(False, "the limit is relative, so before and after the scale it does the same")
    """Scale before the growth of the norm is limited."""
    use_badam: bool = works(False)
    """full, freeze: train one block of weights at a time (BAdam), by `optim`."""
    badam_mode: Literal["layer", "ratio"] = works("layer")
    """Whole layers, or a share of all weights."""
    badam_start_block: int | None = works(None, least=0)
    """Number of the first block, from 0. Left out: the first, or the last where they descend."""
    badam_switch_mode: Literal["ascending", "descending", "random", "fixed"] | None = works("ascending")
    """Order of the blocks; random takes each once in a round, fixed and null never switch."""
    badam_switch_interval: int | None = works(50)
    """Steps per block, or per choice of a share; -1 and null never switch."""
    badam_update_ratio: float = works(0.05, above=0, most=1)
    """Share of the weights that is updated in ratio mode."""
    badam_mask_mode: Literal["adjacent", "scatter"] = works("adjacent")
    """Whether that share is one piece or scattered."""
    badam_verbose: int = works(0, least=0, most=2)
    """0 silent, 1 names blocks, 2 names weights."""
    use_adam_mini: bool = works(False)
    """full, freeze: AdamW with one second moment per block; the same as `optim: adam_mini`."""
    use_muon: bool = works(False)
    """Orthogonalised momentum for hidden matrices, AdamW for the rest; the same as `optim: muon`."""
