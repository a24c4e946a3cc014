"""What all adapters of PEFT have in common: which modules they go on, how training goes on with one that exists, and
what the model is told of it.

Adapters named in the config: all but the last are merged into the base; the last one is trained on, unless
`create_new_adapter`: then it is merged too and a fresh one is trained.
"""

from __future__ import annotations

import re
import warnings
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.core.suggest import did_you_mean
from tunesmith.methods.base import Given, Method, split_names
from tunesmith.methods.merge import attach_adapter, merge_adapters
from tunesmith.methods.new_tokens import train_new_tokens
from tunesmith.methods.towers import Towers
from tunesmith.models.heads import output_layer

if TYPE_CHECKING:
    from peft import PeftConfig

    from tunesmith.models.family import Family

__all__ = ["AdapterMethod", "linear_names", "with_settings"]

_ALL = {"all", "all-linear"}


class AdapterMethod(Method):
    """A method that puts one adapter of PEFT on the base."""

    def apply(self, model: Any, given: Given) -> Any:
        adapters = given.adapters
        resumed = bool(adapters.names) and not self.config.create_new_adapter
        model = merge_adapters(model, adapters.only(adapters.names[:-1]) if resumed else adapters)
        if resumed:
            last = adapters.names[-1]
            get_logger().info("training goes on with the adapter %s (its own rank and targets)", last)
            return attach_adapter(model, last, adapters, trainable=True, keep_dtype=given.keep_dtype)
        return self.fresh(model, given)

    def fresh(self, model: Any, given: Given) -> Any:
        """`model` with a new adapter on top."""
        return put_on(model, self.settings(model, given.family), given.keep_dtype)

    @abstractmethod
    def settings(self, model: Any, family: Family) -> PeftConfig:
        """PEFT's config of the adapter. Raises UsageError for what the model does not have."""

    def targets(self, model: Any, family: Family, key: str, wanted: Sequence[str]) -> list[str]:
        """Names for PEFT. Raises UsageError if the config names a module that the model does not have."""
        every = linear_names(model, family)
        modules = {name.rsplit(".", 1)[-1] for name, _ in model.named_modules()}
        problems = [
            Problem(
                "E-METHOD-004",
                f'the model has no module called "{name}"',
                where=place,
                fix=did_you_mean(name, modules) or "all, or some of: " + ", ".join(every),
            )
            for place, names in ((key, wanted), ("additional_target", split_names(self.config.additional_target)))
            for name in names
            if name not in _ALL and name.rsplit(".", 1)[-1] not in modules
        ]
        if problems:
            raise UsageError(problems)
        towers, takes_all = Towers(model), bool(set(wanted) & _ALL)
        if not towers.several:
            return every if takes_all else list(wanted)
        # Encoders have layers of the same names as the language model, so each is told by its whole name.
        if takes_all:
            return towers.trained(_linear_modules(model, family), self.config)
        ends = tuple(f".{name}" for name in wanted)
        named = (name for name, _ in model.named_modules())
        return towers.trained((name for name in named if f".{name}".endswith(ends)), self.config)

    def common(self) -> dict[str, Any]:
        """Settings that most kinds of adapters have: those that the config leaves out are left to PEFT."""
        config = self.config
        layers = [int(number) for number in config.layers_to_transform]
        found: dict[str, Any] = {"modules_to_save": split_names(config.additional_target)}
        return {name: value for name, value in (found | {"layers_to_transform": layers}).items() if value}


def put_on(model: Any, settings: PeftConfig, keep_dtype: bool, *, empty: bool = False) -> Any:
    """`model` with an adapter. `empty`: its weights are made later. Raises UsageError where PEFT refuses the settings
    for this model. New tokens get rows that train."""
    from peft import get_peft_model

    _check_whole(model, getattr(settings, "modules_to_save", None) or ())
    train_new_tokens(settings, model)
    try:
        with telling_peft():
            return get_peft_model(model, settings, autocast_adapter_dtype=not keep_dtype, low_cpu_mem_usage=empty)
    except (ValueError, TypeError, NotImplementedError, KeyError, AttributeError) as error:
        raise UsageError(
            Problem(
                "E-METHOD-010",
                f"this adapter ({settings.peft_type.value.lower()}) cannot be put on {type(model).__name__}",
                where="peft_settings",
                got=_first_sentence(error),
                fix="change the settings in peft_settings (docs/methods.md), or name other modules in lora_target",
            )
        ) from error


def _check_whole(model: Any, names: Sequence[str]) -> None:
    """Raises UsageError where modules that are trained whole, named by the ends of their names, are quantized."""
    from tunesmith.models.quantization.weights import packed_names

    modules = sorted(name.rpartition(".")[0] for name in packed_names(model))
    for name in names:
        if (found := next((module for module in modules if module.endswith(name)), None)) is not None:
            what = f"{name} would train whole, and {found} is quantized"
            fix = "leave it out, or name it in lora_target instead"
            raise UsageError(Problem("E-QUANT-002", what, "additional_target", fix=fix))


@contextmanager
def telling_peft() -> Iterator[None]:
    """What PEFT warns of becomes lines of the log, each once."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    texts = (_first_sentence(one.message) for one in told if issubclass(one.category, UserWarning))
    for text in dict.fromkeys(texts):
        get_logger().warning("PEFT: %s", text)


def with_settings(kind: Any, settings: Mapping[str, Any], own: Mapping[str, Any], taken: Collection[str] = ()) -> Any:
    """A config of the dataclass `kind`, with `own` settings of the user (`peft_settings`) over ours.

    Raises UsageError for a setting that the kind does not have, one that has a key of its own (`taken`), or a value
    that PEFT refuses.
    """
    from dataclasses import fields

    known = {item.name for item in fields(kind) if item.init} - {"peft_type", "task_type", "auto_mapping"}
    problems = [_unknown(name, known, taken) for name in own if name not in known or name in taken]
    if problems:
        raise UsageError(problems)
    used = {name: value for name, value in settings.items() if name in known or name == "task_type"}
    try:
        with telling_peft():
            # PEFT cannot make such an adapter plain; methods/residual.py can.
            warnings.filterwarnings("ignore", "Using Rank-Stabilized LoRA with rank_pattern")
            return kind(**{**used, **own})
    except (ValueError, TypeError, ImportError) as error:
        fix = "see the settings of this adapter in PEFT's documentation"
        problem = Problem("E-METHOD-011", "PEFT refuses these settings", "peft_settings", _first_sentence(error), fix)
        raise UsageError(problem) from error


def _unknown(name: str, known: set[str], taken: Collection[str]) -> Problem:
    if name in taken:
        return Problem(
            "E-METHOD-012", f'"{name}" has a key of its own', "peft_settings", fix=f"write {taken} outside it"
        )
    fix = did_you_mean(name, known) or "some of: " + ", ".join(sorted(known))
    return Problem("E-METHOD-012", f'this adapter has no setting "{name}"', "peft_settings", fix=fix)


def _first_sentence(error: Exception | Warning | str) -> str:
    return re.split(r"(?<=\.)\s|\n", str(error).strip(), maxsplit=1)[0] or type(error).__name__


def linear_names(model: Any, family: Family) -> list[str]:
    """Last components of the names of all linear modules but the output layer, sorted."""
    return sorted({name.rsplit(".", 1)[-1] for name in _linear_modules(model, family)})


def _linear_modules(model: Any, family: Family) -> list[str]:
    """Whole names of them, in the model's order."""
    import torch
    from transformers.pytorch_utils import Conv1D  # GPT-2's transposed linear

    head = output_layer(model)
    kinds, left_out = (torch.nn.Linear, Conv1D), set(family.adapter_exclude)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, kinds) and module is not head and name.rsplit(".", 1)[-1] not in left_out
    ]
