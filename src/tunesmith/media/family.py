"""What of a family's processor is not as of most: facts, in place of branches on its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

from tunesmith.core.types import Modality

__all__ = ["MediaFamily", "Rule", "TokenInput"]

Rule: TypeAlias = Literal["size", "fixed"]
TokenInput: TypeAlias = Literal["mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids", "prefix", "cross"]
Switches: TypeAlias = Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]

_NONE: Mapping[str, str] = MappingProxyType({})
_NO_RULES: Mapping[Modality, Rule] = MappingProxyType({})
_NO_PADS: Mapping[str, float] = MappingProxyType({})
_NO_SWITCHES: Switches = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MediaFamily:
    """Unknown types have the defaults.

    around      what a template writes for a medium of a kind: {} is what the processor looks for in a text, {n} the
                number of the medium
    rules       how many tokens a medium has: "fixed" as many as all others, "size" by its size (unless said otherwise)
    numbered    what the processor writes before a medium, with its number (from 0, by kind) for {}
    literal     the processor leaves the text as it is: features reach the model by another way than its tokens
    axis        the axis along which tensors of several sequences are joined
    pads        what fills tensors up that are shorter than others, by name; 0 for all others
    switches    keys of the config that its image processor follows: settings for true and for false
    tokens      what the model is told of every token, beside its id
    """

    around: Mapping[str, str] = field(default_factory=lambda: _NONE)
    rules: Mapping[Modality, Rule] = field(default_factory=lambda: _NO_RULES)
    numbered: str | None = None
    literal: bool = False
    axis: int = 0
    pads: Mapping[str, float] = field(default_factory=lambda: _NO_PADS)
    switches: Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]] = field(
        default_factory=lambda: _NO_SWITCHES
    )
    tokens: tuple[TokenInput, ...] = ()
