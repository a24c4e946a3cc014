"""Inputs of layers in main memory from the forward pass to the backward pass, while the device computes.

A tensor leaves the device on a stream of its own as soon as the layer has it. In the backward pass the input of the
layer below is asked for while the layer above is computed, so that copies hide behind the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol
from weakref import ReferenceType, ref

import torch
from torch import Tensor

__all__ = ["HiddenStates", "OnStreams", "Transport"]


class Transport(Protocol):
    """How tensors travel. `send` returns what stands for a tensor while it is away; `fetch` begins to bring it back,
    and `arrive` gives it, once the arithmetic may use it."""

    def send(self, tensor: Tensor) -> Any: ...
    def fetch(self, away: Any) -> Any: ...
    def arrive(self, coming: Any) -> Tensor: ...


class OnStreams:
    """Pinned main memory and a CUDA stream for each direction."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._out, self._back = torch.cuda.Stream(device), torch.cuda.Stream(device)

    def send(self, tensor: Tensor) -> Tensor:
        away = torch.empty_like(tensor, device="cpu", pin_memory=True)  # torch keeps such memory for the next one
        self._out.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._out):
            away.copy_(tensor, non_blocking=True)
        tensor.record_stream(self._out)  # its memory is not given to others before it has left
        return away

    def fetch(self, away: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        tensor = torch.empty_like(away, device=self._device, pin_memory=False)
        self._back.wait_stream(self._out)
        self._back.wait_stream(torch.cuda.current_stream(self._device))  # what had this memory before is done with it
        with torch.cuda.stream(self._back):
            tensor.copy_(away, non_blocking=True)
        tensor.record_stream(self._back)
        return tensor, self._back.record_event()

    def arrive(self, coming: tuple[Tensor, torch.cuda.Event]) -> Tensor:
        tensor, event = coming
        torch.cuda.current_stream(self._device).wait_event(event)
        return tensor


class _Away:
    """A tensor that has been sent; `before` is the one that was sent before it, and is wanted after it."""

    __slots__ = ("__weakref__", "before", "coming", "content")

    def __init__(self, content: Any, before: ReferenceType[_Away] | None) -> None:
        self.content, self.before = content, before
        self.coming: Any = None


class HiddenStates:
    """Sends what the checkpointing of layers keeps. One object serves all layers of a model."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._last: ReferenceType[_Away] | None = None

    def around(self, checkpoint: Callable[..., Any]) -> Callable[..., Any]:
        """A function like torch's `checkpoint`, whose inputs are away until they are needed."""

        def checkpoint_away(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
            with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
                return checkpoint(function, *arguments, **keywords)

        return checkpoint_away

    def _pack(self, tensor: Tensor) -> Tensor | _Away:
        if tensor.ndim != 3 or not tensor.is_floating_point():  # a mask, which all layers share; hidden: [B, T, H]
            return tensor
        away = _Away(self._transport.send(tensor), self._last)
        self._last = ref(away)
        return away

    def _unpack(self, kept: Tensor | _Away) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        coming, kept.coming = kept.coming or self._transport.fetch(kept.content), None
        before = kept.before() if kept.before is not None else None
        if before is not None and before.coming is None:
            before.coming = self._transport.fetch(before.content)
        return self._transport.arrive(coming)
