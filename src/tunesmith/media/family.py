"""What of a family's processor is not as of most: facts, in place of branches on its name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from tunesmith.core.types import Modality

__all__ = ["MediaFamily", "TokenInput"]

TokenInput: TypeAlias = Literal["mm_token_type_ids", "token_type_ids", "moe_mm_token_type_ids", "prefix", "cross"]
Switches: TypeAlias = Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]

_NONE: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class MediaFamily:
    """Unknown processors have the defaults.

    around      what a template writes for a medium of a kind: {} is what the processor looks for in a text, {n} the
                number of the medium
    fixed       kinds of which all media have the same tokens, whatever their size; of others the size decides
    numbered    what the processor writes before a medium, with its number (from 0, by kind) for {}
    literal     the processor leaves the text as it is: features reach the model by another way than its tokens
    leads       media stand before all text
    singly      kinds that the processor is handed one by one: it wants all to have the same number of frames
    axes        the axis along which a tensor of several sequences is joined, by name; 0 for all others
    pads        what fills tensors up that are shorter than others, by name; 0 for all others; None: they must not be
    switches    keys of the config that its image processor follows: settings for true and for false
    tokens      what the model is told of each token, beside its id; None: mm_token_type_ids, if its processor has them
    """

    around: Mapping[str, str] = field(default_factory=lambda: _NONE)
    fixed: tuple[Modality, ...] = ()
    numbered: str | None = None
    literal: bool = False
    leads: bool = False
    singly: tuple[Modality, ...] = ()
    axes: Mapping[str, int] = field(default_factory=lambda: _NONE)
    pads: Mapping[str, float | None] = field(default_factory=lambda: _NONE)
    switches: Switches = field(default_factory=lambda: _NONE)
    tokens: tuple[TokenInput, ...] | None = None
