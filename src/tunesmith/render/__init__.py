"""Chat to text, text to tokens and mask, and model text back to a message.

What belongs here: templates (the model's own Jinja, the catalog's YAML), provenance of text, masks, encoding.
What does not: reading rows (data), truncation and packing (data), anything with tensors.
"""

from __future__ import annotations

from tunesmith.render.errors import RenderError
from tunesmith.render.renderer import Renderer, TemplateSettings, make_renderer
from tunesmith.render.spans import Span

__all__ = ["RenderError", "Renderer", "Span", "TemplateSettings", "make_renderer"]
