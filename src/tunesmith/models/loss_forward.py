"""A forward of a language model that ends in the loss: the output layer runs only where there is a label, in chunks.

It takes the place of `forward` on the model object itself, so that whatever wraps the model (adapters, several devices,
autocast) still sees all of it; calls without `loss_targets` go to the forward that was there before.

B rows, T positions, N trained positions, H hidden, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tunesmith.losses.linear_cross_entropy import Head, chunk_rows, linear_cross_entropy, linear_log_probs
from tunesmith.losses.token import (
    CROSS_ENTROPY,
    LogitRows,
    LogProbs,
    TokenLoss,
    TokenStatistics,
    log_probs_of_logits,
    of_logits,
)
from tunesmith.models.seeing import Seen, idle_parts, take_media

if TYPE_CHECKING:
    from tunesmith.models.balance import Balance
    from tunesmith.models.family import Family

__all__ = [
    "HeadFacts",
    "LossForward",
    "LossWay",
    "head_matches",
    "hidden_states",
    "install",
    "language_model_of",
    "trunk_inputs",
    "trunk_of",
]

LossWay: TypeAlias = Literal["chunked", "kept", "full", "reference"]
"""chunked: hidden states of trained positions straight to the loss. kept: the model's own logits, where some row is
trained. full: the model's own logits everywhere, as transformers trains. reference: the same logits, and their loss in
float64, since a sum over a large vocabulary in float32 is off by what others are to be measured by."""

_NOT_FOR_THE_TRUNK = ("labels", "logits_to_keep", "return_dict", "output_attentions", "output_hidden_states")


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """What a model does between its output layer and its logits; see `losses.linear_cross_entropy`."""

    scale: float = 1.0
    soft_cap: float | None = None

    @classmethod
    def of(cls, model: Any, family: Family) -> HeadFacts:
        config = model.config
        scale = 1.0
        if family.head_scale is not None:
            key, power = family.head_scale
            scale = float(getattr(config, key)) ** power
        cap = getattr(config, "final_logit_softcapping", None) or getattr(config, "logits_soft_cap", None)
        return cls(scale, cap)


class _Asked(NamedTuple):
    """positions [N, 2], targets [N], weights [N] or None, and what is made of them, as `install` tells it."""

    positions: Tensor
    targets: Tensor
    weights: Tensor | None
    how: TokenLoss | LogProbs | LogitRows

    @property
    def units(self) -> int | Tensor:
        """Of the loss, which is a sum over targets; of log probabilities nobody knows yet what becomes: one."""
        if isinstance(self.how, LogProbs):
            return 1
        return len(self.targets) if self.weights is None else self.weights.sum()

    def of_logits(self, logits: Tensor, each: Tensor | None = None) -> dict[str, Any]:
        """What is asked, of logits [N, V] at the positions. `each`: see `losses.token.of_logits`."""
        if isinstance(self.how, LogProbs):
            return self.result(*log_probs_of_logits(logits, self.targets, self.how))
        if isinstance(self.how, LogitRows):
            return {"logits": lambda part: logits[part].to(torch.float32, copy=True)}
        return self.result(*of_logits(logits, self.targets, self.weights, self.how, each))

    def result(self, value: Tensor, told: TokenStatistics) -> dict[str, Tensor]:
        """`value`: the loss, or the log probabilities [N] with a gradient, beside which there is no loss yet."""
        found = {"loss": value, "log_probs": told.log_probs, "correct": told.correct}
        if isinstance(self.how, LogProbs):
            found |= {"loss": value.new_zeros(()), "log_probs": value}
        more = {"entropy": told.entropy, "collision": told.collision, "divergence": told.divergence}
        return found | {name: value for name, value in more.items() if value is not None}


class LossForward:
    """How a model comes to its loss: one of the ways, which may be changed between calls."""

    def __init__(self, model: Any, way: LossWay, facts: HeadFacts) -> None:
        self.plain, self.way, self.facts = model.forward, way, facts
        self.seen: list[Tensor] | None = None
        """The log-probabilities [N] of every call are put here, if it is a list."""
        self.shift = 0
        """How many positions an adapter puts in front of each row."""
        self.for_each_unit: Callable[[], Tensor] | None = None
        """A term of the loss of training [], apart from the rows: it counts once for each unit of the sum."""
        self.second: tuple[float, Callable[[], Tensor]] | None = None
        """Of a model with a second way to the output layer: a weight, and its hidden states [B, T, H] of the last call.
        Their loss, with the weight, joins that of training."""
        self.balance: Balance | None = None
        """What is asked of a mixture of experts beside the loss of its tokens."""

    def note(self, output: Any) -> Any:
        """`output`, of the model or of its trunk, after a look at it."""
        if self.balance is not None:
            self.balance.note(output)
        return output

    @classmethod
    def within(cls, model: Any) -> LossForward:
        """That of the language model that `model` is or wraps."""
        found: LossForward = language_model_of(model).loss_forward
        return found


def language_model_of(model: Any) -> Any:
    """The module whose forward ends in the loss: `model`, or what it wraps."""
    return next(module for module in model.modules() if hasattr(module, "loss_forward"))


def install(model: Any, way: LossWay, facts: HeadFacts) -> None:
    """Let `model(..., loss_positions=, loss_targets=, loss_weights=, loss_kind=)` return a mapping with `loss`, the sum
    over all targets, and with `log_probs` [N] and `correct` [N] of each target, without gradient. In training with
    `balance` the loss has a part for the routers, which is told as `aux_loss` too.

    loss_positions [N, 2] (row, position) of the hidden state that predicts each of loss_targets [N]; loss_weights [N]
    or None; loss_kind a TokenLoss. With LogProbs `log_probs` has a gradient, and `loss` is what a method or the routers
    add for each unit of whatever is made of them. With LogitRows there is `logits` alone, as `losses.asft.Anchor` wants
    it.
    """
    how = model.loss_forward = LossForward(model, way, facts)

    @functools.wraps(type(model).forward)  # `generate` asks its signature what the model takes
    def forward(
        self: Any,
        *arguments: Any,
        loss_positions: Tensor | None = None,
        loss_targets: Tensor | None = None,
        loss_weights: Tensor | None = None,
        loss_kind: TokenLoss | LogProbs | LogitRows = CROSS_ENTROPY,
        **inputs: Any,
    ) -> Any:
        if loss_targets is None:
            return how.plain(*arguments, **inputs)
        if inputs.get("output_hidden_states"):  # an adapter (X-LoRA) looks at them, before it calls for the loss
            return how.plain(*arguments, **inputs, logits_to_keep=1)
        inputs = take_media(self, inputs)
        assert loss_positions is not None, "where each target is predicted"
        if how.shift:
            loss_positions = loss_positions + loss_positions.new_tensor([0, how.shift])
        asked = _Asked(loss_positions, loss_targets, loss_weights, loss_kind)
        balance = how.balance if self.training else None
        if balance is not None:
            inputs["output_router_logits"] = True
        found = _WAYS[how.way](self, how, inputs, asked)
        idle = idle_parts(self) if self.training else None
        if idle is not None and "loss" in found:
            found["loss"] = found["loss"] + idle.to(found["loss"].device)
        if how.for_each_unit is not None and self.training:
            found["loss"] = found["loss"] + asked.units * how.for_each_unit()
        if how.second is not None and self.training:
            found["loss"] = found["loss"] + _second(self, how.second, asked)
        if balance is not None:
            found |= _balanced(balance, found["loss"], inputs.get("attention_mask"), asked)
        if how.seen is not None:
            how.seen.append(found["log_probs"].detach())
        return found

    model.forward = MethodType(forward, model)


def _second(model: Any, second: tuple[float, Callable[[], Tensor]], asked: _Asked) -> Tensor:
    weight, hidden = second
    rows = hidden()[asked.positions[:, 0], asked.positions[:, 1]]  # [N, H]
    return weight * _of_hidden(model.get_output_embeddings(), rows, HeadFacts(), asked)["loss"]


def _balanced(balance: Balance, loss: Tensor, mask: Tensor | None, asked: _Asked) -> dict[str, Tensor]:
    """The loss with that of the routers for each of its units, and the latter by itself."""
    routers = balance.take(mask)
    return {"loss": loss + asked.units * balance.coefficient * routers, "aux_loss": routers.detach()}


def head_matches(model: Any, facts: HeadFacts) -> bool:
    """Whether the output layer with these facts gives the model's own logits, on eight tokens."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(vocabulary, (1, 8), generator=generator).to(model.device)
    training, layer = model.training, model.get_output_embeddings()
    if layer is None or not hasattr(trunk_of(model), "get_input_embeddings"):
        return False
    model.eval()
    try:
        with torch.no_grad():
            expected = model(input_ids=ids, use_cache=False).logits.float()
            found = layer(hidden_states(model, {"input_ids": ids})[0]).float() * facts.scale
            if facts.soft_cap is not None:
                found = facts.soft_cap * torch.tanh(found / facts.soft_cap)
    finally:
        model.train(training)
    tolerance = 1e-4 if expected.dtype == torch.float32 and model.dtype == torch.float32 else 2e-2
    return found.shape == expected.shape and bool((found - expected).norm() <= tolerance * expected.norm())


def trunk_of(model: Any) -> Any:
    """All of the model but its output layer; an object without embeddings where that cannot be told."""
    found = model.get_decoder()
    return model.model if found is model else found


def hidden_states(model: Any, inputs: Mapping[str, Any]) -> Any:
    """What the trunk gives, first of all the last hidden states [B, T, H], before the output layer."""
    taken = trunk_inputs(inputs)
    return (model.model if isinstance(inputs, Seen) else trunk_of(model))(**taken)


def trunk_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's inputs its trunk takes, without a cache."""
    used = {name: value for name, value in inputs.items() if value is not None and name not in _NOT_FOR_THE_TRUNK}
    return used | {"use_cache": False}


def _chunked(model: Any, how: LossForward, inputs: Mapping[str, Any], asked: _Asked) -> dict[str, Tensor]:
    hidden = how.note(hidden_states(model, inputs))[0][asked.positions[:, 0], asked.positions[:, 1]]  # [N, H]
    return _of_hidden(model.get_output_embeddings(), hidden, how.facts, asked)


@torch.compiler.disable  # its number of chunks would make a graph of its own for each number of targets
def _of_hidden(layer: Any, hidden: Tensor, facts: HeadFacts, asked: _Asked) -> dict[str, Any]:
    if isinstance(asked.how, LogitRows):
        return {"logits": _rows_below_adapters(layer, hidden, facts)}
    if (weight := _effective_weight(layer)) is None:
        return _through_module(layer, hidden, facts, asked)
    head = Head(weight, getattr(layer, "bias", None), facts.scale, facts.soft_cap)
    if isinstance(asked.how, LogProbs):
        return asked.result(*linear_log_probs(hidden, head, asked.targets, how=asked.how))
    return asked.result(*linear_cross_entropy(hidden, head, asked.targets, weights=asked.weights, how=asked.how))


def _rows_below_adapters(layer: Any, hidden: Tensor, facts: HeadFacts) -> Callable[[slice], Tensor]:
    """hidden [N, H] without gradient -> what an `Anchor` asks for the logits of a few rows."""
    names = ("base_layer", "original_module")  # of an adapter, of a module that is trained beside adapters
    while (inner := next((one for name in names if (one := getattr(layer, name, None)) is not None), None)) is not None:
        layer = inner

    @torch.no_grad()
    def logits(part: slice) -> Tensor:
        return _scaled(layer(hidden[part]), facts)

    return logits


def _scaled(found: Tensor, facts: HeadFacts) -> Tensor:
    """What the output layer gives [C, V] as the model's logits, in float32."""
    logits = found.float() * facts.scale
    return logits if facts.soft_cap is None else facts.soft_cap * torch.tanh(logits / facts.soft_cap)


def _effective_weight(layer: Any) -> Tensor | None:
    """[V, H] that an output layer multiplies by; None where it does something else. PEFT's layer with rows of new
    tokens exchanged is asked for it once, not for each chunk."""
    if type(layer) is torch.nn.Linear:
        found: Tensor = layer.weight
        return found
    rows = getattr(layer, "token_adapter", None)
    if rows is None or rows.disable_adapters or rows.merged or type(rows.base_layer) is not torch.nn.Linear:
        return None
    exchanged: Tensor = rows.get_merged_weights(rows.active_adapters)
    return exchanged


def _through_module(layer: Any, hidden: Tensor, facts: HeadFacts, asked: _Asked) -> dict[str, Tensor]:
    """An output layer with an adapter: its weight is not the effective one, so it is called, and again in backward."""
    anchored = isinstance(asked.how, TokenLoss) and asked.how.anchor is not None
    rows = chunk_rows(model_weight(layer), beside=2 if anchored else 1)
    parts = []
    for start in range(0, max(len(asked.targets), 1), rows):  # without targets the adapter has a gradient of zero
        part = slice(start, start + rows)
        weights = None if asked.weights is None else asked.weights[part]
        how = asked.how.part(part) if isinstance(asked.how, TokenLoss) else asked.how
        own = _Asked(asked.positions[part], asked.targets[part], weights, how)
        parts.append(checkpoint(_chunk_of_module, layer, hidden[part], facts, own, use_reentrant=False))
    joined = {name: torch.cat([one[name] for one in parts]) for name in parts[0] if name != "loss"}
    return {"loss": torch.stack([one["loss"] for one in parts]).sum(), **joined}


def model_weight(layer: Any) -> Tensor:
    """The largest weight of a (wrapped) output layer, [V, H] or so."""
    found: Tensor = max(layer.parameters(), key=lambda one: one.numel())
    return found


def _chunk_of_module(layer: Any, hidden: Tensor, facts: HeadFacts, asked: _Asked) -> dict[str, Tensor]:
    return asked.of_logits(_scaled(layer(hidden), facts))


def _kept(model: Any, how: LossForward, inputs: Mapping[str, Any], asked: _Asked) -> dict[str, Tensor]:
    columns, place = _columns(asked.positions)
    logits = how.note(how.plain(**{**inputs, "logits_to_keep": columns, "use_cache": False})).logits  # [B, K, V]
    return _of_kept(logits, place, asked)


# The numbers of targets and of columns would each be a graph of its own, and where dynamo stops within a forward it
# traces all of the model again: what has such shapes stays out of graphs as a whole.


@torch.compiler.disable
def _columns(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Columns [K] with a target in some row, and of each target which of them is its own [N]."""
    columns, place = positions[:, 1].unique(return_inverse=True)
    if not len(columns):  # nothing to learn here, but several devices want a gradient of each
        columns = columns.new_zeros(1)
    return columns, place


@torch.compiler.disable
def _of_kept(logits: Tensor, place: Tensor, asked: _Asked) -> dict[str, Tensor]:
    return asked.of_logits(logits[asked.positions[:, 0], place])


def _full(model: Any, how: LossForward, inputs: Mapping[str, Any], asked: _Asked) -> dict[str, Tensor]:
    """As transformers' own loss: float32 logits of all positions, those without a label ignored."""
    return _of_all(how.note(how.plain(**{**inputs, "use_cache": False})).logits, asked)  # [B, T, V]


@torch.compiler.disable
def _of_all(logits: Tensor, asked: _Asked) -> dict[str, Tensor]:
    logits = logits.float()
    rows, places = asked.positions.unbind(1)
    if isinstance(asked.how, LogProbs):  # log_softmax of all positions, of which each target has its own
        flat = torch.nn.functional.log_softmax(logits, -1)
        return asked.of_logits(flat[rows, places])
    shown = logits[rows, places]
    if isinstance(asked.how, LogitRows):
        return asked.of_logits(shown)
    labels = asked.positions.new_full(logits.shape[:2], -100)
    labels[rows, places] = asked.targets
    each = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), reduction="none", label_smoothing=asked.how.label_smoothing
    ).view_as(labels)
    return asked.of_logits(shown.detach() if asked.how.anchor is None else shown, each[rows, places])


def _reference(model: Any, how: LossForward, inputs: Mapping[str, Any], asked: _Asked) -> dict[str, Tensor]:
    logits = how.note(how.plain(**{**inputs, "use_cache": False})).logits[
        asked.positions[:, 0], asked.positions[:, 1]
    ]  # [N, V]
    exact = logits.double() if logits.device.type != "mps" else logits.float()
    if isinstance(asked.how, LogProbs):
        _, told = log_probs_of_logits(logits.detach(), asked.targets, asked.how)
        return asked.result(-torch.nn.functional.cross_entropy(exact, asked.targets, reduction="none"), told)
    if isinstance(asked.how, LogitRows):
        return asked.of_logits(logits)
    smoothing = asked.how.label_smoothing
    each = torch.nn.functional.cross_entropy(exact, asked.targets, reduction="none", label_smoothing=smoothing)
    found = asked.of_logits(logits.detach() if asked.how.anchor is None else logits, each)
    return {**found, "loss": found["loss"].float()}


_WAYS = {"chunked": _chunked, "kept": _kept, "full": _full, "reference": _reference}
