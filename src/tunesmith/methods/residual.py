"""Adapters that begin with a part of the base, which the base loses (PiSSA, OLoRA, CorDA, LoRA-GA): what is saved of
them fits the base as it was.

    W' + s B A = W + s (B A - B0 A0) = W + s [B, -B0] [A; A0]        W' = W - s B0 A0

So the file holds a plain LoRA of twice the rank, which any reader of adapters takes, and a run that goes on finds A and
B in its first halves, bit for bit.
"""

from __future__ import annotations

import json
import math
from functools import wraps
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.files import write_json

__all__ = ["save_as_plain"]

_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"
_NO_LONGER = ("corda_config", "lora_ga_config", "eva_config")


def save_as_plain(model: Any) -> None:
    """Have `model` (PEFT) save what it learns as a plain LoRA of the base as it was before, and load that again."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import load_file, save_file

    now = get_peft_model_state_dict(model)  # by the names that they have in files
    initial = {name: value.detach().to("cpu", copy=True) for name, value in now.items() if _is_matrix(name)}
    save, load = model.save_pretrained, model.load_adapter

    @wraps(save)
    def save_pretrained(self: Any, save_directory: Any, *arguments: Any, **more: Any) -> None:
        save(save_directory, *arguments, **more)
        folder = Path(save_directory)
        found = load_file(folder / _WEIGHTS)
        joined = {name: _joined(name, value, initial.get(name)) for name, value in found.items()}
        save_file(joined, folder / _WEIGHTS, metadata={"format": "pt"})
        settings = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        write_json(folder / _CONFIG, _doubled(settings))

    @wraps(load)
    def load_adapter(self: Any, model_id: Any, adapter_name: str, *arguments: Any, **more: Any) -> Any:
        settings = self.peft_config.get(adapter_name)
        told = _settings_in(model_id)
        if settings is None or told is None or told.get("r") != 2 * settings.r:
            return load(model_id, adapter_name, *arguments, **more)
        from peft import set_peft_model_state_dict

        found = load_file(Path(model_id) / _WEIGHTS)
        halves = {name: _first_half(name, value) if _is_matrix(name) else value for name, value in found.items()}
        return set_peft_model_state_dict(self, halves, adapter_name=adapter_name)

    model.base_was_changed = True
    model.save_pretrained, model.load_adapter = MethodType(save_pretrained, model), MethodType(load_adapter, model)


def _is_matrix(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name


def _settings_in(folder: Any) -> dict[str, Any] | None:
    path = Path(folder) / _CONFIG
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return found


def _joined(name: str, value: Tensor, initial: Tensor | None) -> Tensor:
    """[A; A0] or [B, -B0]; anything else as it is."""
    if initial is None:
        return value
    initial = initial.to(value.dtype)
    joined = torch.cat([value, initial]) if ".lora_A." in name else torch.cat([value, -initial], dim=1)
    return joined.contiguous()


def _first_half(name: str, value: Tensor) -> Tensor:
    if ".lora_A." in name:
        return value[: len(value) // 2].contiguous()
    return value[:, : value.shape[1] // 2].contiguous()


def _doubled(settings: dict[str, Any]) -> dict[str, Any]:
    """Twice the rank, and the alpha that keeps the scale: s = alpha / r, or alpha / sqrt(r)."""
    grows = math.sqrt(2) if settings.get("use_rslora") else 2
    changed = {
        "r": 2 * settings["r"],
        "lora_alpha": settings["lora_alpha"] * grows,
        "rank_pattern": {name: 2 * rank for name, rank in (settings.get("rank_pattern") or {}).items()},
        "alpha_pattern": {name: grows * alpha for name, alpha in (settings.get("alpha_pattern") or {}).items()},
        "init_lora_weights": True,
    }
    return {**settings, **changed, **{name: None for name in _NO_LONGER if name in settings}}
