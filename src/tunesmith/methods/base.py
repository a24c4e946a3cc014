"""The contract of a method, and the few things that several of them need."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import TrainerCallback

    from tunesmith.config.method import MethodConfig
    from tunesmith.config.model import ModelConfig
    from tunesmith.models.family import Family

__all__ = [
    "NO_ADAPTERS",
    "Adapters",
    "Calibration",
    "Given",
    "Method",
    "ParameterCount",
    "count_parameters",
    "set_trainable",
    "split_names",
]


@dataclass(frozen=True, slots=True)
class Adapters:
    """Adapters that the config names, in order, the sub-folder of their repository that holds the weights, and what
    a download from the hub needs."""

    names: Sequence[str] = ()
    folder: str | None = None
    hub: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, config: ModelConfig) -> Adapters:
        hub = {"cache_dir": config.cache_dir, "revision": config.model_revision, "token": config.hf_hub_token}
        return cls(
            config.adapter_name_or_path,
            config.adapter_folder,
            {name: value for name, value in hub.items() if value is not None},
        )

    def only(self, names: Sequence[str]) -> Adapters:
        """The same for some of them."""
        return replace(self, names=names)


NO_ADAPTERS = Adapters()


@dataclass(frozen=True, slots=True)
class Calibration:
    """Rows of the run, for methods that begin from what the base does with them.

    batches  as the run trains them; they are made when they are asked for
    loss     of a model and a batch, []: the mean over the units
    """

    batches: Callable[[], Iterable[Mapping[str, Any]]]
    loss: Callable[[Any, Mapping[str, Any]], Tensor]


@dataclass(frozen=True, slots=True)
class Given:
    """What a method is handed beside the model. `keep_dtype`: trained weights stay in the type that they have
    (pure_bf16). `adapters`: those that the config names. `calibration` is there where its `looks_at_rows` says so."""

    family: Family
    keep_dtype: bool = False
    adapters: Adapters = NO_ADAPTERS
    calibration: Calibration | None = None


@dataclass(frozen=True, slots=True)
class ParameterCount:
    trained: int
    total: int

    def __str__(self) -> str:
        return f"{self.trained:,} of {self.total:,} parameters are trained ({self.trained / self.total:.2%})"


class Method(ABC):
    """Decides which parameters of a model train. `apply` may return another module that wraps the model."""

    def __init__(self, config: MethodConfig) -> None:
        self.config = config

    def check(self) -> None:  # noqa: B027 - most methods need nothing
        """Looks for what it needs beside the model. It runs before the weights are read, and raises MachineError for a
        package that is missing, MissingInputError or UsageError for files."""

    @abstractmethod
    def apply(self, model: Any, given: Given) -> Any:
        """Set `requires_grad` everywhere and return the model to train.

        Trained parameters are float32, whatever the frozen ones are, unless `given.keep_dtype`.
        """

    def callbacks(self, model: Any) -> list[TrainerCallback]:
        """What the method does between the steps of a run. `model` is what `apply` returned."""
        return []


def set_trainable(named: Iterable[tuple[str, nn.Parameter]], names: set[str] | None, *, keep_dtype: bool) -> None:
    """Train the parameters in `names` (None: all) in float32 unless `keep_dtype`; freeze the others."""
    for name, parameter in named:
        trained = (names is None or name in names) and parameter.is_floating_point()
        parameter.requires_grad_(trained)
        if trained and not keep_dtype:
            parameter.data = parameter.data.float()


def count_parameters(model: nn.Module) -> ParameterCount:
    """Packed weights count as those that they stand for."""
    from tunesmith.models.quantization.weights import Held

    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return ParameterCount(trained, Held(model).total)


def split_names(value: str | Sequence[str] | None) -> list[str]:
    """`a, b` or [a, b] -> ["a", "b"]; None -> []."""
    if value is None:
        return []
    parts = re.split(r"\s*,\s*", value.strip()) if isinstance(value, str) else [str(item) for item in value]
    return [part for part in parts if part]
