"""Where the keys and values of requests lie: in lanes, so that one call of attention reads many requests.

A lane is one tensor a layer, [slots, G, capacity, D]. Capacities double from lane to lane, so a request wastes at most
half of its slot, and what attends to a lane computes at most twice what is needed. The requests of a lane stand in its
first slots without a gap: what the attention reads is a view. A `Row` is the same for one request outside of lanes: a
prompt that is being read, or what a finished request leaves for those that begin alike.

Sizes are counted in tokens of all layers. G heads of keys and values, D size of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from tunesmith.models.out_of_memory import free_memory, is_out_of_memory

__all__ = ["FIRST", "LayerShape", "Memory", "Place", "Row"]

T = TypeVar("T")

FIRST = 256
"""Capacity of the shortest lane."""


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What a layer keeps of a token: G heads, and the sizes of a key and of a value."""

    layer: int
    heads: int
    key_size: int
    value_size: int
    dtype: torch.dtype
    device: torch.device

    @property
    def bytes_per_token(self) -> int:
        return self.heads * (self.key_size + self.value_size) * int(self.dtype.itemsize)

    def zeros(self, *sizes: int) -> tuple[Tensor, Tensor]:
        """Keys and values [*slots, G, capacity, D]; the last of `sizes` is the capacity. Attention multiplies what is
        masked by zero, so it has to be finite."""
        *slots, capacity = sizes
        return (
            torch.zeros(*slots, self.heads, capacity, self.key_size, dtype=self.dtype, device=self.device),
            torch.zeros(*slots, self.heads, capacity, self.value_size, dtype=self.dtype, device=self.device),
        )


class Row:
    """Keys and values of one request, [G, capacity, D] by layer, of which the first `length` tokens are there."""

    def __init__(self, shapes: tuple[LayerShape, ...], capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self.layers = {shape.layer: shape.zeros(capacity) for shape in shapes}

    def take(self, source: dict[int, tuple[Tensor, Tensor]], length: int) -> None:
        """Copy the first tokens of another one's layers."""
        for layer, (keys, values) in self.layers.items():
            other = source[layer]
            keys[:, :length] = other[0][:, :length]
            values[:, :length] = other[1][:, :length]
        self.length = length


@dataclass(slots=True, eq=False)
class Place:
    """A slot of a lane, held by one request. `index` changes when others leave."""

    lane: Lane
    index: int
    length: int = 0

    def layers(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Its part of each layer, [G, capacity, D]."""
        return {layer: (keys[self.index], values[self.index]) for layer, (keys, values) in self.lane.layers.items()}


@dataclass(slots=True, eq=False)
class Lane:
    capacity: int
    size: int = 0
    """Slots that are allocated."""
    layers: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.size * self.capacity

    def resize(self, shapes: tuple[LayerShape, ...], size: int) -> Lane:
        """Layer by layer, so that little is there twice. Where memory ends, what is held is still there."""
        held, longest = len(self.places), max((place.length for place in self.places), default=0)
        self.size = min(self.size, size)  # that many are there in every layer, also where memory ends midway
        if not size:
            self.layers.clear()
            return self
        for shape in shapes:
            after = shape.zeros(size, self.capacity)
            if held:
                for new, old in zip(after, self.layers[shape.layer], strict=True):
                    new[:held, :, :longest] = old[:held, :, :longest]
            self.layers[shape.layer] = after
        self.size = size
        return self

    def remove(self, place: Place, *, wipe: bool) -> None:
        """The last one comes into the gap. `wipe`: what was there may not be finite."""
        if wipe:
            for keys, values in self.layers.values():
                keys[place.index] = 0
                values[place.index] = 0
        last = self.places.pop()
        if last is not place:
            for keys, values in self.layers.values():
                keys[place.index, :, : last.length] = keys[last.index, :, : last.length]
                values[place.index, :, : last.length] = values[last.index, :, : last.length]
            last.index = place.index
            self.places[last.index] = last


class Memory:
    """Everything that is kept of requests, within `budget` tokens. `give_back(tokens)` is asked for memory that others
    hold only in case it is useful; it says whether it gave any.

    Of what does not fit the methods return None or False, and nothing has changed.
    """

    def __init__(self, shapes: tuple[LayerShape, ...], budget: int, give_back: Callable[[], bool]) -> None:
        self.shapes, self.budget = shapes, budget
        self._give_back = give_back
        self._in_rows = 0
        self.lanes = {capacity: Lane(capacity) for capacity in _capacities(budget)}

    @property
    def used(self) -> int:
        """Tokens that memory is allocated for."""
        return self._in_rows + sum(lane.tokens for lane in self.lanes.values())

    def row(self, capacity: int) -> Row | None:
        if not self._make_room(capacity):
            return None
        row = self._allocated(lambda: Row(self.shapes, capacity))
        self._in_rows += capacity if row is not None else 0
        return row

    def drop(self, row: Row) -> None:
        self._in_rows -= row.capacity
        row.layers.clear()

    def join(self, row: Row) -> Place | None:
        """A place with what a row holds and room for one more token; the row is dropped."""
        place = self._place(row.length + 1, freed=row.capacity)
        if place is not None:
            _copy(place, row.layers, row.length)
            self.drop(row)
        return place

    def grow(self, place: Place) -> Place | None:
        """A place with room for one more token: the same, or one in a longer lane."""
        if place.length < place.lane.capacity:
            return place
        longer = self._place(place.length + 1, freed=place.lane.capacity)
        if longer is not None:
            _copy(longer, place.layers(), place.length)
            self.leave(place)
            self._make_room(0)  # the slot that was left counts until then
        return longer

    def leave(self, place: Place, *, wipe: bool = False) -> None:
        """`wipe`: what the place holds may not be finite."""
        lane = place.lane
        lane.remove(place, wipe=wipe)
        held = len(lane.places)
        if not held or held * 4 <= lane.size:
            lane.resize(self.shapes, held * 2)

    def save(self, place: Place) -> Row | None:
        """A row of exactly what the place holds."""
        row = self.row(place.length)
        if row is not None:
            row.take(place.layers(), place.length)
        return row

    def _place(self, length: int, freed: int) -> Place | None:
        lane = next((lane for lane in self.lanes.values() if lane.capacity >= length), None)
        if lane is None:
            return None
        if len(lane.places) == lane.size:
            size = next((size for size in _sizes(lane.size) if self._fits((size - lane.size) * lane.capacity)), None)
            if size is None:
                if not self._make_room(lane.capacity, freed):
                    return None
                size = lane.size + 1
            if self._allocated(partial(lane.resize, self.shapes, size)) is None:
                return None
        place = Place(lane, len(lane.places))
        lane.places.append(place)
        return place

    def _allocated(self, allocate: Callable[[], T]) -> T | None:
        """Where the device has less than the budget, what is not needed is given back, and it is tried once more."""
        for _ in range(2):
            try:
                return allocate()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            while self._give_back():
                pass
            free_memory(self.shapes[0].device)
        return None

    def _fits(self, tokens: int, freed: int = 0) -> bool:
        return self.used + tokens - freed <= self.budget

    def _make_room(self, tokens: int, freed: int = 0) -> bool:
        """Whether so much more can be allocated; what is not needed makes way."""
        while not self._fits(tokens, freed) and self._give_back():
            pass
        for lane in self.lanes.values():
            if not self._fits(tokens, freed) and lane.size > len(lane.places):
                lane.resize(self.shapes, len(lane.places))
        return self._fits(tokens, freed)


def _copy(place: Place, source: dict[int, tuple[Tensor, Tensor]], length: int) -> None:
    for layer, (keys, values) in place.lane.layers.items():
        keys[place.index, :, :length] = source[layer][0][:, :length]
        values[place.index, :, :length] = source[layer][1][:, :length]
    place.length = length


def _capacities(most: int) -> Iterator[int]:
    """Doubling, the last one being all of it."""
    capacity = FIRST
    while capacity < most:
        yield capacity
        capacity *= 2
    yield most


def _sizes(size: int) -> Iterator[int]:
    """Sizes worth trying for a lane that is full: twice as many slots, so that it is seldom copied, or one more."""
    yield from (2 * size, size + 1) if size else (1,)
