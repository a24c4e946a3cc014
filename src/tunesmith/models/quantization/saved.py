"""What a checkpoint is quantized with already, told by its config before the weights are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.config.quantizer_facts import QUANTIZERS, QuantizerFacts, saved_kind
from tunesmith.core.errors import Problem, UsageError
from tunesmith.models.locate import gguf_file

__all__ = ["Saved", "forget_quantization", "saved_quantization"]


@dataclass(frozen=True, slots=True)
class Saved:
    """A quantized checkpoint: its line of facts, and what its config says of it."""

    facts: QuantizerFacts
    values: Mapping[str, Any]

    def __str__(self) -> str:
        bits = self.values.get("bits") or self.values.get("w_bit") or self.facts.bits
        return f"{self.facts.name}{f', {bits:g} bits' if isinstance(bits, int | float) else ''}"

    def arguments(self) -> dict[str, Any]:
        """What `from_pretrained` gets so that ordinary weights come out, where they do."""
        import transformers

        kinds = {"fp8": "FineGrainedFP8Config", "mxfp4": "Mxfp4Config", "compressed-tensors": "CompressedTensorsConfig"}
        if self.facts.kept != "dequantized" or self.facts.library not in kinds:
            return {}
        return {"quantization_config": getattr(transformers, kinds[self.facts.library])(dequantize=True)}


def saved_quantization(settings: Any, name: str) -> Saved | None:
    """settings: the model's config, of transformers. name: of the model. None where its weights are ordinary ones.

    Raises UsageError where the kind is unknown, or known and not to be loaded.
    """
    if gguf_file(name):
        return Saved(QUANTIZERS["gguf"], {})
    found = getattr(settings, "quantization_config", None)
    if found is None:
        return None
    values = dict(found) if isinstance(found, Mapping) else found.to_dict()
    method = str(values.get("quant_method") or "")
    facts, where = saved_kind(method, values), f"model_name_or_path: {name}"
    if facts is None:
        known = ", ".join(sorted(one.name for one in QUANTIZERS.values() if one.kept != "no"))
        what, fix = "the checkpoint is quantized in a way that is not known here", f"known are: {known}"
        raise UsageError(Problem("E-QUANT-006", what, where, method or str(values), fix))
    if facts.kept == "no":
        what = f"transformers cannot load a checkpoint that is quantized with {facts.name}"
        raise UsageError(Problem("E-QUANT-006", what, where, fix=facts.instead))
    return Saved(facts, values)


def forget_quantization(model: Any) -> None:
    """Of weights that are ordinary ones now: transformers would refuse to save them, or say that they are packed."""
    model.hf_quantizer = None
    model.is_quantized = False
    for owner in (model.config, model.config.get_text_config()):
        if getattr(owner, "quantization_config", None) is not None:
            del owner.quantization_config
    for name in ("quantization_method", "is_loaded_in_4bit", "is_loaded_in_8bit"):
        if hasattr(model, name):
            delattr(model, name)
