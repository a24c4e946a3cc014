"""flash-attention by brute force: what the packages of that name offer, written out, behind all of transformers' code
that calls it. So a test without a GPU sees what a kernel would be handed."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor


class Flash:
    """`calls`: the borders of each call with several sequences, `windows` the window of each call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.windows: list[Any] = []

    def varlen(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        cu_seqlens_q: Tensor,
        cu_seqlens_k: Tensor,
        max_seqlen_q: int,
        max_seqlen_k: int,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        deterministic: bool = False,
    ) -> Tensor:
        """q [T, H, D], k and v [T, G, D] -> [T, H, D]: each sequence between two borders by itself."""
        assert cu_seqlens_q.dtype == cu_seqlens_k.dtype == torch.int32, "what the kernels take"
        borders = cu_seqlens_q.tolist()
        assert borders == cu_seqlens_k.tolist()
        assert borders[-1] == len(q), "all of the row"
        assert max(end - start for start, end in pairwise(borders)) == max_seqlen_q == max_seqlen_k
        self.calls.append(borders)
        self.windows.append(window_size)
        how = (softmax_scale, causal, window_size[0], softcap)
        return torch.cat([_attend(*(one[at:end] for one in (q, k, v)), *how) for at, end in pairwise(borders)])

    def plain(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        softmax_scale: float | None = None,
        causal: bool = False,
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        deterministic: bool = False,
    ) -> Tensor:
        """q [B, T, H, D], k and v [B, T, G, D] -> [B, T, H, D]."""
        how = (softmax_scale, causal, window_size[0], softcap)
        return torch.stack([_attend(*row, *how) for row in zip(q, k, v, strict=True)])


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None, causal: bool, left: int, cap: float) -> Tensor:
    """One sequence [L, H, D]. `left`: how many tokens before itself one sees; -1 for all."""
    groups = q.shape[1] // k.shape[1]
    keys, values = (one.repeat_interleave(groups, dim=1) for one in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, keys) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    distance = torch.arange(len(q))[:, None] - torch.arange(len(k))
    seen = (distance >= 0) if causal else torch.ones_like(distance, dtype=torch.bool)
    if left >= 0:
        seen &= distance <= left
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), values)


def install(monkeypatch: pytest.MonkeyPatch) -> Flash:
    """Have transformers find flash-attention 2 and 3, both this one, and a CPU taken for a device that can run it."""
    from transformers import PreTrainedModel, modeling_flash_attention_utils

    from tunesmith.models import kernels

    flash = Flash()
    functions = (
        flash.plain,
        flash.varlen,
        None,
        modeling_flash_attention_utils._pad_input,
        modeling_flash_attention_utils._unpad_input,
    )
    for name in ("_loaded_implementation", "_flash_fn", "_flash_varlen_fn", "_process_flash_kwargs_fn"):
        monkeypatch.setattr(modeling_flash_attention_utils, name, None)
    monkeypatch.setattr(modeling_flash_attention_utils, "_lazy_imports", lambda *_a, **_k: functions)
    monkeypatch.setattr(PreTrainedModel, "_flash_attn_can_dispatch", lambda *_a, **_k: True)
    for name in ("flash_attention_2", "flash_attention_3"):
        found = kernels._KERNELS[name]._replace(is_installed=lambda: True)
        monkeypatch.setitem(kernels._KERNELS, name, found)
    monkeypatch.setattr(kernels, "_lack", lambda *_: None)
    monkeypatch.setattr(kernels, "_capability", lambda _device: (9, 0))
    return flash
