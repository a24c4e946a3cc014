"""Supervised fine-tuning: cross-entropy at the tokens that the model is to write.

B rows, T positions, N trained positions. The model's forward ends in the loss (`models/loss_forward.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.core.types import Chat
from tunesmith.losses.asft import Anchor
from tunesmith.losses.token import CROSS_ENTROPY, TokenLoss, dft, eaft
from tunesmith.objectives.base import LogitReference, LossOutput, Needs, Objective
from tunesmith.objectives.inputs import IGNORE, model_inputs

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.config.objective import ObjectiveConfig

__all__ = ["SupervisedFineTuning", "trained"]


def trained(batch: Mapping[str, Tensor]) -> dict[str, Tensor | None]:
    """What the model's forward is told of the loss: `loss_positions` [N, 2], `loss_targets` [N] and `loss_weights` [N]
    (None: all 1). `labels` and, if there are any, `weights` of the batch are [B, T].

    The hidden state at position t predicts the token at t + 1.
    """
    labels = batch["labels"][:, 1:]
    # Of a device this asks a number, and waits. The batch's way to it has just waited for the same work.
    positions = (labels != IGNORE).nonzero()
    row, place = positions.unbind(1)
    weights = batch["weights"][:, 1:][row, place] if "weights" in batch else None
    return {"loss_positions": positions, "loss_targets": labels[row, place], "loss_weights": weights}


class SupervisedFineTuning(Objective):
    """Units are trained tokens, each by its weight; what the loss makes of a token (`losses/token.py`) does not count.

    Metrics: `accuracy` where it is asked for, and `nll_loss` where the loss is not plain cross-entropy: that would be
    it, of all trained tokens alike. With a reference (`use_asft_loss`) `kl`, the divergence from it in nats. In
    training of a mixture of experts with a load-balancing loss, `aux_loss`.
    """

    needs: ClassVar[Needs] = Needs(example=Chat)
    unit: ClassVar[str] = "tokens"
    losses: ClassVar[Mapping[str, Callable[[ObjectiveConfig], TokenLoss]]] = {
        "use_dft_loss": lambda config: dft(),
        "use_asft_loss": lambda config: dft(),
        "use_eaft_loss": lambda config: eaft(config.eaft_alpha),
    }
    """Keys that ask for another loss; the config has one of them at most."""

    def __init__(self, config: ObjectiveConfig, *, label_smoothing: float = 0.0) -> None:
        super().__init__(config, label_smoothing=label_smoothing)
        asked = [make(config) for key, make in self.losses.items() if getattr(config, key)]
        self.loss = replace(asked[0] if asked else CROSS_ENTROPY, label_smoothing=label_smoothing)
        self.alpha = config.asft_alpha if config.use_asft_loss and "use_asft_loss" in self.losses else None

    @property
    def compares(self) -> bool:
        return self.alpha is not None

    def provable(self) -> SupervisedFineTuning:
        """Plain cross-entropy. Factors and smoothing multiply rounding, most of it that of torch's own sum over the
        vocabulary: of SmolLM2-135M on a CPU the gradient of smoothed losses differs by 4e-4, and the chunked one is
        closer to float64."""
        found = copy(self)
        found.loss, found.alpha = CROSS_ENTROPY, None
        return found

    def count_units(self, batch: Mapping[str, Any]) -> float:
        trained = batch["labels"][:, 1:] != IGNORE
        return float(batch["weights"][:, 1:][trained].double().sum() if "weights" in batch else trained.sum())

    def compute(self, model: Any, batch: Mapping[str, Any]) -> LossOutput:
        inputs, asked = model_inputs(batch), trained(batch)
        found = model(**inputs, **asked, loss_kind=self._loss(inputs, asked))
        targets, weights = asked["loss_targets"], asked["loss_weights"]
        assert targets is not None
        count = targets.new_tensor(len(targets)).double()
        units = count if weights is None else weights.double().sum()
        metrics = {"accuracy": found["correct"].sum().double()} if self.config.compute_accuracy else {}
        if self.loss != CROSS_ENTROPY:
            metrics["nll_loss"] = -found["log_probs"].double().sum()
        if "divergence" in found:
            metrics["kl"] = found["divergence"].double().sum()
        if "aux_loss" in found:
            metrics["aux_loss"] = found["aux_loss"].double() * count
        return LossOutput(found["loss"], units, count, metrics, at_evaluation=("accuracy", "nll_loss"))

    def _loss(self, inputs: Mapping[str, Any], asked: Mapping[str, Any]) -> TokenLoss:
        """The loss of these tokens; of the reference nothing but hidden states is kept."""
        if self.alpha is None:
            return self.loss
        assert isinstance(self.reference, LogitReference), "given before the first batch"
        where = {name: asked[name] for name in ("loss_positions", "loss_targets")}
        return replace(self.loss, anchor=Anchor(self.alpha, self.reference.logits(inputs, where)))
