"""Merge adapters into their base model and save the result as an ordinary model folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import OutputError, Problem
from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.config import RunConfig

__all__ = ["export_model"]

_PROBE_TOKENS = 32
# Largest difference of logits, relative to the largest logit, that rounding explains in each dtype (about 2^-bits * 8).
_TOLERANCE = {"float32": 1e-4, "bfloat16": 6e-2, "float16": 8e-3}


def export_model(config: RunConfig) -> Path:
    """Write the merged model to `export_dir` and return that folder.

    The merged weights are compared with base + adapters on a probe before they are written. Raises OutputError if the
    folder already holds a model or the merged model answers differently.
    """
    from tunesmith.methods.base import Adapters
    from tunesmith.methods.merge import attach_adapter, merge_adapters
    from tunesmith.models.load import ATTENTION, infer_dtype, load
    from tunesmith.models.machine import pick_device

    folder = _make_folder(str(config.export.export_dir))
    device = pick_device() if config.export.export_device == "auto" else "cpu"
    dtype = infer_dtype(config.model, device)
    loaded = load(config.model, dtype=dtype, attention=ATTENTION[config.model.flash_attn], device=device)
    adapters = Adapters.of(config.model)
    names = adapters.names
    model = merge_adapters(loaded.model, adapters.only(names[:-1]))
    if names:
        attached = attach_adapter(model, names[-1], adapters).eval()
        before = _probe(attached)
        model = attached.merge_and_unload(safe_merge=True)
        _compare(before, _probe(model), dtype)
    get_logger().info("writing %s weights to %s", dtype, folder)
    model.save_pretrained(folder, max_shard_size=f"{config.export.export_size}GB")
    loaded.tokenizer.save_pretrained(folder)
    return folder


def _make_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    held = next((item.name for item in folder.glob("*.safetensors")), None) if folder.is_dir() else None
    if held:
        raise OutputError(
            Problem(
                "E-EXPORT-001",
                "the export folder already holds a model",
                where=f"export_dir: {folder}",
                got=held,
                fix="choose another export_dir, or delete that folder",
            )
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            Problem(
                "E-EXPORT-002",
                "the export folder cannot be made",
                where=f"export_dir: {folder}",
                got=error.strerror,
                fix="choose another export_dir",
            )
        ) from error
    return folder


def _probe(model: Any) -> Tensor:
    """Logits [T, V] in float32 at T fixed token ids spread over the vocabulary."""
    import torch

    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.linspace(0, size - 1, _PROBE_TOKENS, device=model.device).long()[None]
    with torch.inference_mode():
        logits: Tensor = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits


def _compare(before: Tensor, after: Tensor, dtype: str) -> None:
    difference = float((before - after).abs().max() / before.abs().max())
    get_logger().info("merged model against base + adapter: largest relative difference of logits %.1e", difference)
    if not difference <= _TOLERANCE[dtype]:
        raise OutputError(
            Problem(
                "E-EXPORT-003",
                "the merged model does not answer like base and adapter",
                got=f"relative difference {difference:.1e}, rounding in {dtype} explains {_TOLERANCE[dtype]:.0e}",
                fix="merge in float32 (infer_dtype: float32)",
            )
        )
