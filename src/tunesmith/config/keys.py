"""The table of all keys: which section a key belongs to, its type, default and state."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from typing import Any

from tunesmith.config import hf
from tunesmith.config.backend import BackendConfig
from tunesmith.config.data import DataConfig
from tunesmith.config.engine import EngineConfig
from tunesmith.config.evaluate import EvaluateConfig
from tunesmith.config.export import ExportConfig
from tunesmith.config.fields import Mark, mark_of
from tunesmith.config.generate import GenerateConfig
from tunesmith.config.launch import LaunchConfig
from tunesmith.config.media import MediaConfig
from tunesmith.config.method import MethodConfig
from tunesmith.config.model import ModelConfig
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.config.optimizer import OptimizerConfig
from tunesmith.config.quantization import QuantizationConfig
from tunesmith.config.serve import ServeConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.config.track import TrackConfig
from tunesmith.config.train import TrainConfig

__all__ = ["SECTIONS", "Key", "all_keys"]

SECTIONS: dict[str, type[Any]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "template": TemplateConfig,
    "method": MethodConfig,
    "objective": ObjectiveConfig,
    "train": TrainConfig,
    "generate": GenerateConfig,
    "engine": EngineConfig,
    "serve": ServeConfig,
    "export": ExportConfig,
    "track": TrackConfig,
    "quantization": QuantizationConfig,
    "media": MediaConfig,
    "optimizer": OptimizerConfig,
    "launch": LaunchConfig,
    "evaluate": EvaluateConfig,
    "backend": BackendConfig,
}

_PLAIN = {bool: "bool", int: "int", float: "float", str: "str", Mapping: "dict"}


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `types` are plain names: bool, int, float, str, list, dict, object, and for comma lists names
    (of text) and numbers; items beside names: a mapping may stand for a name. `passed_on`: a training argument of
    transformers, found in `config.train.hf`."""

    name: str
    section: str
    types: tuple[str, ...]
    nullable: bool
    default: Any
    choices: tuple[str, ...]
    mark: Mark
    passed_on: bool = False


@cache
def all_keys() -> dict[str, Key]:
    """Every key by name: ours by section, then those of transformers that are not ours."""
    found: dict[str, Key] = {}
    for section, cls in SECTIONS.items():
        for key in _own(section, cls):
            assert key.name not in found, f"{key.name} is declared twice"
            found[key.name] = key
    for name, item in hf.arguments().items():
        if name not in found:
            found[name] = Key(name, "train", item.types, item.nullable, item.default, item.choices, item.mark, True)
    return found


def _own(section: str, cls: type[Any]) -> list[Key]:
    hints = typing.get_type_hints(cls)
    keys = []
    for item in fields(cls):
        if (mark := mark_of(item.metadata)) is None:
            continue
        names, nullable, choices = _plain(hints[item.name])
        default = item.default_factory() if item.default_factory is not MISSING else item.default
        keys.append(Key(item.name, section, names, nullable, default, choices, mark))
    return keys


def _plain(annotation: Any) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    """Plain type names, whether null is allowed, and the choices of a Literal."""
    names: list[str] = []
    choices: tuple[str, ...] = ()
    origin = typing.get_origin(annotation)
    parts = typing.get_args(annotation) if origin in (typing.Union, types.UnionType) else (annotation,)
    for part in parts:
        base = typing.get_origin(part) or part
        if base is typing.Literal:
            choices = typing.get_args(part)
            names.append("str")
        elif base is tuple:
            inner = typing.get_args(part)[0]
            names += ["names", "items"] if str in typing.get_args(inner) else ["names" if inner is str else "numbers"]
        elif part is not type(None):
            names.append(_PLAIN[base])
    return tuple(names), type(None) in parts, choices
