"""Facts about one `model_type`, in place of branches on its name. Unknown types get the plain defaults.

`families/` holds the exceptions as data: one entry for every type that differs from the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.models.families import EXCEPTIONS, PACKS

__all__ = ["Family", "family_of"]


@dataclass(frozen=True, slots=True)
class Family:
    """`adapter_exclude`: names (last component) of linear modules that an adapter must not wrap. `packs`: sequences in
    one row, with positions that restart and no mask, do not see each other."""

    model_type: str
    adapter_exclude: tuple[str, ...] = ()
    packs: bool = False


def family_of(model_type: str) -> Family:
    return Family(model_type, packs=model_type in PACKS, **EXCEPTIONS.get(model_type, {}))
