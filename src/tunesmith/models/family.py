"""Facts about one `model_type`, in place of branches on its name. Unknown types get the plain defaults.

`families/` holds the exceptions as data: one entry for every type that differs from the defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.models.families import EXCEPTIONS, EXPANDS, FLAT, MIXTURES, PACKS, SEEING, SHIMS

__all__ = ["Family", "family_of"]


@dataclass(frozen=True, slots=True)
class Family:
    """`adapter_exclude`: names (last component) of linear modules that an adapter must not wrap. `packs`: sequences in
    one row, with positions that restart and no mask, do not see each other. `flat`: they do not with the attention of
    `models.attention` either, and with what the next three facts say. `expands`: a copy of a layer whose outputs are
    zero changes nothing (`convert/llama_pro.py`).

    attention     an `attn_implementation` for flat batches, for a model that cannot use that of `models.attention`
    per_sequence  classes of modules that read a flat batch one sequence at a time (`models.segments`)
    mask_only     a key of the config that limits how far a layer sees, and of which transformers tells the mask only
    head_scale    the logits are those of the output layer times this key of the config, to this power
    depth         the key of the config that tells how many layers a mixture of experts has (`models.mixture`)
    idle_experts  how many experts it may send a token to that do nothing; or the key that tells
    """

    model_type: str
    adapter_exclude: tuple[str, ...] = ()
    packs: bool = False
    flat: bool = False
    expands: bool = False
    attention: str | None = None
    per_sequence: tuple[str, ...] = ()
    mask_only: str | None = None
    head_scale: tuple[str, int] | None = None
    depth: str = "num_hidden_layers"
    idle_experts: int | str = 0

    @property
    def shares(self) -> bool:
        """Answers to one prompt may stand behind it, once (`models.shared`): nothing but our attention tells the
        sequences of a flat batch apart."""
        return self.flat and self.attention is None and not self.per_sequence and self.mask_only is None


def family_of(model_type: str) -> Family:
    facts = {**EXCEPTIONS.get(model_type, {}), **SHIMS.get(model_type, {}), **MIXTURES.get(model_type, {})}
    flat = model_type in FLAT or model_type in SHIMS or model_type in SEEING
    return Family(model_type, packs=model_type in PACKS, flat=flat, expands=model_type in EXPANDS, **facts)
