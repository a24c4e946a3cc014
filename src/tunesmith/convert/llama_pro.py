"""Block expansion, as LLaMA Pro has it (https://arxiv.org/abs/2401.02415): new layers that at first change nothing.

After every `num_layers / num_expand` layers stands a copy of the last of them, whose ways out into the residual stream
are zero: it passes on what it gets, so the larger model answers as the model did. Training then changes the copies only
(`use_llama_pro`), and what the model knew stays in the others.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.config.model import ModelConfig
from tunesmith.convert.source import refuse_quantized, settings_in
from tunesmith.convert.target import copy_small_files, new_folder, write_shards
from tunesmith.convert.weights import Weights, open_weights
from tunesmith.core.errors import DataError, OutputError, Problem, UsageError
from tunesmith.models.families import BLOCK_OUTPUTS
from tunesmith.models.family import family_of

__all__ = ["expand", "expanded_layers", "origins"]

Progress = Callable[[int, int | None], None]

_PROBE_TOKENS = 64
# Of the largest logit. Adding zero changes no bit; kernels may choose another order for another model.
_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
# Keys of a config that say something of each layer, beside those with "layer" in their name.
_PER_LAYER = ("block_types",)
# Keys that are numbers of layers from the beginning on, and lists of numbers of layers.
_FIRST_LAYERS = ("first_k_dense_replace", "max_window_layers")
_LAYER_NUMBERS = ("mlp_only_layers",)
_NUMBERED = re.compile(r"(.*?)\.(\d+)\.(.+)")


def origins(num_layers: int, num_expand: int) -> list[int]:
    """For each layer of the larger model that of the smaller one whose weights it has. `num_expand` divides it."""
    each = num_layers // num_expand
    found = []
    for layer in range(num_layers):
        found += [layer, layer] if (layer + 1) % each == 0 else [layer]
    return found


def expanded_layers(num_layers: int, num_expand: int) -> list[int]:
    """The numbers of the new layers in the larger model, from 0."""
    origin = origins(num_layers, num_expand)
    return [layer for layer in range(1, len(origin)) if origin[layer] == origin[layer - 1]]


def expand(
    source: Path, target: Path, num_expand: int, *, max_shard_size: int, check: bool, progress: Progress
) -> dict[str, Any]:
    """Write the model with `num_expand` layers more; returns which they are, and how far logits moved (`check`).

    config.json of the target names them: `llama_pro: {expanded_layers: [...]}`. Raises UsageError where the type of
    model is not known to allow it or the layers are no multiple of `num_expand`.
    """
    settings = settings_in(source)
    refuse_quantized(source, settings)
    config = _config(source, settings)
    num_layers = int(config.num_hidden_layers)
    if num_expand < 1 or num_layers % num_expand:
        divisors = [number for number in range(1, num_layers + 1) if num_layers % number == 0]
        what = "the new layers have to lie evenly between the others"
        got = f"num-expand {num_expand}, and the model has {num_layers} layers"
        fix = f"--num-expand with a number that divides them: {', '.join(map(str, divisors))}"
        raise UsageError(Problem("E-CONVERT-012", what, str(source / "config.json"), got, fix))
    weights = open_weights(source)
    origin, new = origins(num_layers, num_expand), expanded_layers(num_layers, num_expand)
    stack = _stack(weights, num_layers)
    larger = _larger_config(config, origin, new)
    with new_folder(target, weights.size * len(origin) // num_layers) as folder:
        size = write_shards(folder, _expanded(weights, stack, origin, new, progress), max_shard_size)
        larger.save_pretrained(folder)
        copied = copy_small_files(source, folder)
        found = {"num_hidden_layers": len(origin), "expanded_layers": new, "bytes": size, "copied": copied}
        if check:
            found["logits_moved"] = _compare(source, folder)
    return found


def _config(source: Path, settings: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    model_type = str(settings.get("model_type"))
    if not family_of(model_type).expands:
        what = "no conversion with new layers is known for this type of model"
        fix = "use a model of LLaMA's kind, such as llama, mistral, qwen2 or qwen3"
        raise UsageError(Problem("E-CONVERT-012", what, str(source / "config.json"), f"model_type {model_type}", fix))
    return AutoConfig.from_pretrained(source)


def _stack(weights: Weights, num_layers: int) -> str:
    """What stands before the number of a layer in the names of weights, such as `model.layers`."""
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in weights.entries:
        if match := _NUMBERED.fullmatch(name):
            numbers[match[1]].add(int(match[2]))
    stacks = [prefix for prefix, found in numbers.items() if found >= set(range(num_layers))]
    if len(stacks) != 1:
        what = f"the weights do not show {num_layers} layers, as config.json says"
        got = ", ".join(f"{prefix}: {len(found)}" for prefix, found in numbers.items()) or "no numbered layers"
        fix = "use config.json and weights of one and the same model"
        raise DataError(Problem("E-CONVERT-008", what, str(weights.folder), got, fix))
    return stacks[0]


def _larger_config(config: Any, origin: list[int], new: list[int]) -> Any:
    """The config with all that it says of layers said of the new ones too."""
    values = config.to_dict()
    num_layers = int(config.num_hidden_layers)
    places = {layer: [place for place, old in enumerate(origin) if old == layer] for layer in range(num_layers)}
    for key, value in values.items():
        if isinstance(value, list) and len(value) == num_layers and ("layer" in key or key in _PER_LAYER):
            if key not in _LAYER_NUMBERS:
                values[key] = [value[layer] for layer in origin]
        elif key in _FIRST_LAYERS and isinstance(value, int):
            values[key] = sum(layer < value for layer in origin) if value <= num_layers else value
    for key in _LAYER_NUMBERS:
        if values.get(key):
            values[key] = [place for layer in values[key] for place in places[layer]]
    values[config.attribute_map.get("num_hidden_layers", "num_hidden_layers")] = len(origin)
    values["llama_pro"] = {"expanded_layers": new}
    return type(config).from_dict(values)


def _expanded(
    weights: Weights, stack: str, origin: list[int], new: list[int], progress: Progress
) -> Iterator[tuple[str, Tensor]]:
    """Each weight under its new number, and after those of a copied layer once more, as zeros where they lead out."""
    added, total = set(new), len(weights.entries)
    for number, (name, tensor) in enumerate(weights, 1):
        progress(number, total)
        match = _NUMBERED.fullmatch(name)
        if match is None or match[1] != stack:
            yield name, tensor
            continue
        layer, rest = int(match[2]), match[3]
        if layer not in origin:  # behind the layers of the language model, such as a head for several tokens
            yield f"{stack}.{layer + len(new)}.{rest}", tensor
            continue
        leads_out = not BLOCK_OUTPUTS.isdisjoint(rest.split("."))
        for place in (place for place, old in enumerate(origin) if old == layer):
            copy = torch.zeros_like(tensor) if place in added and leads_out else tensor.clone()
            yield f"{stack}.{place}.{rest}", copy


def _compare(source: Path, folder: Path) -> float:
    """Largest difference of logits of both models on a probe, relative to the largest; raises where they differ."""
    dtype = getattr(_loaded_config(folder), "dtype", None) or torch.float32
    before, after = _logits(source, dtype), _logits(folder, dtype)
    difference = float((before - after).abs().max() / before.abs().max())
    if not difference <= _TOLERANCE[dtype]:
        what = "the larger model does not answer as the model that it was made from; nothing was written"
        got = f"relative difference of logits {difference:.1e}, rounding explains {_TOLERANCE[dtype]:.0e}"
        raise OutputError(Problem("E-CONVERT-011", what, str(source), got, "report this model"))
    return difference


def _loaded_config(folder: Path) -> Any:
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def _logits(folder: Path, dtype: torch.dtype) -> Tensor:
    """[T, V] in float32 at token ids spread over the vocabulary."""
    from tunesmith.models.load import load

    name = str(dtype).removeprefix("torch.")
    # No tokenizer is needed, and the folder may have none: anything of length one stands for it.
    model = load(ModelConfig(model_name_or_path=str(folder)), tokenizer=range(1), dtype=name).model.eval()
    ids = torch.linspace(0, model.get_input_embeddings().weight.shape[0] - 1, _PROBE_TOKENS).long()[None]
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits
