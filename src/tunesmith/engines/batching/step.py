"""One forward of the model over tokens of many requests, which stand one behind the other in one row.

A request that writes has one token in the row, one that is read has a part of its prompt. The keys and values of all
tokens before are in `slots`; the model gets a cache that puts the new ones there, and the attention of
`models.attention` is handed who attends to what.

T tokens of the row, H heads, G heads of keys and values, D size of a head, L tokens of the longest of a lane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import Cache

from tunesmith.engines.batching.sight import Sight
from tunesmith.engines.batching.slots import Lane, LayerShape, Place, Row
from tunesmith.engines.batching.threads import Mode, eagerly
from tunesmith.models.attention import LayerAttention

__all__ = ["Part", "RowBatch", "layer_shapes"]


@dataclass(frozen=True, slots=True)
class Part:
    """The tokens of one request in the row: the next one, of which the place is in a lane, or those of a prompt behind
    what its row holds. `wanted`: whether its last token is to have scores. `positions` [3, 1, n]: where they are not
    just counted. `sight`: the media that tokens of it stand for; `types`: what the model is told of each token then."""

    ids: Sequence[int]
    held: Place | Row
    wanted: bool
    adapter: str | None = None
    positions: Tensor | None = None
    sight: Sight | None = None
    types: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def counted(self) -> range:
        return range(self.held.length, self.held.length + len(self.ids))


class _OneForward(Cache):  # type: ignore[misc]  # mypy does not look into transformers
    """A cache that holds nothing for the model: positions and masks are ours."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return 0

    def get_mask_sizes(self, query_length: int, layer_idx: int) -> tuple[int, int]:
        return query_length, 0


class RowBatch(_OneForward):
    """What the model knows as its cache, for one forward. Next tokens come first, in the order of their lanes."""

    def __init__(self, parts: Sequence[Part], device: torch.device) -> None:
        super().__init__(layers=[])
        written = {(id(part.held.lane), part.held.index): part for part in parts if isinstance(part.held, Place)}
        lanes = {id(part.held.lane): part.held.lane for part in parts if isinstance(part.held, Place)}
        self.parts: list[Part] = []
        lane_tokens: list[_LaneTokens] = []
        for lane in lanes.values():
            begin = len(self.parts)
            self.parts += [written[id(lane), place.index] for place in lane.places]
            lane_tokens.append(_LaneTokens(lane, begin, device))
        prompt_tokens: list[_PromptTokens] = []
        at = len(self.parts)
        for part in parts:
            if isinstance(part.held, Row):
                self.parts.append(part)
                prompt_tokens.append(_PromptTokens(part.held, at, at + len(part.ids)))
                at += len(part.ids)
        self._tokens: tuple[_LaneTokens | _PromptTokens, ...] = (*lane_tokens, *prompt_tokens)
        self._fresh: tuple[int, Tensor] | None = None

    def inputs(self, model: Any, device: torch.device) -> dict[str, Any]:
        """What the model is called with."""
        ids = [token for part in self.parts for token in part.ids]
        ends = accumulate(len(part.ids) for part in self.parts)
        wanted = [end - 1 for part, end in zip(self.parts, ends, strict=True) if part.wanted]
        return {
            "input_ids": torch.tensor([ids]).to(device, non_blocking=True),
            "position_ids": self._positions(device),
            "past_key_values": self,
            "use_cache": True,
            "kept": self,
            "logits_to_keep": torch.tensor(wanted, dtype=torch.long).to(device, non_blocking=True),
            **self._media(model, device),
        }

    def _positions(self, device: torch.device) -> Tensor:
        if all(part.positions is None for part in self.parts):
            return torch.tensor([[at for part in self.parts for at in part.counted]]).to(device, non_blocking=True)
        own = (
            torch.tensor(part.counted, device=device).expand(3, 1, -1) if part.positions is None else part.positions
            for part in self.parts
        )
        return torch.cat(list(own), -1)

    def _media(self, model: Any, device: torch.device) -> dict[str, Tensor]:
        """Of all parts together, and what the model is told of each token of the row."""
        seen = [part.sight for part in self.parts if part.sight is not None]
        if not seen:
            return {}
        found = seen[0].media.join([one.for_model(model) for one in seen])
        for name, like in next(part.types for part in self.parts if part.sight is not None).items():
            plain = (like.new_zeros(1, len(part.ids), *like.shape[2:]) for part in self.parts)
            own = [part.types.get(name, zeros) for part, zeros in zip(self.parts, plain, strict=True)]
            found[name] = torch.cat(own, 1)
        return found

    def advance(self) -> None:
        """The tokens of this forward are there from now on."""
        for part in self.parts:
            part.held.length += len(part.ids)

    # ---- a cache of transformers ----

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        for one in self._tokens:
            one.store(layer_idx, key, value)
        self._fresh = layer_idx, key
        return key, value

    # ---- the attention ----

    def attend(self, one: LayerAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        assert self._fresh is not None, "a layer that attends and stores nothing"
        layer, stored = self._fresh
        assert stored is key, "not the keys that were stored"
        self._fresh = None
        parts = [tokens.attend(layer, one, query) for tokens in self._tokens]
        whole = parts[0].contiguous() if len(parts) == 1 else torch.cat(parts)  # models look at it with `view`
        return whole[None]


class _LaneTokens:
    """The next tokens of all requests of a lane; they stand together in the row, from `begin` on."""

    def __init__(self, lane: Lane, begin: int, device: torch.device) -> None:
        self._layers, self._count = lane.layers, len(lane.places)
        self._begin, self._end = begin, begin + self._count
        lengths = [place.length for place in lane.places]
        self._shortest, self._longest = min(lengths), max(lengths) + 1
        self._alike = self._shortest == self._longest - 1
        if not self._alike:
            self._at = torch.tensor(lengths).to(device, non_blocking=True)  # [n]
            self._slots = torch.arange(self._count, device=device)
        self._masks: dict[tuple[int | None, torch.dtype], tuple[int, Tensor | None]] = {}

    def store(self, layer: int, key: Tensor, value: Tensor) -> None:
        keys, values = self._layers[layer]
        fresh = slice(self._begin, self._end)
        if self._alike:
            keys[: self._count, :, self._shortest] = key[0, :, fresh].transpose(0, 1)
            values[: self._count, :, self._shortest] = value[0, :, fresh].transpose(0, 1)
        else:
            keys[self._slots, :, self._at] = key[0, :, fresh].transpose(0, 1)
            values[self._slots, :, self._at] = value[0, :, fresh].transpose(0, 1)

    def attend(self, layer: int, one: LayerAttention, query: Tensor) -> Tensor:
        """-> [n, H, D]"""
        first, mask = self._mask(one.window, query.dtype)
        keys, values = (kept[: self._count, :, first : self._longest] for kept in self._layers[layer])
        asked = query[0, :, self._begin : self._end].transpose(0, 1).unsqueeze(2)  # [n, H, 1, D]
        return one.next_token(asked, keys, values, mask).squeeze(2)

    def _mask(self, window: int | None, dtype: torch.dtype) -> tuple[int, Tensor | None]:
        """The first position that any of them sees, and [n, 1, 1, L], added to the scores; None where all see the same.
        It serves many layers."""
        first = 0 if window is None else max(0, self._shortest - window + 1)
        if self._alike:
            return first, None
        if (window, dtype) not in self._masks:
            place, at = torch.arange(first, self._longest, device=self._at.device), self._at[:, None]
            hidden = place > at if window is None else (place > at) | (place <= at - window)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
            self._masks[window, dtype] = first, mask.masked_fill_(hidden, torch.finfo(dtype).min)[:, None, None]
        return self._masks[window, dtype]


class _PromptTokens:
    """A part of a prompt, which stands from `begin` to `end` in the row, behind what is in `held` already."""

    def __init__(self, held: Row, begin: int, end: int) -> None:
        self._held, self._begin, self._end = held, begin, end
        self._start = held.length
        self._stop = self._start + end - begin
        self._masks: dict[int | None, tuple[int, Tensor]] = {}

    def store(self, layer: int, key: Tensor, value: Tensor) -> None:
        keys, values = self._held.layers[layer]
        keys[:, self._start : self._stop] = key[0, :, self._begin : self._end]
        values[:, self._start : self._stop] = value[0, :, self._begin : self._end]

    def attend(self, layer: int, one: LayerAttention, query: Tensor) -> Tensor:
        """-> [tokens of the part, H, D]"""
        asked = query[:, :, self._begin : self._end]
        keys, values = self._held.layers[layer]
        if self._start == 0:
            found = one.causal(asked, keys[None, :, : self._stop], values[None, :, : self._stop])
        else:
            first, seen = self._seen(one.window, query.device)
            keys, values = keys[None, :, first : self._stop], values[None, :, first : self._stop]
            found = one(asked, keys, values, seen, causal=False)
        return found[0].transpose(0, 1)

    def _seen(self, window: int | None, device: torch.device) -> tuple[int, Tensor]:
        """The first position that any of them sees, and [tokens, L] of who sees what."""
        if window not in self._masks:
            first = 0 if window is None else max(0, self._start - window + 1)
            place = torch.arange(first, self._stop, device=device)
            at = torch.arange(self._start, self._stop, device=device)[:, None]
            seen = place <= at if window is None else (place <= at) & (place > at - window)
            self._masks[window] = first, seen
        return self._masks[window]


class _Probe(_OneForward):
    """Takes down what layers store, and whether each attends to just that."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.shapes: list[LayerShape] = []
        self.fits = True
        self._fresh: tuple[Tensor, Tensor] | None = None

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        shape = LayerShape(layer_idx, key.shape[1], key.shape[3], value.shape[3], key.dtype, key.device)
        self.fits &= value.dtype == key.dtype and self._fresh is None
        self.fits &= all(shape.layer != other.layer for other in self.shapes)
        self.shapes.append(shape)
        self._fresh = key, value
        return key, value

    def attend(self, one: LayerAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        self.fits &= self._fresh is not None and self._fresh[0] is key and self._fresh[1] is value
        self._fresh = None
        return one.causal(query, key, value).transpose(1, 2)


def layer_shapes(model: Any, device: torch.device, mode: Mode = torch.inference_mode) -> tuple[LayerShape, ...] | None:
    """What each layer keeps of a token, by asking the model; None where its layers attend to something else than what
    they store, so that it cannot be batched here."""
    probe = _Probe()
    ids = torch.zeros(1, 2, dtype=torch.long, device=device)
    positions = torch.arange(2, device=device)[None]
    with mode(), eagerly():
        model(
            input_ids=ids, position_ids=positions, past_key_values=probe, use_cache=True, kept=probe, logits_to_keep=1
        )
    fits = probe.fits and probe.shapes and probe._fresh is None
    return tuple(probe.shapes) if fits else None
