"""The model as it is called, with a LoRA adapter for each request.

PEFT adds, row by row of a batch, what the adapter of that row gives (`adapter_names`). Here the tokens of many requests
stand in one row, so layers with adapters see each token as a row of its own.

T tokens, H hidden.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any
from weakref import WeakSet

import torch

from tunesmith.config.tuners import TUNERS
from tunesmith.core.errors import Problem, UsageError
from tunesmith.methods.towers import Towers

__all__ = ["NamedAdapters", "unknown_adapter"]

_BASE = "__base__"
"""PEFT's name for no adapter."""


class NamedAdapters:
    """`names` are loaded; the model as it was given is None. Everything but `names` is for the engine's thread."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.names: tuple[str, ...] = ()
        self._own = model.active_adapter if hasattr(model, "peft_config") else _BASE
        self._flat = False
        settings = model.active_peft_config if hasattr(model, "peft_config") else None
        kind = settings.peft_type.value.lower() if settings is not None else "lora"
        self.replies = TUNERS[kind].replies if kind in TUNERS else "together"
        self.prompt: int = settings.num_virtual_tokens if settings is not None and settings.is_prompt_learning else 0
        """How many learnt vectors stand in front of each sequence."""
        self._hooked: WeakSet[Any] = WeakSet()

    def __call__(self, adapters: Sequence[str | None], inputs: dict[str, Any], *, flat: bool) -> Any:
        """The model's output. `adapters`: of each token of the row (`flat`), or one for a row that is no flat batch."""
        if self.prompt:
            return self._behind_prompt(inputs)
        if not self.names:
            return self.model(**inputs)
        self._flat = flat
        return self.model(**inputs, adapter_names=[self._own if name is None else name for name in adapters])

    def _behind_prompt(self, inputs: dict[str, Any]) -> Any:
        """PEFT puts the prompt in front of whatever it is given, so what follows on a cache goes to the model itself.
        Positions are counted by the mask."""
        inputs = {name: value for name, value in inputs.items() if name != "position_ids"}
        if inputs.get("past_key_values") is None:
            return self.model(**inputs)
        mask = inputs["attention_mask"]
        inputs["attention_mask"] = torch.cat([mask.new_ones(len(mask), self.prompt), mask], dim=1)
        return self.model.get_base_model()(**inputs)

    def load(self, name: str, path: str) -> None:
        """Raises UsageError where the name is taken or the adapter is of a kind that cannot be mixed with others,
        MissingInputError where it is not there or does not fit the model."""
        from tunesmith.methods.merge import attach_adapter

        if name in self.names or name in (self._own, _BASE):
            raise UsageError(Problem("E-ENGINE-009", "an adapter of this name is loaded already", got=name))
        self.model = attach_adapter(self.model, path, known_as=name)
        self.names += (name,)
        try:
            self._check_towers()
            self._hook()
            self._try(name)
        except (ValueError, NotImplementedError, TypeError) as error:
            self.unload(name)
            what = "this adapter cannot be mixed with others in one batch"
            fix = "merge it (tunesmith export), or give it as adapter_name_or_path"
            got = str(error).strip().splitlines()[0]
            raise UsageError(Problem("E-ENGINE-010", what, path, got, fix)) from error

    def unload(self, name: str) -> None:
        """Raises UsageError for a name that is not loaded."""
        if name not in self.names:
            raise unknown_adapter(name)
        self.names = tuple(other for other in self.names if other != name)
        if not self.names and self._own == _BASE:
            self.model = self.model.unload()  # as it was given
            return
        with warnings.catch_warnings():  # that another one is active then: which one has no effect here
            warnings.simplefilter("ignore")
            self.model.delete_adapter(name)

    def _check_towers(self) -> None:
        """Raises ValueError where an adapter is in what sees or hears: a picture is no row of a batch."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        bare = self.model.get_base_model()
        towers = Towers(bare)
        if towers.several:
            for name, module in bare.named_modules():
                if isinstance(module, BaseTunerLayer) and (part := towers.part_of(name)) != "language":
                    raise ValueError(f"it changes the {part} part of the model")

    def _try(self, name: str) -> None:
        ids = torch.zeros(1, 2, dtype=torch.long, device=self.model.device)
        with torch.inference_mode():
            self([None, name], {"input_ids": ids, "use_cache": False, "logits_to_keep": 1}, flat=True)

    def _hook(self) -> None:
        """Tokens become rows before a layer with adapters, and one row behind it."""
        from peft.tuners.tuners_utils import BaseTunerLayer

        for module in self.model.modules():
            if isinstance(module, BaseTunerLayer) and module not in self._hooked:
                self._hooked.add(module)
                module.register_forward_pre_hook(self._to_rows)
                module.register_forward_hook(self._to_one_row)

    def _to_rows(self, _: Any, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """[1, T, ...] -> [T, 1, ...]"""
        if not (self.names and self._flat):
            return arguments
        return (arguments[0].transpose(0, 1), *arguments[1:])

    def _to_one_row(self, _: Any, __: tuple[Any, ...], output: Any) -> Any:
        return output.transpose(0, 1) if self.names and self._flat else output


def unknown_adapter(name: str) -> UsageError:
    fix = "load it first, or name one that is loaded"
    return UsageError(Problem("E-ENGINE-006", "no adapter of this name is loaded", got=name, fix=fix))
