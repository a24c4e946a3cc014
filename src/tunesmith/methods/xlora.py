"""X-LoRA (https://arxiv.org/abs/2402.07148): a classifier looks at the last hidden states of the base and says, for
each token, how much of each of several trained LoRA adapters is added. The classifier trains; the adapters do with
`use_trainable_adapters`.

PEFT has the layers. It knows its experts by numbers, whatever they are called here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.models.locate import check_folder
from tunesmith.models.quirks.xlora import CLASSIFIER, experts_in, save_whole

if TYPE_CHECKING:
    from peft import PeftConfig

__all__ = ["check_experts", "make_ready", "settings_beside", "settings_for"]

_KEY = "peft_settings: adapters"


def check_experts(settings: Mapping[str, Any]) -> None:
    """Raises MissingInputError for an adapter that is not there, UsageError for one that is no plain LoRA."""
    for name, path in settings.get("adapters", {}).items():
        folder = check_folder(str(path), _KEY, must_hold="adapter_config.json")
        if folder is None:
            what, fix = "an adapter to be mixed is no folder", "download it, and name the folder"
            raise UsageError(Problem("E-METHOD-020", what, _KEY, f"{name}: {path}", fix))
        told = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = "DoRA" if told.get("use_dora") else str(told.get("peft_type"))
        if kind != "LORA":
            what, fix = "X-LoRA mixes adapters of plain LoRA", "train it with finetuning_type: lora, without use_dora"
            raise UsageError(Problem("E-METHOD-020", what, _KEY, f"{name} is of the kind {kind}", fix))


def settings_for(model: Any, own: Mapping[str, Any]) -> dict[str, Any]:
    """What PEFT's config is told beside the user's settings `own`, and in the place of their `adapters`."""
    model.config.use_cache = False  # PEFT refuses a model that would keep keys and values
    folders = {str(number): str(Path(path).absolute()) for number, path in enumerate(own["adapters"].values())}
    for number, name in enumerate(own["adapters"]):
        get_logger().info("xlora: expert %d is %s", number, name)
    return {"hidden_size": model.config.get_text_config().hidden_size, "adapters": folders}


def make_ready(model: Any, keep_dtype: bool) -> None:
    """`model` is PEFT's, with X-LoRA: its classifier trains in float32, and what is saved is whole."""
    if not keep_dtype:
        getattr(model.base_model, CLASSIFIER).float()
    save_whole(model)


def settings_beside(model: Any, folder: Path | None, name: str) -> PeftConfig:
    """PEFT's config of a saved X-LoRA, whose experts lie beside it, or where they were. Raises MissingInputError where
    there is no classifier, which PEFT would take for a random one."""
    from peft import XLoraConfig
    from safetensors import safe_open

    where = f"adapter_name_or_path: {name}"
    weights = folder / "adapter_model.safetensors" if folder else None
    if folder is None or weights is None or not weights.is_file():
        what, fix = "an X-LoRA is loaded from a folder with safetensors", "download it, and name the folder"
        raise MissingInputError(Problem("E-METHOD-021", what, where, fix=fix))
    with safe_open(weights, framework="pt") as file:
        if not any(CLASSIFIER in held for held in file.keys()):  # noqa: SIM118 - not a mapping
            what, fix = "the adapter holds no classifier: PEFT leaves it out of what it saves", "train it here"
            raise MissingInputError(Problem("E-METHOD-021", what, where, fix=fix))
    settings = XLoraConfig.from_pretrained(str(folder))
    settings.adapters = experts_in(folder) or settings.adapters
    model.config.use_cache = False
    return settings
