"""Mixture-of-Depths (https://arxiv.org/abs/2404.02258, section 3): some layers compute a part of the tokens only.

A routed layer has a router, one number r = w x for each token x. Of a sequence of L tokens the capacity x L with the
largest r (rounded up; of two alike the earlier) go through the layer f, in their order and with their own positions,
and attend to each other alone. All others pass by:

    x' = x + r (f(x) - x)    a token that was chosen; f(x) - x is what the layer adds to the residual stream
    x' = x                   any other

The choice looks at the whole sequence, later tokens too. So there is no cache of keys and values: what was chosen
changes with each token that is read.

B rows, T positions, H hidden, N real tokens, C chosen ones, K slots of a row, R rows that the layer is given.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tunesmith.core.errors import Problem, UsageError
from tunesmith.models.depth_plan import FLAG, Depths
from tunesmith.models.loss_forward import trunk_of

__all__ = [
    "ROUTER",
    "DepthRouter",
    "add_routers",
    "begin_routers",
    "decoder_layers",
    "has_routers",
    "route",
    "routed_class",
    "same_choices",
]

ROUTER = "depth_router"
"""The name of the router within its layer."""
_ROWS = "depth_rows"  # how the rows of a padded batch travel to the layers
_CACHES = ("past_key_values", "past_key_value", "layer_past")
_SPREAD = 0.02  # of a router's weights at first, where config.json has no initializer_range


class DepthRouter(nn.Module):  # type: ignore[misc]  # mypy does not look into torch
    """r [...] of tokens [..., H], in float32 whatever the weight is. No nn.Linear, so that adapters, quantizers and
    what else looks for those leave it alone."""

    def __init__(self, hidden: int, dtype: torch.dtype | None = None, device: Any = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, hidden, dtype=dtype, device=device))

    def forward(self, hidden_states: Tensor) -> Tensor:
        # No product of matrices: autocast would round it, and its sums would depend on what else is in the batch.
        return (hidden_states.float() * self.weight[0].float()).sum(-1)


def decoder_layers(model: Any) -> nn.ModuleList:
    """The layers of the language model, in their order: the one list within the trunk that has as many modules as
    config.json has layers."""
    count = model.config.num_hidden_layers
    lists = [one for one in trunk_of(model).children() if isinstance(one, nn.ModuleList) and len(one) == count]
    assert len(lists) == 1, "a type of the list has one"
    return lists[0]


def add_routers(model: Any, depths: Depths) -> None:
    """Give each routed layer a router without numbers yet, of the type and on the device of the layer."""
    layers = decoder_layers(model)
    for number in depths.layers(len(layers)):
        like = next(one for one in layers[number].parameters() if one.is_floating_point())
        layers[number].add_module(ROUTER, DepthRouter(model.config.hidden_size, like.dtype, like.device))


def routed_class(kind: type, depths: Depths) -> type:
    """A class of models like `kind` that is made with its routers, so that they are read with the other weights."""

    def made(self: Any, settings: Any, *arguments: Any, **keywords: Any) -> None:
        kind.__init__(self, settings, *arguments, **keywords)  # type: ignore[misc]
        add_routers(self, depths)

    return type(kind.__name__, (kind,), {"__init__": made, "__module__": kind.__module__, "__doc__": kind.__doc__})


def begin_routers(model: Any, seed: int) -> None:
    """Random numbers, with the spread of the model's other new layers."""
    spread = getattr(model.config, "initializer_range", None) or _SPREAD
    generator = torch.Generator().manual_seed(seed)
    for router in _routers(model):
        drawn = torch.randn(router.weight.shape, generator=generator) * spread
        router.weight.data.copy_(drawn)


def has_routers(model: Any) -> bool:
    return any(True for _ in _routers(model))


def _routers(model: Any) -> Iterator[DepthRouter]:
    return (module for module in model.modules() if isinstance(module, DepthRouter))


def route(model: Any, depths: Depths) -> None:
    """Have the layers with routers choose their tokens from now on, and say so in the model's config."""
    for layer in decoder_layers(model):
        if hasattr(layer, ROUTER):
            layer.forward = _Routed(layer, layer.forward, depths)
            for module in layer.modules():
                if hasattr(module, "is_causal"):
                    module.depths = depths  # for `models.flops`
    trunk_of(model).register_forward_pre_hook(_tell_rows, with_kwargs=True)
    setattr(model.config, FLAG, depths.to_dict())
    model.config.use_cache = False


class _Rows(NamedTuple):
    """The sequences of a padded batch. `bounds`: 0, and their ends among all N real tokens; `places` [N]: where these
    stand among all positions; `padding` [B]: a padded position of each row, any where there is none."""

    bounds: tuple[int, ...]
    places: Tensor
    padding: Tensor


def _tell_rows(trunk: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Before the forward of the trunk. A mask of T x T says nothing of padding: its rows count as whole."""
    mask = keywords.get("attention_mask")
    if keywords.get("bounds") is None and isinstance(mask, Tensor) and mask.ndim == 2:
        keywords = {**keywords, _ROWS: _rows_of(mask.bool())}
    return arguments, keywords


def _rows_of(mask: Tensor) -> _Rows:
    lengths = mask.sum(dim=1).tolist()
    starts = torch.arange(mask.shape[0], device=mask.device) * mask.shape[1]
    return _Rows((0, *accumulate(lengths)), mask.flatten().nonzero()[:, 0], starts + mask.int().argmin(dim=1))


class _Routed:
    """The forward of a routed layer. Raises UsageError where it is asked to keep keys and values, and ValueError for
    arguments that are not known, as another release of transformers may have."""

    def __init__(self, layer: Any, forward: Callable[..., Any], depths: Depths) -> None:
        self._layer, self._forward, self._depths = layer, forward, depths
        self._names = tuple(inspect.signature(forward).parameters)
        self.choices: _Choices | None = None
        """What `same_choices` keeps."""

    @torch.compiler.disable  # each length would be a graph of its own
    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        named = {**dict(zip(self._names, arguments, strict=False)), **keywords}
        hidden: Tensor = named.pop(self._names[0])  # [B, T, H]
        if any(named.get(name) is not None for name in _CACHES):
            what = "a mixture of depths keeps no keys and values: which tokens it computes changes with each new one"
            raise UsageError(Problem("E-MODEL-033", what, "use_cache", fix="use_cache=False"))
        tokens = hidden.flatten(0, 1)  # [B T, H]
        weights = getattr(self._layer, ROUTER)(tokens)  # [B T]
        slots, filled, bounds = self._slots(weights.detach(), hidden, named.pop(_ROWS, None), named.get("bounds"))
        rows = hidden.shape[0]
        taken = tokens.index_select(0, slots)  # [R K, H]
        given = _Given(hidden.shape[:2], slots, bounds)
        more = {name: given.part(name, value) for name, value in named.items()}
        output = self._forward(taken.unflatten(0, (rows, -1)), **more)
        computed = (output[0] if isinstance(output, tuple) else output).flatten(0, 1)
        if filled is not None:
            taken, computed, slots = (one.index_select(0, filled) for one in (taken, computed, slots))
        added = weights.index_select(0, slots)[:, None] * (computed - taken)
        mixed = tokens.index_copy(0, slots, (taken + added).to(tokens.dtype)).view_as(hidden)
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    def _slots(
        self, weights: Tensor, hidden: Tensor, rows: _Rows | None, bounds: Sequence[int] | None
    ) -> tuple[Tensor, Tensor | None, tuple[int, ...] | None]:
        """Which position stands in each slot [B K]; which slots are filled, by their number [C], where some are not;
        and the bounds of the chosen ones of a flat batch."""
        batch, length = hidden.shape[:2]
        device = hidden.device
        if bounds is not None:
            own = tuple(bounds)
            assert (batch, length) == (1, own[-1]), "the bounds are those of another batch"
            return self._choose(weights, own), None, _bounds(own, self._depths)
        if rows is None:
            own = tuple(range(0, batch * length + 1, length))
            return self._choose(weights, own), None, None
        chosen = rows.places[self._choose(weights[rows.places], rows.bounds)]
        counts = tuple(self._depths.chosen(end - start) for start, end in pairwise(rows.bounds))
        if len(set(counts)) == 1:
            return chosen, None, None
        filled = _filled(counts, device)
        slots = rows.padding.repeat_interleave(max(counts)).index_copy(0, filled, chosen)
        return slots, filled, None

    def _choose(self, weights: Tensor, bounds: tuple[int, ...]) -> Tensor:
        if self.choices is None:
            return _choose(weights, bounds, self._depths)
        if self.choices.again:
            return torch.cat(self.choices.made)
        found = _choose(weights, bounds, self._depths)
        self.choices.made.append(found + self.choices.tokens)
        self.choices.tokens += bounds[-1]
        return found


@dataclass(slots=True)
class _Choices:
    """Of one layer: what was chosen, by the numbers of all `tokens` that were read. `again`: it is chosen once more."""

    made: list[Tensor] = field(default_factory=list)
    tokens: int = 0
    again: bool = False


@contextmanager
def same_choices(model: Any) -> Iterator[Callable[[], None]]:
    """To compare two ways of reading the same sequences: after a call of what is given, every forward reads all
    sequences of the forwards before it, in their order, and layers choose what they chose then. Rounding alone would
    have a token take the place of another that is nearly as large. An ordinary model is left alone."""
    layers = [one for module in model.modules() if isinstance(one := vars(module).get("forward"), _Routed)]
    for layer in layers:
        layer.choices = _Choices()

    def again() -> None:
        for layer in layers:
            assert layer.choices is not None, "within the context"
            layer.choices.again = True

    try:
        yield again
    finally:
        for layer in layers:
            layer.choices = None


def _choose(weights: Tensor, bounds: tuple[int, ...], depths: Depths) -> Tensor:
    """Of each sequence between two bounds the tokens of largest weight, by their numbers, ascending [C]. weights [N].
    Nothing waits for a device."""
    sequence, first = _places(bounds, depths, weights.device)
    order = weights.argsort(descending=True, stable=True)
    order = order[sequence[order].argsort(stable=True)]  # by sequence, and by weight within each
    return order[first].sort().values


@lru_cache(maxsize=16)
def _places(bounds: tuple[int, ...], depths: Depths, device: torch.device) -> tuple[Tensor, Tensor]:
    """Of each token the number of its sequence [N], and the first places of each sequence that are chosen [C]."""
    lengths = [end - start for start, end in pairwise(bounds)]
    sequence = [number for number, length in enumerate(lengths) for _ in range(length)]
    first = [
        start + place for start, length in zip(bounds, lengths, strict=False) for place in range(depths.chosen(length))
    ]
    return torch.tensor(sequence, device=device), torch.tensor(first, device=device)


def _bounds(bounds: Sequence[int], depths: Depths) -> tuple[int, ...]:
    return (0, *accumulate(depths.chosen(end - start) for start, end in pairwise(bounds)))


@lru_cache(maxsize=16)
def _filled(counts: tuple[int, ...], device: torch.device) -> Tensor:
    width = max(counts)
    return torch.tensor([row * width + at for row, count in enumerate(counts) for at in range(count)], device=device)


class _Given:
    """The arguments of a layer for the positions in `slots` [B K] alone. Empty slots stand behind the chosen ones of
    their row and hold a padded position, which no token sees."""

    def __init__(self, shape: Sequence[int], slots: Tensor, bounds: tuple[int, ...] | None) -> None:
        self._batch, self._length = shape
        self._slots, self._bounds = slots, bounds
        starts = torch.arange(self._batch, device=slots.device)[:, None] * self._length
        self._within = slots.view(self._batch, -1) - starts  # [B, K]

    def part(self, name: str, value: Any) -> Any:
        """Raises ValueError for a tensor that is not known."""
        if self._bounds is not None and name in ("bounds", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q"):
            return self._border(name)
        if self._bounds is not None and name == "max_length_k":
            return self._border("max_length_q")
        if name == "attention_mask" and isinstance(value, Tensor) and value.ndim == 4:
            return self._square(value)
        if name in ("position_ids", "position_embeddings", "attention_mask"):
            return self._over_positions(value)
        if isinstance(value, Tensor) or (name == "attention_mask" and value is not None):
            raise ValueError(f"a layer that is given {name}, of which the part of some tokens is not known")
        return value

    def _border(self, name: str) -> Any:
        assert self._bounds is not None
        if name == "bounds":
            return self._bounds
        if name == "max_length_q":
            return max(end - start for start, end in pairwise(self._bounds))
        return torch.tensor(self._bounds, dtype=torch.int32, device=self._slots.device)

    def _over_positions(self, value: Any) -> Any:
        """Tensors [1 or B, T, ...], and tuples and mappings of them."""
        if isinstance(value, tuple | list):
            return type(value)(self._over_positions(one) for one in value)
        if isinstance(value, Mapping):
            return {name: self._over_positions(one) for name, one in value.items()}
        if not isinstance(value, Tensor):
            return value
        if value.ndim < 2 or value.shape[0] not in (1, self._batch) or value.shape[1] != self._length:
            raise ValueError(f"positions of {tuple(value.shape)} for rows of {self._batch} x {self._length}")
        whole = value.expand(self._batch, *value.shape[1:]).flatten(0, 1)
        return whole.index_select(0, self._slots).unflatten(0, (self._batch, -1))

    def _square(self, mask: Tensor) -> Tensor:
        """[1 or B, heads, T, T] -> [B, heads, K, K]."""
        mask = mask.expand(self._batch, *mask.shape[1:])
        queries = self._within[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
        mask = mask.gather(2, queries)
        keys = self._within[:, None, None, :].expand(-1, mask.shape[1], mask.shape[2], -1)
        return mask.gather(3, keys)
