"""Folders of tiny models that see or hear, as their repositories are laid out: weights, tokenizer, settings of the
processor's parts.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["save_case"]


def save_case(name: str, folder: Path) -> Path:
    """The random model of one of `media_families.CASES`, in float32."""
    import torch
    import transformers

    from tests.media_cases import tokenizer_of
    from tests.media_families import CASES

    case = CASES[name]
    tokenizer = tokenizer_of(case)
    torch.manual_seed(0)
    model = getattr(transformers, case.model)(case.config(tokenizer.convert_tokens_to_ids))
    for parameter in model.parameters():
        if parameter.ndim > 1:  # the usual scale is so small that neither attention nor pictures would matter
            torch.nn.init.normal_(parameter, std=0.08)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for part in case.parts().values():
        part.save_pretrained(folder)
    return folder
