"""The parts of a model that sees or hears: encoders (`vision`), the language model, and the projector between them.

transformers tells encoders and decoder of every such model; what is neither is the projector. A text model has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from tunesmith.config.method import MethodConfig
    from tunesmith.methods.base import Adapters

__all__ = ["Towers", "is_of_text_alone"]

_TEXT_ALONE = "base_model.model.model.layers."
"""How weights of an adapter are named that was trained on the text part of a model without the model around it."""

# Modules within an encoder that take its output to the language model's width.
_INNER_PROJECTORS = ("merger", "deepstack_merger_list")
_MODALITIES = ("image", "video", "audio")
_KEYS = {
    "vision": "freeze_vision_tower",
    "projector": "freeze_multi_modal_projector",
    "language": "freeze_language_model",
}


def is_of_text_alone(name: str, source: Adapters) -> bool:
    """Whether an adapter is one of the text part of a model, as it is when it is loaded alone. False as well for one
    that cannot be read: who attaches it says so."""
    from safetensors import SafetensorError, safe_open
    from transformers.utils import cached_file

    try:
        file = cached_file(name, "adapter_model.safetensors", subfolder=source.folder or "", **source.hub)
        with safe_open(str(file), "pt") as weights:
            return any(key.startswith(_TEXT_ALONE) for key in weights.keys())  # noqa: SIM118 - no mapping
    except (OSError, ValueError, SafetensorError):
        return False


class Towers:
    """Which part each module is in. `several`: there are encoders beside the language model."""

    def __init__(self, model: Any) -> None:
        names = {id(module): name for name, module in model.named_modules()}
        encoders = [_encoder(model, modality) for modality in _MODALITIES]
        self._vision = sorted({names[id(one)] for one in encoders if one is not None and id(one) in names} - {""})
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        found = [names.get(id(one)) for one in (decoder, head) if one is not None]
        self._language = [name for name in found if name]
        self.several = bool(self._vision)

    def part_of(self, name: str) -> str:
        """`vision`, `language` or `projector`, of the name of a module or weight."""
        if not self.several or _within(name, self._language):
            return "language"
        inner = [f"{place}.{one}" for place in self._vision for one in _INNER_PROJECTORS]
        return "vision" if _within(name, self._vision) and not _within(name, inner) else "projector"

    def frozen(self, config: MethodConfig) -> frozenset[str]:
        """The parts that do not train. In a text model all of it does, and keys of parts that it lacks are named."""
        if self.several:
            return frozenset(part for part, key in _KEYS.items() if getattr(config, key))
        if config.freeze_language_model:
            get_logger().warning("freeze_language_model is without effect: the model has no other part")
        return frozenset()

    def trained(self, names: Iterable[str], config: MethodConfig) -> list[str]:
        """Those names that are in no frozen part."""
        frozen = self.frozen(config)
        return [name for name in names if self.part_of(name) not in frozen]


def _encoder(model: Any, modality: str) -> Any:
    """None where the model has none; where transformers is not sure it gives the model itself."""
    try:
        found = model.get_encoder(modality=modality)
    except (AttributeError, TypeError, ValueError):
        return None
    return None if found is model or found is getattr(model, "model", None) or found is model.get_decoder() else found


def _within(name: str, places: list[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)
