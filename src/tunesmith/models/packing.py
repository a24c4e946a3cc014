"""In which models sequences that share a padded row do not see each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.errors import Problem, UsageError
from tunesmith.models.depth_plan import plan_depths
from tunesmith.models.family import family_of
from tunesmith.models.load import ATTENTION, language_type, settings_of

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["check_packing"]


def check_packing(config: ModelConfig) -> None:
    """UsageError where packs in padded batches are not known to keep their sequences apart: with flash-attention, which
    takes no mask of blocks, in models whose type is not among the tested ones, and in a mixture of depths, which would
    choose among the tokens of a whole row. Reads config.json only."""
    kind = language_type(config)
    if ATTENTION[config.flash_attn].startswith("flash"):
        what = "packed rows in padded batches, and an attention that is not told where their sequences end"
        fix = "flash_attn: auto, or packing: false (and no neat_packing)"
        raise UsageError(Problem("E-TRAIN-050", what, "flash_attn", config.flash_attn, fix))
    if plan_depths(config, settings_of(config)) is not None:
        what = "packed rows in padded batches, and layers that choose among the tokens of a row"
        where, fix = f"model_name_or_path: {config.model_name_or_path}", "packing: false (and no neat_packing)"
        raise UsageError(Problem("E-MODEL-023", what, where, "a mixture of depths", fix))
    if not family_of(kind).packs:
        raise UsageError(
            Problem(
                "E-MODEL-023",
                "this type of model is not known to keep packed sequences apart",
                where=f"model_name_or_path: {config.model_name_or_path}",
                got=f"model_type {kind}",
                fix="packing: false (and no neat_packing)",
            )
        )
