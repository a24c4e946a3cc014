"""Adapters that begin with something: the base is changed so that base and adapter together are the model as it was.

PiSSA (https://arxiv.org/abs/2404.02948): the adapter takes the largest singular values of each weight, the base keeps
the rest. LoftQ (https://arxiv.org/abs/2310.08659): the base is what 4 bits can hold, the adapter takes most of the
error, found in turns. With W [out, in], rank r, and scaling s of the adapter:

    PiSSA    U S V = svd(W);  B = U_r sqrt(S_r / s), A = sqrt(S_r / s) V_r, base = W - s B A
    LoftQ    repeat: base = nf4(W - s B A);  U S V = svd(W - base), B and A from it as above
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.config.model import ModelConfig
from tunesmith.convert.source import refuse_quantized, settings_in
from tunesmith.convert.target import copy_small_files, new_folder
from tunesmith.convert.weights import open_weights
from tunesmith.core.errors import MachineError, Problem, UsageError
from tunesmith.core.suggest import did_you_mean
from tunesmith.methods.loftq import low_rank
from tunesmith.methods.lora import linear_names

__all__ = ["ADAPTERS", "InitialSettings", "initial_adapter", "loftq", "low_rank", "pissa"]

Progress = Callable[[int, int | None], None]
Parts = tuple[Tensor, Tensor, Tensor]

_PROBE_TOKENS = 64
_NF4_BITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialSettings:
    """rank, alpha (None: twice the rank), targets (names of modules, or "all") of the adapter. iterations: of PiSSA's
    fast SVD, -1 for the exact one; of LoftQ's turns."""

    rank: int
    alpha: int | None
    targets: tuple[str, ...]
    iterations: int


def pissa(weight: Tensor, rank: int, scaling: float, iterations: int) -> Parts:
    """(base [out, in], B [out, r], A [r, in]) in float32."""
    b, a = low_rank(weight, rank, iterations)
    return weight - b @ a, b / scaling**0.5, a / scaling**0.5


def loftq(weight: Tensor, rank: int, scaling: float, iterations: int) -> Parts:
    """(base [out, in], B [out, r], A [r, in]) in float32; the base holds values of nf4 in blocks of 64, as bitsandbytes
    makes them of a weight."""
    b, a = torch.zeros(len(weight), rank), torch.zeros(rank, weight.shape[1])
    base = weight
    for _ in range(iterations):
        base = _as_nf4(weight - b @ a)
        b, a = low_rank(weight - base, rank, -1)
    return base, b / scaling**0.5, a / scaling**0.5


def _as_nf4(weight: Tensor) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, compress_statistics=False, quant_type="nf4")
    found: Tensor = dequantize_4bit(packed, state)
    return found.float()


ADAPTERS: dict[str, tuple[str, Callable[[Tensor, int, float, int], Parts]]] = {
    "pissa-init": ("pissa_init", pissa),
    "loftq-init": ("loftq_init", loftq),
}
"""Kind -> folder of the adapter inside the target, how a weight is taken apart."""


def initial_adapter(
    kind: str, source: Path, target: Path, settings: InitialSettings, *, max_shard_size: int, progress: Progress
) -> dict[str, Any]:
    """Write the changed base to `target` and the adapter to a folder inside it; returns both places, and how far logits
    of both together are from the model's, relative to the largest.

    Weights are taken apart in float32; the base is saved in the model's own type, the adapter in float32. Raises
    UsageError for a rank or targets that do not fit the model, MachineError where bitsandbytes is missing.
    """
    refuse_quantized(source, settings_in(source))
    _check_packages(kind)
    weights = open_weights(source)
    from peft import LoraConfig, TaskType, get_peft_model

    from tunesmith.models.load import infer_dtype, load, torch_dtype

    name, divide = ADAPTERS[kind]
    saved = ModelConfig(model_name_or_path=str(source))
    dtype = torch_dtype(infer_dtype(saved, "cuda"))  # as saved, whatever this machine computes well
    loaded = load(saved, tokenizer=range(1), dtype="float32")  # no tokenizer is needed; anything of length one
    targets = _targets(loaded.model, loaded.family, settings)
    before = _logits(loaded.model)
    lora = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=settings.rank,
        lora_alpha=settings.alpha or 2 * settings.rank,
        target_modules=targets,
        fan_in_fan_out=_lie_turned(loaded.model, targets),
    )
    model = get_peft_model(loaded.model, lora)
    with new_folder(target, weights.size) as folder:
        torch.manual_seed(0)  # of the randomised SVD: the same command gives the same files
        layers = [module for module in model.modules() if hasattr(module, "lora_A") and "default" in module.lora_A]
        for number, layer in enumerate(layers, 1):
            _divide(layer, divide, settings, dtype)
            progress(number, len(layers))
        difference = _difference(before, _logits(model))
        model.peft_config["default"].base_model_name_or_path = str(target.expanduser().absolute())
        model.save_pretrained(folder / name, save_embedding_layers=False)
        base = model.unload().to(dtype)
        base.config.dtype = dtype
        base.save_pretrained(folder, max_shard_size=max_shard_size)
        copied = copy_small_files(source, folder)
    return {"adapter": str(target / name), "layers": len(layers), "logits_moved": difference, "copied": copied}


def _check_packages(kind: str) -> None:
    from importlib.util import find_spec

    if kind == "loftq-init" and find_spec("bitsandbytes") is None:
        what, fix = "LoftQ quantizes with bitsandbytes, which is missing", "pip install bitsandbytes"
        raise MachineError(Problem("E-CONVERT-018", what, fix=fix))


def _targets(model: Any, family: Any, settings: InitialSettings) -> list[str]:
    every = linear_names(model, family)
    wanted = every if set(settings.targets) & {"all", "all-linear"} else list(settings.targets)
    problems = [
        Problem("E-CONVERT-017", f'the model has no linear module "{name}"', "--target", fix=_advice(name, every))
        for name in wanted
        if name not in every
    ]
    if problems:
        raise UsageError(problems)
    shapes = [
        m.weight.shape for n, m in model.named_modules() if n.rsplit(".", 1)[-1] in wanted and hasattr(m, "weight")
    ]
    least = min(min(shape) for shape in shapes)
    if settings.rank > least:
        what = "a weight has fewer singular values than the rank asks for"
        raise UsageError(Problem("E-CONVERT-017", what, "--rank", f"{settings.rank}, and {least}", "a smaller rank"))
    return wanted


def _lie_turned(model: Any, targets: list[str]) -> bool:
    """GPT-2 keeps its weights as [in, out]."""
    from transformers.pytorch_utils import Conv1D

    named = model.named_modules()
    return any(isinstance(module, Conv1D) and name.rsplit(".", 1)[-1] in targets for name, module in named)


def _advice(name: str, every: list[str]) -> str:
    return did_you_mean(name, every) or "all, or some of: " + ", ".join(every)


def _divide(
    layer: Any, divide: Callable[[Tensor, int, float, int], Parts], settings: InitialSettings, dtype: Any
) -> None:
    """Give one layer its base and its adapter. The base is rounded to the type that it is saved in, so that what is
    measured is what was saved."""
    linear = layer.get_base_layer()
    turned = layer.fan_in_fan_out
    weight = linear.weight.data.T if turned else linear.weight.data
    base, b, a = divide(weight.float(), settings.rank, layer.scaling["default"], settings.iterations)
    base = base.to(dtype).float()
    linear.weight.data = (base.T if turned else base).contiguous()
    layer.lora_A["default"].weight.data = a.contiguous()
    layer.lora_B["default"].weight.data = b.contiguous()


def _logits(model: Any) -> Tensor:
    """[T, V] at token ids spread over the vocabulary."""
    ids = torch.linspace(0, model.get_input_embeddings().weight.shape[0] - 1, _PROBE_TOKENS).long()[None]
    with torch.inference_mode():
        logits: Tensor = model.eval()(input_ids=ids, use_cache=False).logits[0].float()
    return logits


def _difference(before: Tensor, after: Tensor) -> float:
    return float((before - after).abs().max() / before.abs().max())
