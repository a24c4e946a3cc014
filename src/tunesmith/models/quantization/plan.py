"""What of the base model is quantized, decided and checked before its weights are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.config.quantization_checks import method_kinds
from tunesmith.config.quantizer_facts import QuantizerFacts, quantizer_of
from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.models.load import settings_of
from tunesmith.models.quantization import QUANTIZERS
from tunesmith.models.quantization.available import check_available
from tunesmith.models.quantization.base import Quantizer
from tunesmith.models.quantization.saved import Saved, forget_quantization, saved_quantization

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["Base", "base_of"]

_LITTLE = 0.5
"""Share of the parameters below which the run is told that most of them stay as they were."""


@dataclass(frozen=True, slots=True)
class Base:
    """A base with quantized weights: `quantizer` makes them while loading, or `saved` is what the checkpoint has.
    `spread`: over all devices, as the config asks."""

    facts: QuantizerFacts
    quantizer: Quantizer | None = None
    saved: Saved | None = None
    spread: bool = False

    def __str__(self) -> str:
        if self.saved is not None:
            return f"{self.saved} (of the checkpoint{', dequantized' * (self.facts.kept == 'dequantized')})"
        assert self.quantizer is not None
        if self.facts.name != "bnb4":
            return self.facts.name
        config = self.quantizer.config
        return f"bnb4 ({config.quantization_type}{', double' * config.double_quantization})"

    def arguments(self, dtype: str, device: str) -> dict[str, Any]:
        """What `from_pretrained` gets; without `device_map` the model is still to be moved to its device."""
        if self.saved is not None:
            arguments = self.saved.arguments()
            packed = self.facts.kept == "packed"
        else:
            assert self.quantizer is not None
            arguments = self.quantizer.arguments(dtype)
            packed = bool(arguments)  # else ordinary weights are loaded, and quantized afterwards
        if packed:
            arguments["device_map"] = "auto" if self.spread else {"": device}
        return arguments

    def finish(self, model: Any, dtype: str, device: str) -> None:
        if self.facts.kept == "dequantized":
            forget_quantization(model)
            get_logger().info("the checkpoint is quantized (%s): its weights are made %s while loading", self, dtype)
            return
        if self.quantizer is not None:
            self.quantizer.finish(model, dtype, device)
        elif self.facts.library == "bitsandbytes":
            from tunesmith.models.quantization.bitsandbytes import mend_layers

            mend_layers(model)
        _tell_share(model, self.facts.name)


def _tell_share(model: Any, name: str) -> None:
    from tunesmith.models.quantization.weights import Held, stored_bytes

    held = Held(model)
    share = held.quantized / held.total
    text = "%s: %s of %s parameters are quantized (%.0f%%); the weights take %.2f GB"
    tell = get_logger().info if share >= _LITTLE else get_logger().warning
    tell(text, name, f"{held.quantized:,}", f"{held.total:,}", 100 * share, stored_bytes(model) / 1e9)


def base_of(config: RunConfig, device: str) -> Base | None:
    """What of the base is quantized; None where nothing is.

    Raises UsageError where the method does not train on it or adapters would have to be merged into it, MachineError
    where a package or the device is lacking, and what `settings_of` raises.
    """
    where = f"model_name_or_path: {config.model.model_name_or_path}"
    saved = saved_quantization(settings_of(config.model), _name(config))
    if saved is not None:
        check_available(saved.facts, device, where)
        _check_use(config, saved.facts, where)
        _tell_of_idle_keys(config, saved)
        return Base(saved.facts, saved=saved, spread=config.quantization.quantization_device_map == "auto")
    facts = quantizer_of(config)
    if facts is None:
        return None
    check_available(facts, device, f"quantization_bit: {config.quantization.quantization_bit}")
    quantizer = QUANTIZERS.get(facts.library)(config.quantization, facts, bool(config.train.value("fsdp")))
    return Base(facts, quantizer, spread=config.quantization.quantization_device_map == "auto")


def _name(config: RunConfig) -> str:
    from tunesmith.models.locate import located

    return str(located(config.model).model_name_or_path)


def _check_use(config: RunConfig, facts: QuantizerFacts, where: str) -> None:
    """What the checks of the config do for weights that are quantized while loading."""
    if config.verb == "train" and config.train.do_train and config.method.looks_at_rounding:
        what = "the checkpoint holds what rounding left of its weights, and loftq compares with them as they were"
        raise UsageError(Problem("E-QUANT-002", what, where, fix=_UNQUANTIZED))
    if facts.kept == "dequantized":
        return
    if config.verb == "train" and config.train.do_train:
        for kind in method_kinds(config):
            if not facts.can_train(kind):
                what = f"{kind} does not train on a checkpoint that is quantized with {facts.name}"
                can = f"finetuning_type: lora, or {_UNQUANTIZED}" if facts.can_train("lora") else _UNQUANTIZED
                raise UsageError(Problem("E-QUANT-002", what, where, fix=can))
    new = config.verb == "train" and config.method.create_new_adapter
    if config.model.adapter_name_or_path and (
        config.verb == "export" or len(config.model.adapter_name_or_path) > 1 or new
    ):
        what = "an adapter would have to be merged into weights that are quantized, and rounded with them"
        fix = "name the model that the checkpoint was made from: an adapter fits that too"
        raise UsageError(Problem("E-QUANT-008", what, where, fix=fix))


_UNQUANTIZED = "name the model that it was made from, with quantization_bit"


def _tell_of_idle_keys(config: RunConfig, saved: Saved) -> None:
    named = [key for key in ("quantization_bit", "bnb_4bit_quant_storage", "qat") if config.values.get(key) is not None]
    if "qat" in named and saved.facts.kept == "dequantized":
        named.remove("qat")
    if named:
        get_logger().warning("without effect: %s (the checkpoint is quantized already: %s)", ", ".join(named), saved)
