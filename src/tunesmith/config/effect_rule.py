"""What a rule about keys without effect is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.config.keys import all_keys
from tunesmith.config.run_config import RunConfig
from tunesmith.config.verbs import LOOKING

__all__ = ["Rule", "keys_of", "trains"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`keys` have an effect only where `holds`; `otherwise` says what they belong to. `of_verb`: the file may well
    serve another verb too, so `strict_keys` does not make an error of it."""

    keys: frozenset[str]
    holds: Callable[[RunConfig], bool]
    otherwise: str
    of_verb: bool = False


def keys_of(text: str) -> frozenset[str]:
    """The names in a text, which there are."""
    names = frozenset(text.split())
    assert names <= all_keys().keys(), f"no such keys: {names - all_keys().keys()}"
    return names


def trains(config: RunConfig) -> bool:
    """Whether the verb trains, or looks at what would be trained on."""
    return config.verb == "train" or config.verb in LOOKING
