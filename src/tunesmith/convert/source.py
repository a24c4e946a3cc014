"""What a folder to convert says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.core.files import read_json
from tunesmith.models.depth_plan import FLAG

__all__ = ["refuse_quantized", "settings_in"]


def settings_in(folder: Path, model_type: str | None = None) -> dict[str, Any]:
    """config.json of a model folder. Raises MissingInputError where there is none, UsageError where the model is of
    another type than the conversion is for."""
    settings = read_json(folder / "config.json")
    if not isinstance(settings, dict) or not settings:
        what, fix = "the source is no folder of a model", "name a folder that holds config.json and weights"
        got = "config.json cannot be read" if (folder / "config.json").exists() else "it holds no config.json"
        raise MissingInputError(Problem("E-CONVERT-001", what, str(folder), got, fix))
    found = str(settings.get("model_type") or "")
    if settings.get(FLAG) is not None:
        what, fix = "the conversion knows no mixture of depths", "convert the model that it was made from"
        raise UsageError(Problem("E-CONVERT-007", what, str(folder / "config.json"), FLAG, fix))
    if model_type is not None and found != model_type:
        what, fix = "the conversion is for another type of model", "tunesmith convert --help lists what there is"
        got = f"model_type {found or '(none)'}, and it is for {model_type}"
        raise UsageError(Problem("E-CONVERT-007", what, str(folder / "config.json"), got, fix))
    return settings


def refuse_quantized(folder: Path, settings: Mapping[str, Any]) -> None:
    """Weights of few bits cannot be split, copied or decomposed as numbers."""
    kind = settings.get("quantization_config")
    if kind:
        what, fix = "the weights are quantized", "convert the model that they were made from, and quantize the result"
        got = kind.get("quant_method") if isinstance(kind, Mapping) else str(kind)
        raise UsageError(Problem("E-CONVERT-016", what, str(folder / "config.json"), got, fix))
