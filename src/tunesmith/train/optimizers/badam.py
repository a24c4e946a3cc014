"""BAdam: one block of weights trains at a time, so gradients and states are those of a block (Luo et al.,
arXiv:2404.02827). And its other mode, in which a share of each weight does.

A block that begins has no states: the optimizer inside begins anew with it. Weights below float32 are stepped as a copy
in float32, which lives as long as its block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from tunesmith.core.log import get_logger
from tunesmith.train.optimizers.ask import Ask
from tunesmith.train.optimizers.base import generator, next_step
from tunesmith.train.optimizers.inner import Make, OverInner, Part, stand_in
from tunesmith.train.optimizers.parts import layers_of, outer_weights

__all__ = ["BAdam", "BAdamRatio", "block_at", "layer", "ratio"]

_WHOLE_BELOW = 100
"""Elements: smaller weights train whole in ratio mode."""


def block_at(steps: int, blocks: int, mode: str, interval: int, start: int | None, seed: int) -> int:
    """Which of `blocks` trains after so many steps. `mode`: ascending, descending, random (each once in a round, in an
    order that follows from the seed) or fixed. `interval` below 1 never switches."""
    first = start if start is not None else {"descending": blocks - 1}.get(mode, 0)
    switches = 0 if mode == "fixed" or interval < 1 else steps // interval
    if mode != "random":
        return (first + (-switches if mode == "descending" else switches)) % blocks
    around, place = divmod(switches, blocks)
    order = torch.randperm(blocks, generator=generator(torch.device("cpu"), seed, around)).tolist()
    if start is not None and around == 0:  # the round begins with that block
        order = [start, *(one for one in order if one != start)]
    return int(order[place])


class BAdam(OverInner):
    """A group's `block` is the number of its block, its `steps` how many steps the run has made. Only weights of the
    block that trains have `requires_grad`; that changes in `step` and `load_state_dict`."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        make: Make,
        *,
        lr: float,
        blocks: list[str],
        mode: str,
        interval: int,
        start: int | None,
        seed: int,
        verbose: int = 0,
        weight_decay: float = 0.0,
    ) -> None:
        self.blocks, self.mode, self.interval, self.start, self.seed = blocks, mode, interval, start, seed
        self.verbose = verbose
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay, "block": 0, "steps": 0}, make)
        self._activate()

    @property
    def block(self) -> int:
        """The block that trains."""
        steps = self.param_groups[0]["steps"]
        return block_at(steps, len(self.blocks), self.mode, self.interval, self.start, self.seed)

    def part(self, weight: Any, state: dict[str, Any], group: Mapping[str, Any]) -> Part:
        if weight.dtype == torch.float32:
            return self.plain(weight, state, group)
        master = state.setdefault("master", weight.detach().float())
        made = stand_in(master, weight.grad.float())
        plain = self.plain(made, state, group)
        return Part(made, plain.settings, plain.state, lambda: weight.copy_(made))

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        before = self.block
        for group in self.param_groups:
            group["steps"] += 1
        if self.block != before:
            self.state.clear()
            self._activate()

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        self._activate()

    def _activate(self) -> None:
        block = self.block
        for group in self.param_groups:
            for weight in group["params"]:
                weight.requires_grad_(group["block"] == block)
                weight.grad = None
        if self.verbose:
            get_logger().info("BAdam trains block %d of %d: %s", block, len(self.blocks), self.blocks[block])
        if self.verbose > 1:
            count = sum(one.numel() for group in self.param_groups for one in group["params"] if one.requires_grad)
            get_logger().info("  %d weights have gradients and states", count)


class BAdamRatio(OverInner):
    """A share `ratio` of the elements of each weight trains, in one piece (`adjacent`) or anywhere (`scatter`). Which
    ones is drawn anew every `interval` steps, from (seed, number of the weight, step). Small weights train whole."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        make: Make,
        *,
        lr: float,
        ratio: float,
        mask: str,
        interval: int,
        seed: int,
        weight_decay: float = 0.0,
    ) -> None:
        self.ratio, self.mask, self.interval, self.seed = ratio, mask, interval, seed
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay}, make)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self._numbers = {id(weight): number for number, weight in enumerate(weights)}

    def part(self, weight: Any, state: dict[str, Any], group: Mapping[str, Any]) -> Part:
        if weight.numel() < _WHOLE_BELOW:
            return self.plain(weight, state, group)
        step = next_step(state) - 1
        if step == 0 or (self.interval > 0 and step % self.interval == 0):
            state.pop("inner", None)
            state["picked"] = self._draw(weight, step)
        picked = state["picked"]
        flat = weight.view(-1)
        made = stand_in(flat[picked].float(), weight.grad.view(-1)[picked].float())

        def finish() -> None:
            flat[picked] = made.detach().to(weight.dtype)

        settings = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
        return Part(made, settings, state.setdefault("inner", {}), finish)

    def _draw(self, weight: Tensor, step: int) -> Tensor:
        """Places [k] among the elements of a weight."""
        total = weight.numel()
        count = max(1, round(self.ratio * total))
        chance = generator(torch.device("cpu"), self.seed, self._numbers[id(weight)], step)
        if self.mask == "scatter":
            found = torch.randperm(total, generator=chance)[:count].sort().values
        else:
            begin = int(torch.randint(total, (1,), generator=chance))
            found = (torch.arange(count) + begin) % total
        return found.to(weight.device)


def _interval(value: int | None) -> int:
    return -1 if value is None else value


def layer(ask: Ask) -> BAdam:
    config = ask.config
    blocks, block_of = layers_of(ask.model, config.badam_start_block)
    return BAdam(
        ask.groups(lambda name, weight: None if (found := block_of(name)) is None else {"block": found}),
        ask.inside,
        lr=ask.adam["lr"],
        weight_decay=ask.adam["weight_decay"],
        blocks=blocks,
        mode=config.badam_switch_mode or "fixed",
        interval=_interval(config.badam_switch_interval),
        start=config.badam_start_block,
        seed=ask.seed,
        verbose=config.badam_verbose,
    )


def ratio(ask: Ask) -> BAdamRatio:
    config, outer = ask.config, outer_weights(ask.model)
    return BAdamRatio(
        ask.groups(lambda name, weight: None if name in outer else {}),
        ask.inside,
        lr=ask.adam["lr"],
        weight_decay=ask.adam["weight_decay"],
        ratio=config.badam_update_ratio,
        mask=config.badam_mask_mode,
        interval=_interval(config.badam_switch_interval),
        seed=ask.seed,
    )
