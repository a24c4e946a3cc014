"""Facts about one `model_type`, in place of branches on its name. Unknown types get the plain defaults.

`families/` holds the exceptions as data: one entry for every type that differs from the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.models.families import EXCEPTIONS, FLAT, PACKS

__all__ = ["Family", "family_of"]


@dataclass(frozen=True, slots=True)
class Family:
    """`adapter_exclude`: names (last component) of linear modules that an adapter must not wrap. `packs`: sequences in
    one row, with positions that restart and no mask, do not see each other. `flat`: they do not with the attention of
    `models.attention` either. `head_scale`: the logits are those of the output layer times this key of the config, to
    this power."""

    model_type: str
    adapter_exclude: tuple[str, ...] = ()
    packs: bool = False
    flat: bool = False
    head_scale: tuple[str, int] | None = None


def family_of(model_type: str) -> Family:
    exceptions = EXCEPTIONS.get(model_type, {})
    return Family(model_type, packs=model_type in PACKS, flat=model_type in FLAT, **exceptions)
