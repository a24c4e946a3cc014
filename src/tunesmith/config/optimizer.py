"""Optimizers beyond those that `optim` names."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import later, section, works

_PLUS = "LoRA+"
_GALORE = "GaLore"
_APOLLO = "APOLLO"
_BADAM = "BAdam"


@section
class OptimizerConfig:
    """When the optimizer steps, and LoRA+, GaLore, APOLLO, BAdam, Adam-mini and Muon."""

    optimizer_in_bwd: bool = works(False)
    """Step each weight in the backward pass as soon as its gradient is there, and free the gradient."""
    loraplus_lr_ratio: float | None = later(None, _PLUS)
    """Learning rate of the B matrices, as a multiple of `learning_rate`."""
    loraplus_lr_embedding: float = later(1e-06, _PLUS)
    """Learning rate of embedding adapters."""
    use_galore: bool = later(False, _GALORE)
    """Project gradients to a low rank."""
    galore_target: tuple[str, ...] = later(("all",), _GALORE)
    """Comma list of modules, or all linear layers."""
    galore_rank: int = later(16, _GALORE)
    """Rank of the projection."""
    galore_update_interval: int = later(200, _GALORE)
    """Steps between two projections."""
    galore_scale: float = later(2.0, _GALORE)
    """Scale of the update."""
    galore_proj_type: Literal["std", "reverse_std", "right", "left", "full"] = later("std", _GALORE)
    """Side of the projection."""
    galore_layerwise: bool = later(False, _GALORE)
    """Update each layer during the backward pass."""
    use_apollo: bool = later(False, _APOLLO)
    """Scale gradients by a low-rank estimate."""
    apollo_target: tuple[str, ...] = later(("all",), _APOLLO)
    """Comma list of modules, or all linear layers."""
    apollo_rank: int = later(16, _APOLLO)
    """Rank of the auxiliary space."""
    apollo_update_interval: int = later(200, _APOLLO)
    """Steps between two projections."""
    apollo_scale: float = later(32.0, _APOLLO)
    """Scale of the update."""
    apollo_proj: Literal["svd", "random"] = later("random", _APOLLO)
    """How the projection is found."""
    apollo_proj_type: Literal["std", "right", "left"] = later("std", _APOLLO)
    """Side of the projection."""
    apollo_scale_type: Literal["channel", "tensor"] = later("channel", _APOLLO)
    """One scale per channel or per tensor."""
    apollo_layerwise: bool = later(False, _APOLLO)
    """Update each layer during the backward pass."""
    apollo_scale_front: bool = later(False, _APOLLO)
    """Limit the growth of the norm before scaling."""
    use_badam: bool = later(False, _BADAM)
    """Train one block of weights at a time."""
    badam_mode: Literal["layer", "ratio"] = later("layer", _BADAM)
    """Whole layers, or a share of all weights."""
    badam_start_block: int | None = later(None, _BADAM)
    """Number of the first block."""
    badam_switch_mode: Literal["ascending", "descending", "random", "fixed"] | None = later("ascending", _BADAM)
    """Order of the blocks."""
    badam_switch_interval: int | None = later(50, _BADAM)
    """Steps per block; -1 never switches."""
    badam_update_ratio: float = later(0.05, _BADAM)
    """Share of the weights that is updated in ratio mode."""
    badam_mask_mode: Literal["adjacent", "scatter"] = later("adjacent", _BADAM)
    """Whether that share is one piece or scattered."""
    badam_verbose: int = later(0, _BADAM)
    """0 silent, 1 names blocks, 2 names weights."""
    use_adam_mini: bool = later(False, "Adam-mini")
    """Adam with one second moment per block."""
    use_muon: bool = later(False, "Muon")
    """Orthogonalised momentum for matrices, AdamW for the rest."""
