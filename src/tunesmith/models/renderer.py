"""The renderer of a config: its template, its model's tokenizer, and what the model makes of media."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.template import TemplateConfig
    from tunesmith.render import Renderer

__all__ = ["renderer_of"]


def renderer_of(config: RunConfig, tokenizer: Any, template: TemplateConfig | None = None) -> Renderer:
    """`tokenizer`: of the config's model; a chat template that lies beside its processor becomes its own. `template`:
    other settings than those of the config. Raises what `load_media` and `make_renderer` raise."""
    from tunesmith.media.limits import MediaLimits
    from tunesmith.models.catalog import fallback_template
    from tunesmith.models.media import load_media
    from tunesmith.render import make_renderer

    media = load_media(config.model, MediaLimits.of(config.media), tokenizer)
    fallback = fallback_template(config.model.model_name_or_path)
    return make_renderer(template or config.template, tokenizer, fallback=fallback, media=media)
