"""Before the first step: the quick ways of this run against transformers' own, on rows of this run and real weights.

Loss and gradient of a few short rows are computed twice: as the run will, and padded, with plain attention and the
logits of all positions. Nothing is left behind: no gradient, no state of chance. What differs is not used. A gradient
is looked at parameter by parameter, as the backward pass completes it, so one set of gradients is held at most, in half
precision none.

In half precision the log-probability of a token is off by a hundredth or so, whoever computes it, and of a few tokens
that does not cancel out. Where the loss is farther off than its bound, the tokens decide: their root mean square
difference from plain attention may be twice that which transformers' own other attention has.

Where the model knows the rows, loss and gradient are differences of numbers near one, and their relative errors grow as
the loss falls: in float32 the bounds grow with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tunesmith.core.errors import MachineError, Problem
from tunesmith.core.log import get_logger
from tunesmith.data.collate import FlatCollator, PaddingCollator, ReadMedia
from tunesmith.data.pack import PackedDataset, units
from tunesmith.models.attention import attention_of
from tunesmith.models.depths import same_choices
from tunesmith.models.loss_forward import LossForward, language_model_of
from tunesmith.models.out_of_memory import free_memory, is_out_of_memory
from tunesmith.models.seeing import set_attention
from tunesmith.objectives.inputs import on_device

if TYPE_CHECKING:
    from tunesmith.config import RunPlan
    from tunesmith.config.model import ModelConfig
    from tunesmith.data.dataset import TokenDataset
    from tunesmith.models.fast_path import FastPath
    from tunesmith.objectives import Objective

__all__ = ["SelfProof", "give_up", "prove_itself"]

_LOOKED_AT = 64  # rows, of which the shortest are taken
_ROWS, _TOKENS = 3, 512
_TIMES_THE_NOISE = 2
_BOUNDS = {False: (1e-5, 1e-4), True: (2e-3, 5e-3)}
"""Relative, of loss and gradient: in float32, and in half precision."""


_KNOWN = 0.1
"""A loss (nats a token) below which the bounds of float32 grow, in proportion, up to _MOST_GROWN times."""
_MOST_GROWN = 100


@dataclass(frozen=True, slots=True)
class SelfProof:
    """Relative differences of the loss, and of the gradient: of the vector in float32, of its norm in half precision,
    where single elements are noise."""

    rows: int
    tokens: int
    loss_error: float
    gradient_error: float
    loss_bound: float
    gradient_bound: float
    token_error: float | None = None
    """Root mean square difference of the tokens' log-probabilities, where the loss alone does not tell."""
    token_noise: float | None = None
    """The same between plain attention and SDPA, both of transformers."""
    packed: bool = False
    """Whether the rows shared a padded row, as the packs of the run do."""

    @property
    def holds(self) -> bool:
        loss_holds = self.loss_error <= self.loss_bound
        if not loss_holds and self.token_error is not None and self.token_noise is not None:
            loss_holds = self.token_error <= _TIMES_THE_NOISE * self.token_noise
        return loss_holds and self.gradient_error <= self.gradient_bound

    def __str__(self) -> str:
        loss = f"loss differs by {self.loss_error:.1e} (at most {self.loss_bound:.2g}"
        if self.token_error is not None and self.token_noise is not None:
            loss += f", or that of tokens, {self.token_error:.1e}, at most {_TIMES_THE_NOISE} x {self.token_noise:.1e}"
        gradient = f"gradient by {self.gradient_error:.1e} (at most {self.gradient_bound:.2g})"
        return f"{loss}), {gradient}, on {self.rows} rows, {self.tokens:,} tokens"

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def prove_itself(
    model: Any,
    objective: Objective,
    samples: TokenDataset | PackedDataset,
    plan: RunPlan,
    pad_id: int,
    read_media: ReadMedia | None = None,
) -> SelfProof | None:
    """None where nothing of the first rows is trained, or memory does not hold the comparison."""
    rows = _short_rows(samples)
    if not rows:
        return None
    device = torch.device(plan.device)
    arithmetic: AbstractContextManager[Any] = nullcontext()
    if plan.autocast:
        arithmetic = torch.autocast(device.type, getattr(torch, plan.autocast))
    objective = objective.provable()
    half = plan.autocast is not None or plan.dtype != "float32"
    batch = on_device(_as_trained(rows, plan, pad_id, read_media), device)
    padded = on_device(PaddingCollator(pad_id, read_media=read_media)(rows), device)
    training = model.training
    model.eval()  # no dropout, and no activations that are computed again
    try:
        with arithmetic, _tokens_of(model) as tokens, same_choices(model) as again:
            gradient = _Gradient(keep=not half)
            found = _loss_and_gradient(model, objective, batch, gradient)
            again()
            with _plainly(model, "eager"):
                true = _Gradient(other=None if half else gradient)
                wanted = _loss_and_gradient(model, objective, padded, true)
            loss_error = abs(found - wanted) / max(abs(wanted), 1e-9)
            off = abs(gradient.norm - true.norm) if half else true.distance
            grown = 1.0 if half else min(max(1.0, _KNOWN / max(abs(wanted), 1e-9)), _MOST_GROWN)
            by_token: tuple[float, float] | tuple[()] = ()
            if half and loss_error > _BOUNDS[half][0]:
                with suppress(ValueError), torch.no_grad(), _plainly(model, "sdpa"):  # a model may have but one
                    objective.compute(model, padded)
                    by_token = _rms(tokens[0] - tokens[1]), _rms(tokens[2] - tokens[1])
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        free_memory(device)
        return None
    finally:
        model.train(training)
    count = sum(len(row["input_ids"]) for row in rows)
    bounds = (grown * bound for bound in _BOUNDS[half])
    proof = SelfProof(len(rows), count, loss_error, off / max(true.norm, 1e-9), *bounds, *by_token)
    return replace(proof, packed=plan.packing and plan.batches == "padded")


def give_up(model: Any, fast: FastPath, proof: SelfProof, config: ModelConfig) -> FastPath:
    """Train as transformers does from now on. Raises MachineError where the config requires the quick ways, or where
    rows share padded rows: nothing else would be left to train on."""
    if proof.packed:
        what = "loss and gradient of packed rows are not those of the rows alone, as transformers computes them"
        where = f"model_name_or_path: {config.model_name_or_path}"
        raise MachineError(Problem("E-TRAIN-055", what, where, str(proof), "packing: false (and no neat_packing)"))
    if config.fast_path == "require" or config.shift_attn:
        what = "the quick ways do not give what transformers computes, on rows of this run"
        where = f"model_name_or_path: {config.model_name_or_path}"
        fix = "leave shift_attn out" if config.shift_attn else "fast_path: auto trains without them"
        raise MachineError(Problem("E-TRAIN-018", what, where, str(proof), fix))
    get_logger().warning("quick ways are not used, they differ from transformers: %s", proof)
    how = LossForward.within(model)
    how.way = "full"
    if fast.flat:
        fast = fast.without_flat("they did not prove themselves")
        set_attention(language_model_of(model), fast.attention)
    return replace(fast, loss="full")


def _short_rows(samples: TokenDataset | PackedDataset) -> list[dict[str, Any]]:
    """The shortest of the first rows that train something; a part of one where each of them is long."""
    tokens = samples.pieces if isinstance(samples, PackedDataset) else samples
    if tokens.has_kinds:
        return _short_pairs(tokens)
    near = np.arange(min(len(tokens), _LOOKED_AT))
    near = near[(tokens.trained_counts[near] > 0) & (tokens.lengths[near] > 1)]
    order = near[np.argsort(tokens.lengths[near], kind="stable")][:_ROWS]
    fits = order[np.cumsum(tokens.lengths[order]) <= _TOKENS]
    if len(order) and not len(fits):
        row = tokens[int(order[0])]
        return [row if any(row.get("media", ())) else _part(row)]  # no medium is cut in two
    return [tokens[int(number)] for number in fits]


def _short_pairs(tokens: TokenDataset) -> list[dict[str, Any]]:
    """The shortest of the first pairs; of long ones one at least."""
    pairs = units(tokens)
    near = np.argsort(pairs.lengths[: _LOOKED_AT // 2], kind="stable")[:_ROWS]
    few = int(np.count_nonzero(np.cumsum(pairs.lengths[near]) <= 2 * _TOKENS))
    return [pairs[int(number)] for number in near[: max(few, 1)]]


def _part(row: dict[str, Any]) -> dict[str, Any]:
    """_TOKENS of a longer row, half of them before what is trained first, and half from there on."""
    first = max(0, int(np.flatnonzero(row["trained"])[0]) - _TOKENS // 2)
    per_token = ("input_ids", "trained", "weights")
    return {name: value[first : first + _TOKENS] if name in per_token else value for name, value in row.items()}


def _as_trained(rows: list[dict[str, Any]], plan: RunPlan, pad_id: int, read_media: ReadMedia | None) -> dict[str, Any]:
    """The rows as a batch of the run: flat, padded, or as one pack in a padded row."""
    if plan.batches == "flat":
        return FlatCollator(pad_id, shares=plan.shares, read_media=read_media)(rows)
    if not plan.packing:
        return PaddingCollator(pad_id, read_media=read_media)(rows)
    pack: dict[str, Any] = {name: np.concatenate([row[name] for row in rows]) for name in rows[0] if name != "media"}
    if "media" in rows[0]:
        pack["media"] = [own for row in rows for own in row["media"]]
    pack.setdefault("lengths", np.array([len(row["input_ids"]) for row in rows]))  # pairs tell theirs
    return FlatCollator(pad_id, one_row=False, read_media=read_media)([pack])


@contextmanager
def _plainly(model: Any, attention: str) -> Iterator[None]:
    """The model with this attention of transformers and the logits of all positions."""
    language_model = language_model_of(model)
    how: LossForward = language_model.loss_forward
    way, before = how.way, attention_of(language_model)
    how.way = "reference"
    try:
        set_attention(language_model, attention)
        yield
    finally:
        how.way = way
        set_attention(language_model, before)


@contextmanager
def _tokens_of(model: Any) -> Iterator[list[Tensor]]:
    """The log-probabilities [N] of each pass through the model, in the order of the passes."""
    how = LossForward.within(model)
    how.seen = []
    try:
        yield how.seen
    finally:
        how.seen = None


class _Gradient:
    """What is asked of a gradient while it goes by: its norm, and how far it is from an earlier one that was kept,
    which is given up on the way."""

    def __init__(self, *, keep: bool = False, other: _Gradient | None = None) -> None:
        self._keep, self._other = keep, other
        self._kept: dict[Tensor, Tensor] = {}
        self._squares = self._off = 0.0

    def take(self, parameter: Tensor) -> None:
        """The gradient of a parameter is complete."""
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None, "a gradient that was just accumulated"
        self._squares += _square(gradient)
        if self._keep:
            self._kept[parameter] = gradient
        if self._other is not None:
            before = self._other._kept.pop(parameter, None)
            self._off += _square(gradient if before is None else before.sub_(gradient))

    @property
    def norm(self) -> float:
        return self._squares**0.5

    @property
    def distance(self) -> float:
        """From the earlier one, which may have parts where this one has none."""
        assert self._other is not None, "there is one to compare with"
        return (self._off + sum(_square(one) for one in self._other._kept.values())) ** 0.5


def _loss_and_gradient(model: Any, objective: Objective, batch: dict[str, Any], gradient: _Gradient) -> float:
    """The loss; its gradient goes by. No activations are computed again, so each parameter's comes at once."""
    parameters = [one for one in model.parameters() if one.requires_grad]
    hooks = [one.register_post_accumulate_grad_hook(gradient.take) for one in parameters]
    try:
        output = objective.compute(model, batch)
        loss = output.loss_sum / output.units.clamp(min=1)
        loss.backward()
    finally:
        for hook in hooks:
            hook.remove()
        for one in parameters:
            one.grad = None  # where memory ran out in between
    return float(loss.detach())


def _square(tensor: Tensor) -> float:
    kind = torch.float64 if tensor.device.type != "mps" else torch.float32
    return float(torch.linalg.vector_norm(tensor, dtype=kind)) ** 2


def _rms(difference: Tensor) -> float:
    return float(difference.double().square().mean().sqrt())
