"""Merge adapters into their base model and save the result as an ordinary model folder, with a Modelfile for Ollama."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, OutputError, Problem
from tunesmith.core.log import get_logger
from tunesmith.export.modelfile import modelfile

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.config import RunConfig
    from tunesmith.models.reward import Head
    from tunesmith.render import Renderer

__all__ = ["export_model"]

_PROBE_TOKENS = 32
_TOLERANCE = 1e-4  # largest difference of logits, relative to the largest logit, that float32 rounding explains


def export_model(config: RunConfig) -> Path:
    """Write the merged model to `export_dir` and return that folder.

    The merged weights are compared with base + adapters on a probe before they are written. Raises OutputError if the
    folder already holds a model or the merged model answers differently.
    """
    from tunesmith.engines.rewards import gives_rewards
    from tunesmith.methods.base import Adapters
    from tunesmith.methods.combine import combine_adapters
    from tunesmith.methods.merge import attach_adapter, fold, merge_adapters
    from tunesmith.models.chat_template import carry_template, make_savable
    from tunesmith.models.depth_plan import told_depths
    from tunesmith.models.heads import reward_head
    from tunesmith.models.load import ATTENTION, infer_dtype, load, settings_of, torch_dtype
    from tunesmith.models.machine import pick_device
    from tunesmith.models.processor_files import copy_processor
    from tunesmith.models.quantization.plan import base_of
    from tunesmith.models.reward import is_reward_model
    from tunesmith.models.rope import context_of
    from tunesmith.models.tokenizer import load_tokenizer

    folder = _make_folder(str(config.export.export_dir))
    device = pick_device() if config.export.export_device == "auto" else "cpu"
    dtype = infer_dtype(config.model, device)
    adapters = Adapters.of(config.model)
    names = adapters.names
    # Merged in float32 and rounded once, at the end: rounding after every adapter would add up.
    working = "float32" if names else dtype
    tokenizer = load_tokenizer(config.model)
    renderer = _renderer(config, tokenizer)
    placed = {
        "attention": ATTENTION[config.model.flash_attn],
        "device": device,
        "quantization": base_of(config, device),
    }
    head: Head = "saved reward" if gives_rewards(config.model) else "tokens"
    loaded = load(config.model, tokenizer, dtype=working, head=head, **placed)
    if config.export.merge_method != "in_order":
        if head != "tokens" and not is_reward_model(settings_of(config.model)):
            reward_head(loaded.model).weight.data.zero_()  # adapters bring theirs, and each is a change of nothing
        model = combine_adapters(loaded.model, adapters, config.export, seed=config.train.value("seed") or 0)
        before = _probe(model)
    else:
        model = merge_adapters(loaded.model, adapters.only(names[:-1]))
        if names:
            attached = attach_adapter(model, names[-1], adapters).eval()
            before = _probe(attached)
            model = fold(attached, names[-1])
            _compare(before, _probe(model))
    if names:
        model = model.to(torch_dtype(dtype))
        _say_rounding(before, _probe(model), dtype)
    get_logger().info("writing %s weights to %s", dtype, folder)
    if renderer:
        carry_template(renderer, config.template, loaded.tokenizer, model)
    make_savable(model)
    model.save_pretrained(folder, max_shard_size=f"{config.export.export_size}GB")
    loaded.tokenizer.save_pretrained(folder)
    copy_processor(config.model, folder)
    if head != "tokens":
        get_logger().info("no Modelfile is written: Ollama has no reward models")
    elif told_depths(model.config) is not None:
        get_logger().warning("no Modelfile is written: Ollama would compute all tokens in all layers of this model")
    else:
        text = modelfile(renderer, config.template, loaded.tokenizer, context_of(model.config))
        (folder / "Modelfile").write_text(text, encoding="utf-8")
    return folder


def _renderer(config: RunConfig, tokenizer: Any) -> Renderer | None:
    """Of the template that the config names, else of the model's own; None for a model that has none to use."""
    from tunesmith.media.limits import MediaLimits
    from tunesmith.models.media import load_media
    from tunesmith.render import make_renderer

    named = config.template.template not in (None, "auto")
    if not named and not tokenizer.chat_template:
        return None
    media = load_media(config.model, MediaLimits.of(config.media), tokenizer)
    try:
        return make_renderer(config.template, tokenizer, media=media)
    except DataError:
        if named:
            raise
        return None  # it is saved as it came


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
    """Logits [T, V] in float32 at T fixed token ids spread over the vocabulary; of a reward model [T, 1], the reward
    of each beginning of them."""
    import torch

    from tunesmith.models.heads import reward_head
    from tunesmith.models.loss_forward import trunk_of

    size = model.get_input_embeddings().weight.shape[0]
    ids = torch.linspace(0, size - 1, _PROBE_TOKENS, device=model.device).long()[None]
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    with torch.inference_mode():
        if (head := reward_head(bare)) is not None:
            logits: Tensor = head(trunk_of(bare)(input_ids=ids, use_cache=False)[0])[0].float()
        else:
            logits = model(input_ids=ids, use_cache=False).logits[0].float()
    return logits


def _difference(one: Tensor, other: Tensor) -> float:
    """Largest difference of logits, relative to the largest logit."""
    return float((one - other).abs().max() / one.abs().max())


def _compare(before: Tensor, after: Tensor) -> None:
    difference = _difference(before, after)
    get_logger().info("merged model against base + adapter: largest relative difference of logits %.1e", difference)
    if not difference <= _TOLERANCE:
        raise OutputError(
            Problem(
                "E-EXPORT-003",
                "the merged model does not answer like base and adapter",
                got=f"relative difference of logits {difference:.1e}, rounding explains {_TOLERANCE:.0e}",
                fix="keep the adapter beside the base (tunesmith chat does), and report this model",
            )
        )


def _say_rounding(before: Tensor, after: Tensor, dtype: str) -> None:
    if dtype != "float32":
        text = "rounding the weights to %s moves logits by up to %.1e of the largest (infer_dtype: float32 keeps all)"
        get_logger().info(text, dtype, _difference(before, after))
