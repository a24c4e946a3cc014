"""The numbers of `rope_scaling: longrope`: by what each frequency of the rotary positions is divided, as a search found
it for one model (LongRoPE, https://arxiv.org/abs/2402.13753)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["RopeFactors", "rope_factors"]

_LISTS = ("short_factor", "long_factor")
_KNOWN = (*_LISTS, "attention_factor")
_FIX = "rope_factors: {short_factor: [...], long_factor: [...]}, one number for each frequency, or a file that holds it"


@dataclass(frozen=True, slots=True)
class RopeFactors:
    """`short`, of sequences within the original context, and `long`, of longer ones: numbers above 0, as many as there
    are frequencies. `attention`: times queries and keys; None: transformers computes it from the length."""

    short: tuple[float, ...]
    long: tuple[float, ...]
    attention: float | None = None


def rope_factors(config: ModelConfig) -> RopeFactors:
    """What `rope_factors` says, a mapping or the path of a YAML or JSON file of it. Raises UsageError (E-MODEL-034)
    where it says nothing, or no such thing."""
    given, where = config.rope_factors, "rope_factors"
    if given is None:
        what = '"rope_scaling: longrope" needs the factors that a search has found for this model'
        fix = f"{_FIX}; a model that has them in its config.json needs neither key"
        raise UsageError(Problem("E-MODEL-034", what, "rope_scaling: longrope", fix=fix))
    if not isinstance(given, Mapping):
        where, given = given, _read(given)
    if unknown := sorted(str(key) for key in given if key not in _KNOWN):
        what = f"{', '.join(unknown)} is nothing that rope_factors can say"
        raise UsageError(Problem("E-MODEL-034", what, where, fix=f"known are {', '.join(_KNOWN)}"))
    short, long = (_numbers(given.get(name), name, where) for name in _LISTS)
    if len(short) != len(long):
        what, got = "short_factor and long_factor have other lengths", f"{len(short)} and {len(long)}"
        raise UsageError(Problem("E-MODEL-034", what, where, got, "one number for each frequency in both"))
    attention = given.get("attention_factor")
    if attention is not None and not _positive(attention):
        fix = "leave it out: it follows from how much longer the context gets"
        raise UsageError(Problem("E-MODEL-034", "attention_factor is a number above 0", where, repr(attention), fix))
    return RopeFactors(short, long, None if attention is None else float(attention))


def _read(name: str) -> Mapping[str, Any]:
    import yaml

    what, fix = "a file of factors is a mapping with short_factor and long_factor", "YAML or JSON, like " + _FIX
    try:
        found: Any = yaml.safe_load(Path(name).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        got = error.strerror or type(error).__name__
        raise UsageError(Problem("E-MODEL-034", "the file of factors cannot be read", name, got, fix)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(Problem("E-MODEL-034", what, name, str(error).splitlines()[0], fix)) from error
    if not isinstance(found, Mapping):
        raise UsageError(Problem("E-MODEL-034", what, name, f"it holds {type(found).__name__}", fix))
    return found


def _numbers(values: Any, name: str, where: str) -> tuple[float, ...]:
    if not isinstance(values, list | tuple) or not values:
        got = "nothing" if values is None else repr(values)[:60]
        raise UsageError(Problem("E-MODEL-034", f"{name} is a list of numbers", where, got, _FIX))
    for at, value in enumerate(values):
        if not _positive(value):
            what, fix = f"{name} is a list of numbers above 0", "1.0 leaves a frequency as it is"
            raise UsageError(Problem("E-MODEL-034", what, where, f"number {at}: {value!r}", fix))
    return tuple(float(value) for value in values)


def _positive(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value > 0
