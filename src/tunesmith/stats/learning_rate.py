"""A learning rate to start from, by how many tokens are learned from in a step.

The rule of LlamaFactory's script: 3e-4 for steps of 4 million tokens, which is what LLaMA 7B was pre-trained with
(https://arxiv.org/abs/2302.13971, table 2), and from there by the square root of the tokens. It is a rule of thumb for
full weights; docs/stats.md tells its limits.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

from tunesmith.stats.rows import build, make_renderer_of, steps_of

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["BASE_RATE", "BASE_TOKENS", "Suggestion", "rate_for", "suggest"]

BASE_RATE, BASE_TOKENS = 3e-4, 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """rows: of a step, on all devices; tokens and trained: in a step, on average; given: what the config says."""

    learning_rate: float
    given: float
    finetuning_type: str
    rows: int
    tokens: float
    trained: float
    steps: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rate_for(trained: float) -> float:
    """trained: tokens that a step learns from."""
    return BASE_RATE * sqrt(trained / BASE_TOKENS)


def suggest(config: RunConfig) -> Suggestion:
    """From the rows of the config, cut and packed as training does."""
    from tunesmith.train.plan import resolve_plan

    plan = resolve_plan(config)
    renderer, _ = make_renderer_of(config)
    train = build(config, renderer)
    rows = min(plan.global_batch_size, len(train))
    trained = train.num_trained / len(train) * rows
    return Suggestion(
        learning_rate=float(f"{rate_for(trained):.3g}"),
        given=float(config.train.value("learning_rate")),
        finetuning_type=plan.finetuning_type,
        rows=rows,
        tokens=round(train.num_tokens / len(train) * rows, 1),
        trained=round(trained, 1),
        steps=steps_of(config, len(train), plan.global_batch_size),
    )
