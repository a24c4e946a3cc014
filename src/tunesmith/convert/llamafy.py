"""Checkpoints of Baichuan 2 and Qwen (1) in the layout of LLaMA: the same numbers under other names.

Both are LLaMA in what they compute, and need code of their own only because their files name and join the weights
differently. Code of theirs is not run; what their configs say that LLaMA cannot do is refused.

    Baichuan 2   W_pack [3 H, H] is q, k and v; the output layer divides its rows by their norm at each call
    Qwen         c_attn is q, k and v with biases; w2 is the gate, w1 what it multiplies; c_proj is the way out
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.convert.source import refuse_quantized, settings_in
from tunesmith.convert.target import copy_small_files, new_folder, write_shards
from tunesmith.convert.weights import Entry, Weights, open_weights
from tunesmith.core.errors import DataError, Problem, UsageError
from tunesmith.core.log import get_logger

__all__ = ["LAYOUTS", "Layout", "llamafy"]

Progress = Callable[[int, int | None], None]
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """A weight of the new layout: its name, which third of the rows of the old one it is (None: all of them), and
    whether rows are divided by their norm."""

    name: str
    third: int | None = None
    normalised: bool = False

    def of(self, tensor: Tensor) -> Tensor:
        if self.third is not None:
            tensor = tensor.chunk(3, dim=0)[self.third]
        if self.normalised:  # in float32, rounded once
            tensor = torch.nn.functional.normalize(tensor.float(), dim=-1).to(tensor.dtype)
        return tensor

    def shape_of(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.third is None else (shape[0] // 3, *shape[1:])


@dataclass(frozen=True, slots=True)
class Layout:
    """`model_type` of the checkpoints; what a weight becomes by its name (None: it is dropped, as LLaMA computes it;
    KeyError: unknown); their config as LLaMA's; what in a config LLaMA cannot do, as (key, why)."""

    model_type: str
    parts: Callable[[str], list[Part] | None]
    settings: Callable[[Settings, Weights], dict[str, Any]]
    refused: Callable[[Settings], Iterator[tuple[str, str]]]


_FREQUENCIES = re.compile(r".*\.rotary_emb\.inv_freq$")
_THIRDS = ("q_proj", "k_proj", "v_proj")


def _split(prefix: str, kind: str) -> list[Part]:
    return [Part(f"{prefix}.self_attn.{name}.{kind}", third) for third, name in enumerate(_THIRDS)]


def _baichuan2_parts(name: str) -> list[Part] | None:
    if _FREQUENCIES.match(name):
        return None
    if name == "lm_head.weight":
        return [Part(name, normalised=True)]
    if match := re.fullmatch(r"(model\.layers\.\d+)\.self_attn\.W_pack\.weight", name):
        return _split(match[1], "weight")
    return [Part(name)]  # the rest has LLaMA's names; what has not is found by comparing with its weights


def _baichuan2_settings(settings: Settings, weights: Weights) -> dict[str, Any]:
    return {
        **_common(settings),
        "max_position_embeddings": settings["max_position_embeddings"],
        "rms_norm_eps": settings.get("rms_norm_eps", 1e-6),
        "hidden_act": settings.get("hidden_act", "silu"),
        "intermediate_size": settings["intermediate_size"],
    }


def _baichuan2_refused(settings: Settings) -> Iterator[tuple[str, str]]:
    if "max_position_embeddings" not in settings:
        yield "max_position_embeddings", "it is missing: a model of this size (13B) has ALiBi, and LLaMA has not"
    if settings.get("vocab_size") == 64000:
        yield "vocab_size", "64000 is that of Baichuan 1, whose output layer is not normalised"
    if settings.get("tie_word_embeddings"):
        yield "tie_word_embeddings", "a normalised output layer cannot be the embeddings"


_QWEN_LAYER = re.compile(r"transformer\.h\.(\d+)\.(.+)\.(weight|bias)")
_QWEN_NAMES = {
    "ln_1": "input_layernorm",
    "ln_2": "post_attention_layernorm",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.w1": "mlp.up_proj",
    "mlp.w2": "mlp.gate_proj",
    "mlp.c_proj": "mlp.down_proj",
}
_QWEN_OUTSIDE = {
    "transformer.wte.weight": "model.embed_tokens.weight",
    "transformer.ln_f.weight": "model.norm.weight",
    "lm_head.weight": "lm_head.weight",
}


def _qwen_parts(name: str) -> list[Part] | None:
    if _FREQUENCIES.match(name):
        return None
    if name in _QWEN_OUTSIDE:
        return [Part(_QWEN_OUTSIDE[name])]
    match = _QWEN_LAYER.fullmatch(name)
    if match is None:
        raise KeyError(name)
    prefix, inner, kind = f"model.layers.{match[1]}", match[2], match[3]
    if inner == "attn.c_attn":
        return _split(prefix, kind)
    return [Part(f"{prefix}.{_QWEN_NAMES[inner]}.{kind}")]


def _qwen_settings(settings: Settings, weights: Weights) -> dict[str, Any]:
    # Beyond the length of its training Qwen scales positions and logits; LLaMA does as before.
    changes = settings.get("use_dynamic_ntk") or settings.get("use_logn_attn")
    length = settings.get("seq_length") if changes else None
    if length:
        get_logger().info("beyond %s tokens Qwen computes otherwise than LLaMA: that is the context now", f"{length:,}")
    return {
        **_common(settings),
        "max_position_embeddings": length or settings.get("max_position_embeddings", 8192),
        "rms_norm_eps": settings["layer_norm_epsilon"],
        "rope_theta": float(settings.get("rotary_emb_base", 10000)),
        "hidden_act": "silu",
        "intermediate_size": settings["intermediate_size"] // 2,  # Qwen's counts both branches
        "head_dim": settings.get("kv_channels", settings["hidden_size"] // settings["num_attention_heads"]),
        "attention_bias": True,
        "mlp_bias": any(name.endswith(".mlp.w1.bias") for name in weights.entries),
    }


def _qwen_refused(settings: Settings) -> Iterator[tuple[str, str]]:
    if settings.get("rotary_pct", 1.0) != 1.0:
        yield "rotary_pct", "LLaMA rotates the whole head"
    if not settings.get("scale_attn_weights", True):
        yield "scale_attn_weights", "LLaMA divides scores by the root of the size of a head"
    if "visual" in settings:
        yield "visual", "LLaMA sees no pictures"


def _common(settings: Settings) -> dict[str, Any]:
    heads = settings["num_attention_heads"]
    kept = ("bos_token_id", "eos_token_id", "pad_token_id", "initializer_range")
    return {
        "vocab_size": settings["vocab_size"],
        "hidden_size": settings["hidden_size"],
        "num_hidden_layers": settings["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "tie_word_embeddings": bool(settings.get("tie_word_embeddings", False)),
        **{key: settings[key] for key in kept if settings.get(key) is not None},
    }


LAYOUTS: dict[str, Layout] = {
    "llamafy-baichuan2": Layout("baichuan", _baichuan2_parts, _baichuan2_settings, _baichuan2_refused),
    "llamafy-qwen": Layout("qwen", _qwen_parts, _qwen_settings, _qwen_refused),
}


def llamafy(kind: str, source: Path, target: Path, *, max_shard_size: int, progress: Progress) -> dict[str, Any]:
    """Write the LLaMA that computes what a checkpoint in another layout does; returns counts.

    Every weight is accounted for before the first is written: unknown ones, missing ones and other shapes than
    LLaMA's are a DataError with all of them. Types of numbers stay as they are.
    """
    from transformers import LlamaConfig

    layout = LAYOUTS[kind]
    settings = settings_in(source, layout.model_type)
    refuse_quantized(source, settings)
    if reasons := list(layout.refused(settings)):
        where, fix = f"{source / 'config.json'}", "use the model with its own code"
        what = "the model does what LLaMA cannot"
        raise UsageError([Problem("E-CONVERT-015", what, where, f"{key}: {why}", fix) for key, why in reasons])
    weights = open_weights(source)
    try:
        config = LlamaConfig(**layout.settings(settings, weights))
    except KeyError as error:
        what, fix = "config.json lacks a key that the layout needs", "use the config.json that belongs to the weights"
        raise DataError(Problem("E-CONVERT-008", what, str(source / "config.json"), str(error), fix)) from error
    config.architectures = ["LlamaForCausalLM"]
    plan, dropped = _plan(layout, weights, source)
    zeros = _check(plan, weights, config, source)
    _check_frequencies(weights, dropped, config)
    config.dtype = next(iter(weights.entries.values())).dtype
    with new_folder(target, weights.size) as folder:
        size = write_shards(folder, _converted(weights, plan, zeros, progress), max_shard_size)
        config.save_pretrained(folder)
        copied = copy_small_files(source, folder)
    named = {part.name for parts in plan.values() for part in parts}
    return {"weights": len(named | set(zeros)), "bytes": size, "copied": copied}


def _plan(layout: Layout, weights: Weights, source: Path) -> tuple[dict[str, list[Part]], list[str]]:
    """What each weight becomes, and which are dropped."""
    plan: dict[str, list[Part]] = {}
    dropped, unknown = [], []
    for name in weights.entries:
        try:
            parts = layout.parts(name)
        except KeyError:
            unknown.append(name)
            continue
        if parts is None:
            dropped.append(name)
        else:
            plan[name] = parts
    if unknown:
        fix = f"this layout is of {layout.model_type}; name its checkpoint as it was published"
        what = "this layout has no such weight"
        raise DataError([Problem("E-CONVERT-008", what, str(source), name, fix) for name in unknown])
    return plan, dropped


def _check(
    plan: dict[str, list[Part]], weights: Weights, config: Any, source: Path
) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Compare with the weights that LLaMA has; returns the biases of outputs that have none: zeros of this shape."""
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        wanted = {name: tuple(one.shape) for name, one in LlamaForCausalLM(config).state_dict().items()}
    found: dict[str, tuple[tuple[int, ...], Entry]] = {}
    problems = []
    counts = Counter(part.name for parts in plan.values() for part in parts)
    for old, parts in plan.items():
        entry = weights.entries[old]
        for part in parts:
            found[part.name] = part.shape_of(entry.shape), entry
            if part.third is not None and entry.shape[0] % 3:
                problems.append((old, f"{entry.shape[0]} rows are not three equal parts"))
            elif part.name not in wanted:
                problems.append((old, "LLaMA has no such weight"))
            elif found[part.name][0] != wanted[part.name]:
                problems.append((old, f"shape {found[part.name][0]}, config.json asks for {wanted[part.name]}"))
            elif counts[part.name] > 1:
                problems.append((old, f"two weights become {part.name}"))
    lacking = set(wanted) - set(found)
    zeros = {name: (wanted[name], _type_of(found, name)) for name in lacking if name.endswith(".o_proj.bias")}
    if config.tie_word_embeddings:
        lacking.discard("lm_head.weight")
        if "lm_head.weight" in found and not problems:
            plan.pop(_checked_tie(plan, weights, source))
    problems += [(name, "no weight of the checkpoint becomes this one") for name in sorted(lacking - set(zeros))]
    if problems:
        what, fix = "the weights do not fit config.json", "use config.json and weights of one and the same model"
        raise DataError([Problem("E-CONVERT-008", what, str(source), f"{name}: {why}", fix) for name, why in problems])
    return zeros


def _type_of(found: Mapping[str, tuple[tuple[int, ...], Entry]], bias: str) -> torch.dtype:
    """The type of the weight that a bias belongs to."""
    weight = found.get(bias.removesuffix("bias") + "weight")
    return torch.float32 if weight is None else weight[1].dtype


def _checked_tie(plan: Mapping[str, list[Part]], weights: Weights, source: Path) -> str:
    """A checkpoint that says that two weights are one has to hold them so; returns the name of the second."""
    names = {part.name: old for old, parts in plan.items() for part in parts}
    embeddings, head = names.get("model.embed_tokens.weight"), names["lm_head.weight"]
    if embeddings is not None and not torch.equal(weights.read(embeddings), weights.read(head)):
        what = "config.json ties the output layer to the embeddings, and the checkpoint holds two different ones"
        fix = "write tie_word_embeddings: false in its config.json if both are meant"
        raise DataError(Problem("E-CONVERT-008", what, str(source), f"{embeddings}, {head}", fix))
    return head


def _check_frequencies(weights: Weights, names: list[str], config: Any) -> None:
    """Frequencies that a checkpoint holds are those that LLaMA computes, or the model would answer otherwise."""
    theta = float(config.rope_parameters["rope_theta"])
    for name in names:
        kept = weights.read(name).float()
        computed = theta ** -(torch.arange(0, 2 * len(kept), 2, dtype=torch.float32) / (2 * len(kept)))
        if not torch.allclose(kept, computed, rtol=1e-2):  # they may be kept in half precision
            what = "the checkpoint holds other frequencies of positions than its config.json says"
            fix = "use config.json and weights of one and the same model"
            raise DataError(Problem("E-CONVERT-008", what, str(weights.entries[name].shard), name, fix))


def _converted(
    weights: Weights,
    plan: Mapping[str, list[Part]],
    zeros: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    progress: Progress,
) -> Iterator[tuple[str, Tensor]]:
    total = len(weights.entries)
    for number, (name, tensor) in enumerate(weights, 1):
        for part in plan.get(name, []):
            yield part.name, part.of(tensor)
        progress(number, total)
    for name, (shape, dtype) in zeros.items():
        yield name, torch.zeros(shape, dtype=dtype)
