"""The load-balancing loss of a mixture of experts beside the loss of its tokens, in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.losses.load_balance import load_balance
from tunesmith.models.families import BALANCED
from tunesmith.models.mixture import mixture_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Balance", "check_balance"]


def check_balance(coefficient: float | None, model_type: str, settings: Any) -> None:
    """Raises UsageError for a type of model whose routers tell nothing, and for a config of transformers in which no
    layer has experts: some types of mixtures are dense in some sizes."""
    if coefficient is None:
        return
    where = f"moe_aux_loss_coef: {coefficient:g}"
    if model_type not in BALANCED:
        what = f"a model of the type {model_type} has no load-balancing loss"
        fix = f"leave moe_aux_loss_coef out; types that have it: {', '.join(sorted(BALANCED))}"
        raise UsageError(Problem("E-MODEL-026", what, where, fix=fix))
    if mixture_of(settings) is None:
        what = f"this model of the type {model_type} is dense: no layer of it has experts"
        raise UsageError(Problem("E-MODEL-026", what, where, fix="leave moe_aux_loss_coef out"))


class Balance:
    """`coefficient` times the loss of the routers is added for each unit of the sum over tokens, so it is a part of the
    mean loss, and a micro-batch counts by its trained tokens. transformers adds it once for each micro-batch."""

    def __init__(self, model: Any, coefficient: float) -> None:
        mixture = mixture_of(model.config)
        assert mixture is not None, "checked before the weights were read"
        self.coefficient, self._chosen = coefficient, round(mixture.chosen)
        self.logits: Sequence[Tensor] | None = None
        """Of each router [N, E], of the forward that was made last."""

    def note(self, output: Any) -> None:
        """Look at what the model, or its trunk, has given."""
        self.logits = getattr(output, "router_logits", None)

    def take(self, mask: Tensor | None) -> Tensor:
        """The loss [] of the routers in the forward that was noted; mask [B, T] of its tokens, None: all are real."""
        assert self.logits, "a forward that was asked for them"
        logits, self.logits = self.logits, None
        return load_balance(logits, self._chosen, mask)
