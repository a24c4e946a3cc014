"""In which models sequences that share a row do not see each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.errors import Problem, UsageError
from tunesmith.models.family import family_of
from tunesmith.models.load import language_type

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["check_packing"]


def check_packing(config: ModelConfig) -> None:
    """UsageError if the model's type is not among those that were tested to keep packed sequences apart. Reads
    config.json only."""
    kind = language_type(config)
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
