"""What a saved model says about chatting with it: its chat template and the tokens that end a reply.

Other tools read both from the saved files, so they have to be what was trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.log import get_logger
from tunesmith.models.rope import keep_positions
from tunesmith.models.vocabulary import fresh_tokens
from tunesmith.render import RenderError, make_renderer
from tunesmith.render.checking import builtin_chats, check_texts
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.to_jinja import jinja_of

if TYPE_CHECKING:
    from tunesmith.config.template import TemplateConfig
    from tunesmith.render import Renderer

__all__ = ["carry_template", "make_savable", "save_model", "template_beside"]


def carry_template(renderer: Renderer, settings: TemplateConfig, tokenizer: Any, model: Any) -> None:
    """Let tokenizer and model be saved with the renderer's chat template and stop tokens. The model's own template
    is kept where it is the renderer's, or writes the same."""
    template = renderer.template
    if isinstance(template, SlotTemplate) and not _own_is_same(renderer, settings, tokenizer):
        placeholders = renderer.media.placeholders if renderer.media is not None else None
        tokenizer.chat_template = jinja_of(template.slots, settings, placeholders)
        get_logger().info('the saved tokenizer carries the chat template "%s"', renderer.name)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        known = generation.eos_token_id
        known = [] if known is None else [known] if isinstance(known, int) else list(known)
        if not set(renderer.stop_ids) <= set(known):
            generation.eos_token_id = list(dict.fromkeys([*renderer.stop_ids, *known]))


def make_savable(model: Any) -> None:
    """Mend generation settings that transformers refuses to save: sampling values without `do_sample` mean sampling.
    Of others that contradict each other only the tokens are kept."""
    from transformers import GenerationConfig

    generation = getattr(model, "generation_config", None)
    if generation is None or _is_valid(generation):
        return
    sampling = generation.do_sample
    generation.do_sample = True
    if _is_valid(generation):
        return
    generation.do_sample = sampling
    kept = {name: getattr(generation, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**kept)
    get_logger().warning("the model's generation settings contradict each other: only its tokens are saved")


def _is_valid(generation: Any) -> bool:
    try:
        generation.validate(strict=True)
    except ValueError:
        return False
    return True


def save_model(model: Any, folder: str | Path, state_dict: Mapping[str, Any] | None = None) -> None:
    """Write weights (those of `state_dict`, if given) and settings. Beside an adapter stand generation_config.json,
    with the tokens that end a reply, which PEFT does not write, and scaled positions. Of embeddings that have grown it
    holds the rows that it trains."""
    make_savable(model)
    if not hasattr(model, "peft_config"):
        model.save_pretrained(folder, state_dict=state_dict)
        return
    whole: Any = {"save_embedding_layers": False} if fresh_tokens(model) else {}
    model.save_pretrained(folder, state_dict=state_dict, **whole)
    keep_positions(model, folder)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        generation.save_pretrained(folder)


def _own_is_same(renderer: Renderer, settings: TemplateConfig, tokenizer: Any) -> bool:
    """Whether the tokenizer's own chat template, told nothing else, writes what the renderer writes."""
    if not tokenizer.chat_template:
        return False
    told = replace(settings, template=None, default_system=None, enable_thinking=None, preserve_thinking=False)
    try:
        own = make_renderer(told, tokenizer)
    except RenderError:
        return False
    chats = dict(builtin_chats())
    if isinstance(renderer.template, SlotTemplate) and renderer.template.slots.dialect:
        chats |= builtin_chats(tools=True)
    return check_texts(renderer, own, chats).ok


def template_beside(adapter: str, folder: str | None = None) -> str | None:
    """The chat template that was saved beside an adapter, if the adapter is a folder here."""
    place = Path(adapter).expanduser() / (folder or "")
    try:
        if (place / "chat_template.jinja").is_file():
            return (place / "chat_template.jinja").read_text(encoding="utf-8")
        saved = json.loads((place / "tokenizer_config.json").read_text(encoding="utf-8")).get("chat_template")
    except (OSError, ValueError, AttributeError):
        return None
    return saved if isinstance(saved, str) else None
