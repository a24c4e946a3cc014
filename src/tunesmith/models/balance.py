"""The load-balancing loss of a mixture of experts beside the loss of its tokens, in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import Problem, UsageError
from tunesmith.losses.load_balance import load_balance
from tunesmith.models.families import BALANCED

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Balance", "check_balance"]


def check_balance(coefficient: float | None, model_type: str) -> None:
    """Raises UsageError for a type of model whose routers tell nothing."""
    if coefficient is not None and model_type not in BALANCED:
        what = f"a model of the type {model_type} has no load-balancing loss"
        fix = f"leave moe_aux_loss_coef out; types that have it: {', '.join(sorted(BALANCED))}"
        raise UsageError(Problem("E-MODEL-026", what, f"moe_aux_loss_coef: {coefficient:g}", fix=fix))


class Balance:
    """`coefficient` times the loss of the routers is added for each unit of the sum over tokens, so it is a part of the
    mean loss, and a micro-batch counts by its trained tokens. transformers adds it once for each micro-batch."""

    def __init__(self, model: Any, coefficient: float) -> None:
        self.coefficient, self._chosen = coefficient, int(model.num_experts_per_tok)
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
