"""LoftQ (https://arxiv.org/abs/2310.08659) on a base that is quantized while it is loaded: the matrices begin with what
rounding took from the weights. With W [O, I] of the checkpoint, Q what the packed numbers stand for, rank r, and
scaling s of the adapter:

    U S V = svd(W - Q);   B = U_r sqrt(S_r / s), A = sqrt(S_r / s) V_r;   Q + s B A is as near to W as rank r can be

Layers are taken one after the other, and their weights read from the shards one by one. The base stays as it is, so
what is saved is a plain adapter of it. Turns of rounding and decomposing, which change the base, are
`tunesmith convert loftq-init`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.models.quantization.weights import dequantized

__all__ = ["SavedWeights", "begin", "low_rank"]

_WHERE = "init_lora_weights: loftq"
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_FAR = 0.9
"""Error of rounding, relative to the weight, from which on it is another weight: one bit makes 0.6."""


def low_rank(weight: Tensor, rank: int, iterations: int) -> tuple[Tensor, Tensor]:
    """(B [out, r], A [r, in]) whose product is nearest to a weight [out, in]; iterations: of the randomised algorithm
    (https://arxiv.org/abs/0909.4061), -1: exact."""
    if iterations < 0:
        left, values, right = torch.linalg.svd(weight, full_matrices=False)
        left, values, right = left[:, :rank], values[:rank], right[:rank]
    else:
        left, values, right = torch.svd_lowrank(weight, q=rank, niter=iterations)
        right = right.T
    root = values.sqrt()
    return left * root, root[:, None] * right


class SavedWeights:
    """Weights of a checkpoint in safetensors, in a folder or on the hub, read one at a time.

    `hub`: what a download needs. Raises UsageError where the checkpoint is of another kind.
    """

    def __init__(self, name: str, hub: Mapping[str, Any]) -> None:
        from safetensors import safe_open

        if index := _file(name, _INDEX, hub):
            shards: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            self._shards = {key: str(_file(name, shard, hub)) for key, shard in shards.items()}
        elif single := _file(name, _SINGLE, hub):
            with safe_open(single, framework="pt") as file:
                self._shards = dict.fromkeys(file.keys(), str(single))
        else:
            what = "loftq compares with the weights of the checkpoint, which are not in safetensors"
            raise UsageError(Problem("E-METHOD-022", what, _WHERE, name, "save the model as safetensors first"))

    def read(self, name: str) -> Tensor:
        """A weight by its name in the model; the checkpoint may have another beginning of it. Raises UsageError where
        there is none."""
        from safetensors import safe_open

        key = name if name in self._shards else self._alike(name)
        if key is None:
            what, fix = "the checkpoint has no weight of this name", "leave the layer out of lora_target"
            raise UsageError(Problem("E-METHOD-022", what, _WHERE, name, fix))
        with safe_open(self._shards[key], framework="pt") as file:
            found: Tensor = file.get_tensor(key)
        return found

    def _alike(self, name: str) -> str | None:
        """The only name that shares the longest end."""
        parts = name.split(".")
        for start in range(len(parts) - 1):
            end = ".".join(parts[start:])
            found = [key for key in self._shards if f".{key}".endswith(f".{end}")]
            if found:
                return found[0] if len(found) == 1 else None
        return None


def _file(name: str, file: str, hub: Mapping[str, Any]) -> Path | None:
    from transformers.utils import cached_file

    if Path(name).is_dir():
        path = Path(name) / file
        return path if path.is_file() else None
    try:
        return Path(cached_file(name, file, **hub))
    except OSError:
        return None


def begin(model: Any, hub: Mapping[str, Any]) -> None:
    """Fill the matrices of `model` (PEFT, with a LoRA on a quantized base). Raises UsageError where no layer is
    quantized, the rank is larger than a layer, or the weights of the checkpoint cannot be had."""
    base = model.get_base_model()
    saved = SavedWeights(str(base.config.name_or_path), hub)
    before, after, count = 0.0, 0.0, 0
    for name, layer in base.named_modules():
        if "default" not in getattr(layer, "lora_A", ()) or (stored := dequantized(layer.get_base_layer())) is None:
            continue
        old, new = _fill(layer, stored.float(), saved.read(f"{name}.weight"), name)
        before, after, count = before + old, after + new, count + 1
    if not count:
        what = "no layer that gets an adapter is quantized, so there is nothing to begin with"
        raise UsageError(Problem("E-METHOD-022", what, _WHERE, fix="another init_lora_weights, or lora_target: all"))
    text = "loftq: rounding moved the weights of %d layers by %.1f %%, with the adapter by %.1f %%"
    get_logger().info(text, count, 100 * before / count, 100 * after / count)


@torch.no_grad()
def _fill(layer: Any, stored: Tensor, weight: Tensor, name: str) -> tuple[float, float]:
    """Give one layer its matrices; returns the error relative to the weight without and with them."""
    a, b, rank = layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.r["default"]
    if rank > min(stored.shape):
        what, got = "a weight has fewer singular values than the rank asks for", f"{rank}, and {min(stored.shape)}"
        raise UsageError(Problem("E-METHOD-022", what, f"lora_rank, {name}", got, "a smaller lora_rank"))
    whole = _as_stored(weight.to(stored.device, torch.float32), stored, name)
    lost = whole - stored
    left, right = low_rank(lost, rank, -1)
    root = float(layer.scaling["default"]) ** 0.5
    b.data.copy_(left / root)
    a.data.copy_(right / root)
    size = whole.norm()
    return float(lost.norm() / size), float((lost - left @ right).norm() / size)


def _as_stored(weight: Tensor, stored: Tensor, name: str) -> Tensor:
    """The weight, or as GPT-2 keeps it its transpose. Raises UsageError where neither can be what was rounded."""
    ways = [way for way in (weight, weight.T) if way.shape == stored.shape]
    nearest = min(ways, key=lambda way: float((way - stored).norm()), default=None)
    if nearest is None or float((nearest - stored).norm()) > _FAR * float(nearest.norm()):
        what = "the weight of the checkpoint is not what this layer was rounded from"
        fix = "leave the layer out of lora_target, or tunesmith convert loftq-init"
        raise UsageError(Problem("E-METHOD-022", what, _WHERE, name, fix))
    return nearest
