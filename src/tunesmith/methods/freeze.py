"""Train some layers and freeze the rest."""

from __future__ import annotations

import re
from collections.abc import Set
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.suggest import did_you_mean
from tunesmith.methods.base import Given, Method, set_trainable, split_names
from tunesmith.methods.towers import Towers
from tunesmith.models.heads import reward_head

if TYPE_CHECKING:
    pass

__all__ = ["Freeze", "expanded_blocks"]

_LAYER = re.compile(r"\.(\d+)\.")  # the first number in a parameter's name is the number of its layer


class Freeze(Method):
    """`freeze_trainable_layers` n > 0: the last n layers; n < 0: the first -n. `freeze_trainable_modules` restricts
    that to named parts of a layer; `freeze_extra_modules` adds parts outside the layers."""

    def apply(self, model: Any, given: Given) -> Any:
        towers = Towers(model)
        every = [name for name, _ in model.named_parameters()]
        names = [name for name in every if towers.part_of(name) == "language"]
        depth = self._depth(names, model)
        wanted = self.config.freeze_trainable_layers
        layers = set(range(depth - wanted, depth) if wanted > 0 else range(-wanted))
        if self.config.use_llama_pro:
            layers = set(expanded_blocks(model, wanted))
        chosen = self._in_layers(names, layers) | self._extra(names) | _reward_head(model)
        others = [name for name in every if towers.part_of(name) != "language"]
        trained = set(towers.trained([*chosen, *others], self.config))
        set_trainable(model.named_parameters(), trained, keep_dtype=given.keep_dtype)
        return model

    def _depth(self, names: list[str], model: Any) -> int:
        """Number of layers. Raises UsageError if it is smaller than what the config asks for."""
        depth = 1 + max((int(found.group(1)) for name in names if (found := _LAYER.search(name))), default=-1)
        wanted = self.config.freeze_trainable_layers
        if wanted == 0 or abs(wanted) > depth:
            raise UsageError(
                Problem(
                    "E-METHOD-002",
                    f"{type(model).__name__} has {depth} layers",
                    where="freeze_trainable_layers",
                    got=str(wanted),
                    fix=f"a number from 1 to {depth} (the last ones) or from -1 to -{depth} (the first ones)",
                )
            )
        return depth

    def _in_layers(self, names: list[str], layers: set[int]) -> set[str]:
        inside = [(name, found) for name in names if (found := _LAYER.search(name))]
        modules = ["all"] if self.config.use_llama_pro else split_names(self.config.freeze_trainable_modules)
        chosen = {name for name, found in inside if int(found.group(1)) in layers}
        if modules == ["all"]:
            return chosen
        known: dict[str, set[int]] = {}
        for name, found in inside:
            for part in name[found.end() :].split(".")[:-1]:
                known.setdefault(part, set()).add(int(found.group(1)))
        _check_names(modules, known.keys(), "freeze_trainable_modules")
        _check_layers({module: known[module] for module in modules}, layers)
        return {name for name in chosen if set(_LAYER.split(name, maxsplit=1)[2].split(".")) & set(modules)}

    def _extra(self, names: list[str]) -> set[str]:
        modules = split_names(self.config.freeze_extra_modules)
        outside = [name for name in names if not _LAYER.search(name)]
        known = {part for name in outside for part in name.split(".")[:-1]}
        _check_names(modules, known, "freeze_extra_modules")
        return {name for name in outside if set(name.split(".")) & set(modules)}


def _reward_head(model: Any) -> set[str]:
    """Names of the weights that make a reward, which always train: they may be new."""
    head = reward_head(model)
    own = {id(weight) for weight in head.parameters()} if head is not None else set()
    return {name for name, weight in model.named_parameters() if id(weight) in own}


def expanded_blocks(model: Any, number: int) -> list[int]:
    """Numbers of the blocks that were added to the model (LLaMA Pro, https://arxiv.org/abs/2401.02415).

    `tunesmith convert llama-pro` writes them into config.json. Where they are not told there, `number` of them stand
    evenly, each behind the blocks that it is a copy of the last of, as the paper's own tool puts them. Raises
    UsageError where they cannot.
    """
    told = getattr(model.config, "llama_pro", None)
    if isinstance(told, dict) and told.get("expanded_layers"):
        return [int(layer) for layer in told["expanded_layers"]]
    depth = int(model.config.num_hidden_layers)
    if number < 1 or depth % number:
        raise UsageError(
            Problem(
                "E-METHOD-015",
                f"{number} added blocks cannot stand evenly among {depth}",
                where="freeze_trainable_layers",
                got=str(number),
                fix="the number of blocks that were added; `tunesmith convert llama-pro` adds blocks and notes which",
            )
        )
    stride = depth // number
    return list(range(stride - 1, depth, stride))


def _check_layers(places: dict[str, set[int]], layers: set[int]) -> None:
    """Raises UsageError for a module that none of the chosen layers has: the first layers of many mixtures of experts
    are dense. `places`: the layers that have it."""
    chosen = f"{min(layers)} to {max(layers)}" if len(layers) > 1 else str(min(layers))
    problems = [
        Problem(
            "E-METHOD-003",
            f'no module is called "{module}" in the layers that train ({chosen})',
            where="freeze_trainable_modules",
            fix=f"more freeze_trainable_layers, or the other end: {min(have)} to {max(have)} is where they are",
        )
        for module, have in places.items()
        if not have & layers
    ]
    if problems:
        raise UsageError(problems)


def _check_names(modules: list[str], known: Set[str], key: str) -> None:
    problems = [
        Problem(
            "E-METHOD-003",
            f'no module is called "{module}" there',
            where=key,
            fix=did_you_mean(module, known) or "one of: " + ", ".join(sorted(known)),
        )
        for module in modules
        if module not in known
    ]
    if problems:
        raise UsageError(problems)
