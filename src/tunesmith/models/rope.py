"""Longer contexts by scaled rotary positions: config.json says the recipe, transformers computes it.

    linear   positions / factor                                       https://arxiv.org/abs/2306.15595
    dynamic  the base grows with the length, beyond the original one  (NTK-aware, by u/emozilla and u/bloc97)
    yarn     each frequency by how often it turns in the original context, and warmer attention
                                                                      https://arxiv.org/abs/2309.00071
    llama3   low frequencies / factor, high ones as they are          https://arxiv.org/abs/2407.21783, as Llama 3.1
    longrope each frequency / a number of its own, one beyond the original context and one within, and warmer attention
                                                                      https://arxiv.org/abs/2402.13753

`factor` is how many times longer than the original context the new one is. The numbers of `longrope` come from a search
for one model; a model that brings them (Phi-3) is trained and used with them, without any key.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.config.rope_factors import rope_factors
from tunesmith.core.errors import MissingInputError, Problem, UsageError
from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = [
    "OF_THE_LONGEST",
    "check_positions",
    "context_of",
    "keep_positions",
    "longest_kinds",
    "may_scale",
    "scale_positions",
    "switch_of",
]

OF_THE_LONGEST = ("dynamic", "longrope")
"""Kinds of which the frequencies follow from the longest sequence of a batch."""
AT_INFERENCE = 2.0
"""Factor without `rope_factor`, where there is no `cutoff_len` that it could follow from, as LlamaFactory has it."""
_FILE = "positions.json"
# What a recipe needs beside its factor; None: the original context.
_MORE: dict[str, dict[str, float | None]] = {
    "linear": {},
    "dynamic": {},
    "yarn": {"original_max_position_embeddings": None},
    "llama3": {"original_max_position_embeddings": None, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "longrope": {"original_max_position_embeddings": None},
}


def context_of(settings: Any) -> int | None:
    """The longest sequence that a config of transformers allows for; None where it does not tell. With `dynamic`
    positions `max_position_embeddings` is the original context, which the frequencies are computed from."""
    text = settings.get_text_config()
    context = getattr(text, "max_position_embeddings", None)
    if not context:
        return None
    rope = next((one for one in _entries(text) if one.get("rope_type") == "dynamic"), {})
    return int(context * rope.get("factor", 1.0))


def longest_kinds(settings: Any) -> list[str]:
    """Those of OF_THE_LONGEST that a config has."""
    found = {str(one.get("rope_type")) for one in _entries(settings.get_text_config())}
    return sorted(found.intersection(OF_THE_LONGEST))


def switch_of(settings: Any) -> int | None:
    """With `longrope`, how long a sequence may be for its positions to be those of short ones; None without it."""
    found = [one for one in _entries(settings.get_text_config()) if one.get("rope_type") == "longrope"]
    return min((int(one["original_max_position_embeddings"]) for one in found), default=None)


def may_scale(config: ModelConfig) -> bool:
    """Whether `scale_positions` would have anything to do."""
    return config.rope_scaling is not None or _place(config) is not None


def scale_positions(settings: Any, config: ModelConfig, longest: int | None) -> bool:
    """Change a config of transformers by what stands beside the last adapter, then by `rope_scaling`; True if anything
    was changed. `longest`: tokens of the longest row of a training; None: the model is used.

    Raises UsageError (E-MODEL-019) for a model without rotary positions, or with those of another recipe.
    """
    text = settings.get_text_config()
    taken = _take_positions(text, _place(config))
    kind = config.rope_scaling
    if kind is None:
        return taken
    where = f"rope_scaling: {kind}"
    entries = list(_scalable(text))
    if not entries or context_of(text) is None:
        fix = "leave the key out; a type with rotary positions, like llama or qwen3, can be scaled"
        what = f"a model of the type {text.model_type} has no rotary positions that a key could scale"
        raise UsageError(Problem("E-MODEL-019", what, where, fix=fix))
    known = {str(one.get("rope_type") or "default") for one in entries} - {"default"}
    if other := known - {kind}:
        what = "the model's positions are scaled already, in another way"
        fix = f"rope_scaling: {min(other)}" if min(other) in _MORE else "leave the key out"
        raise UsageError(Problem("E-MODEL-019", what, where, ", ".join(sorted(other)), fix))
    factor = _factor(text, entries[0], config, longest, scaled=bool(known))
    if factor is None:
        return taken
    _write(text, entries, kind, factor, _searched(text, entries, config) if kind == "longrope" else {})
    _check_settings(text, where)
    get_logger().info("positions: %s by %g, a context of %s tokens", kind, factor, f"{context_of(text):,}")
    return True


def _factor(
    text: Any, entry: dict[str, Any], config: ModelConfig, longest: int | None, *, scaled: bool
) -> float | None:
    """Times the original context; None: nothing is to be changed, and why is said."""
    context, now = context_of(text), _times(text, entry)
    assert context is not None, "looked at by the caller"
    if config.rope_factor is not None:
        if config.rope_factor < now:
            what, fix = "the model's positions are scaled by more than that already", f"rope_factor: {now:g}, or more"
            raise UsageError(Problem("E-MODEL-019", what, "rope_factor", f"{config.rope_factor:g}", fix))
        return config.rope_factor
    if scaled and config.rope_scaling == "longrope" and (longest is None or longest <= context):
        return now  # with the factors of the config in place of the model's
    if longest is None:
        if scaled:
            get_logger().info("rope_scaling: the model has it already, by %g", now)
            return None
        return AT_INFERENCE
    if longest <= context:
        text = (
            "rope_scaling is without effect: cutoff_len %s fits into the model's context of %s (rope_factor: 2 scales)"
        )
        get_logger().warning(text, f"{longest:,}", f"{context:,}")
        return None
    return now * math.ceil(longest / context)


def _original(text: Any, entry: dict[str, Any]) -> int:
    """The context that the model was made for."""
    context = context_of(text)
    assert context is not None, "looked at by the caller"
    if entry.get("rope_type") in (None, "default"):
        return context
    told = entry.get("original_max_position_embeddings")
    return int(told or context / float(entry.get("factor") or 1.0))


def _times(text: Any, entry: dict[str, Any]) -> float:
    """By how much positions are scaled already. Phi-3 tells it by its two contexts alone."""
    return float(entry.get("factor") or context_of(text) / _original(text, entry))  # type: ignore[operator]


def _searched(text: Any, entries: list[dict[str, Any]], config: ModelConfig) -> dict[str, Any]:
    """What the config says of each frequency. Raises UsageError (E-MODEL-019) where the model has another number."""
    factors = rope_factors(config)
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    for one in entries:
        wanted = int(size * one.get("partial_rotary_factor", 1.0)) // 2
        if len(factors.long) != wanted:
            what = f"the model has {wanted} frequencies, half of the rotary dimensions of a head"
            got, fix = f"{len(factors.long)} factors", f"short_factor and long_factor of {wanted} numbers each"
            raise UsageError(Problem("E-MODEL-019", what, "rope_factors", got, fix))
    found: dict[str, Any] = {"short_factor": list(factors.short), "long_factor": list(factors.long)}
    return found if factors.attention is None else found | {"attention_factor": factors.attention}


def _write(text: Any, entries: list[dict[str, Any]], kind: str, factor: float, searched: dict[str, Any]) -> None:
    original = _original(text, entries[0])
    for one in entries:
        more = {key: original if value is None else one.get(key, value) for key, value in _MORE[kind].items()}
        one.pop("attention_factor", None)  # it follows from the factor, unless it is given
        one.update(rope_type=kind, factor=factor, **more, **searched)
    if hasattr(text, "original_max_position_embeddings"):  # Phi-3: it wins over that of the recipe
        text.original_max_position_embeddings = original
    text.max_position_embeddings = original if kind == "dynamic" else int(original * factor)


def _check_settings(text: Any, where: str) -> None:
    """Raises UsageError (E-MODEL-019) where transformers would not read back what has been written."""
    try:
        text.validate_rope()
    except (KeyError, TypeError, ValueError) as error:
        what = f"a model of the type {text.model_type} does not take this recipe"
        fix = "leave rope_scaling out, or take another of linear, dynamic, yarn, llama3, longrope"
        raise UsageError(Problem("E-MODEL-019", what, where, str(error).splitlines()[0], fix)) from error


def _entries(text: Any) -> Iterator[dict[str, Any]]:
    """The rotary settings of a text config: one mapping, or one for each kind of layer."""
    rope = getattr(text, "rope_parameters", None) or {}
    nested = [one for one in rope.values() if isinstance(one, dict)]
    yield from nested or ([rope] if rope else [])


def _scalable(text: Any) -> Iterator[dict[str, Any]]:
    """Those of layers that see the whole context: one with a window needs no longer positions."""
    rope = getattr(text, "rope_parameters", None) or {}
    if any(isinstance(one, dict) for one in rope.values()):
        yield from (one for name, one in rope.items() if name == "full_attention" and isinstance(one, dict))
    elif rope:
        yield rope


def check_positions(model: Any, config: ModelConfig) -> None:
    """Raises UsageError (E-MODEL-019) where the loaded model does not compute what its config says."""
    kinds = {one.get("rope_type") for one in _scalable(model.config.get_text_config())} - {None, "default"}
    found: set[Any] = set()
    for module in model.modules():
        kind = getattr(module, "rope_type", None)
        found |= set(kind.values()) if isinstance(kind, dict) else {kind}
    if missing := kinds - found:
        what = f"{type(model).__name__} computes its positions by itself, and does not scale them"
        got, fix = ", ".join(sorted(map(str, missing))), "leave rope_scaling out"
        raise UsageError(Problem("E-MODEL-019", what, f"rope_scaling: {config.rope_scaling}", got, fix))


# ---- beside an adapter, which has no config.json ----


def keep_positions(model: Any, folder: str | Path) -> None:
    """Write the rotary settings beside an adapter, if the run scaled them."""
    if getattr(model, "scaled_positions", False):
        text = model.config.get_text_config()
        kept = {"rope_parameters": text.rope_parameters, "max_position_embeddings": text.max_position_embeddings}
        (Path(folder) / _FILE).write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _place(config: ModelConfig) -> Path | None:
    """The file beside the last adapter, if there is one."""
    folders = (Path(name).expanduser() / (config.adapter_folder or "") for name in config.adapter_name_or_path[-1:])
    return next((folder / _FILE for folder in folders if (folder / _FILE).is_file()), None)


def _take_positions(text: Any, place: Path | None) -> bool:
    if place is None:
        return False
    try:
        kept = json.loads(place.read_text(encoding="utf-8"))
        text.rope_parameters, text.max_position_embeddings = kept["rope_parameters"], kept["max_position_embeddings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        what, fix = "the positions beside the adapter cannot be read", "get the adapter again"
        raise MissingInputError(Problem("E-MODEL-019", what, str(place), type(error).__name__, fix)) from error
    get_logger().info("positions: as the adapter was trained, a context of %s tokens", f"{context_of(text):,}")
    return True
