"""X-LoRA in PEFT 0.20 and 0.21: what is saved of it, and where its experts are found again.

The experts are adapters that PEFT calls "0", "1" and so on. What it saves lacks every weight with the name of another
adapter in its path (https://github.com/huggingface/peft/issues/3584): `layers.0` of the classifier, and of an expert
whole layers of the model. Here the file holds all that was trained, under names that PEFT loads, and the experts lie
in folders of their own beside it.
"""

from __future__ import annotations

import json
import re
from functools import wraps
from pathlib import Path
from types import MethodType
from typing import Any

__all__ = ["CLASSIFIER", "experts_in", "save_whole"]

CLASSIFIER = "internal_xlora_classifier"
_EXPERTS = "experts"
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_OF_EXPERT = re.compile(r"(.*\.lora_\w+)\.(\d+)(\.weight)?")
_INSIDE = "base_model.lora_model.model."


def save_whole(model: Any) -> None:
    """Have `model` (PEFT, with X-LoRA) save its classifier, and its experts beside it."""
    from safetensors.torch import save_file

    save = model.save_pretrained

    @wraps(save)
    def save_pretrained(self: Any, save_directory: Any, *arguments: Any, **more: Any) -> None:
        state = more.get("state_dict") or self.state_dict()
        save(save_directory, *arguments, **{**more, "selected_adapters": ["default"]})
        if not more.get("is_main_process", True):
            return
        folder = Path(save_directory)
        held = {name: value for name, value in state.items() if CLASSIFIER in name}
        if self.peft_config["default"].use_trainable_adapters:
            held |= {name: value for name, value in state.items() if _OF_EXPERT.fullmatch(name)}
        save_file(_apart(held), folder / _WEIGHTS, metadata={"format": "pt"})
        for number, settings in self.peft_config.items():
            if number != "default":
                _save_expert(folder / _EXPERTS / number, number, settings, state)

    model.save_pretrained = MethodType(save_pretrained, model)


def _save_expert(folder: Path, number: str, settings: Any, state: dict[str, Any]) -> None:
    """A plain LoRA, as PEFT would have saved it alone."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, value in state.items():
        match = _OF_EXPERT.fullmatch(name)
        if match and match[2] == number:
            found[match[1].replace(_INSIDE, "base_model.model.", 1) + (match[3] or "")] = value
    save_file(_apart(found), folder / _WEIGHTS, metadata={"format": "pt"})
    settings.save_pretrained(folder)


def _apart(held: dict[str, Any]) -> dict[str, Any]:
    return {name: value.detach().contiguous() for name, value in held.items()}


def experts_in(folder: Path) -> dict[str, str] | None:
    """PEFT's number -> folder of each expert that lies beside a saved classifier; None where none do."""
    numbers = json.loads((folder / _CONFIG).read_text(encoding="utf-8")).get("adapters") or {}
    found = {number: str(folder / _EXPERTS / number) for number in numbers}
    return found if found and all((Path(path) / _CONFIG).is_file() for path in found.values()) else None
