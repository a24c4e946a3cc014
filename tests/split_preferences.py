"""One optimizer step of learning from preferences, split as one likes, by our Trainer: what the log tells of it and its
gradient. And what they should be, from each sequence alone.

`take_step` runs it in this process; `tests/split_steps.Ranks` has two processes run it together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from tests.pairs import (
    answer_dataset,
    answers_alone,
    classifier_of,
    feedback_alone,
    pair_dataset,
    policy_of,
    rewards_alone,
)
from tests.split_steps import first_step, flat_gradient, with_adapter
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.config.preference_facts import PAIR_FACTS
from tunesmith.data.dataset import DISLIKED, LIKED
from tunesmith.data.pack import pack, units
from tunesmith.losses.preference import PairScores

LAYOUTS = ("padded", "flat", "shared", "packs", "rows of packs")
WAYS = ("chunked", "adapted", "kept", "full")
LONGEST = 16  # tokens of an answer with its prompt


@dataclass(frozen=True)
class Case:
    stage: str
    keys: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> ObjectiveConfig:
        return ObjectiveConfig(stage=self.stage, **self.keys)


CASES = {
    **{name: Case("dpo", {"pref_loss": (name,)}) for name in PAIR_FACTS if not PAIR_FACTS[name].has_to_smooth},
    "exo_pair": Case("dpo", {"pref_loss": ("exo_pair",), "dpo_label_smoothing": 0.1}),
    # As steep as it is by itself, it makes twenty times of what sums of log probabilities are rounded by.
    "discopop": Case("dpo", {"pref_loss": ("discopop",), "discopop_tau": 0.5}),
    "WPO": Case("dpo", {"use_wpo": True}),
    "WPO of a whole step": Case("dpo", {"pref_loss": ("kto_pair", "sigmoid"), "use_wpo": True}),
    "mixture": Case("dpo", {"pref_loss": ("sigmoid", "bco_pair", "sft"), "pref_loss_weights": (0.8, 0.2, 1.0)}),
    "mixture of whole steps": Case("dpo", {"pref_loss": ("aot", "kto_pair", "orpo"), "pref_loss_weights": (2, 0.5, 1)}),
    "pref_ftx": Case("dpo", {"pref_ftx": 0.5}),
    "pref_ftx of a whole step": Case("dpo", {"pref_loss": ("aot_unpaired",), "pref_ftx": 0.5}),
    "pref_bco_weight": Case("dpo", {"pref_loss": ("hinge",), "pref_bco_weight": 0.3}),
    "ld_alpha": Case("dpo", {"ld_alpha": 0.4}),
    "kto": Case("kto"),
    "kto weights": Case("kto", {"kto_chosen_weight": 2.0, "kto_rejected_weight": 0.25, "pref_beta": 0.5}),
    "kto ftx": Case("kto", {"pref_ftx": 0.3}),
    "bco": Case("kto", {"kto_loss": "bco"}),
    "apo": Case("kto", {"kto_loss": "apo_zero_unpaired"}),
    "rm": Case("rm"),
    "rm centred": Case("rm", {"center_rewards_coefficient": 0.2}),
    "rm margins": Case("rm"),
}


@dataclass(frozen=True)
class Step:
    """`sizes`: tokens of the prompt, of the chosen answer and of the rejected one of each pair; of single answers those
    of the prompt and of the answer, which is liked where the third number is odd. `weighted`: whether tokens have
    weights. The rest as in `tests/split_steps.Step`."""

    case: str
    sizes: tuple[tuple[int, int, int], ...]
    seed: int
    way: str
    layout: str
    batch: int
    spare: int
    weighted: bool

    @property
    def adapted(self) -> bool:
        """An adapter's reference is the model without it. The head of a reward model has no adapter here."""
        return self.way == "adapted" and CASES[self.case].stage != "rm"


def rows_of(step: Step) -> Any:
    """What a run of the case would have: pairs as sequences, or answers with answers to other prompts."""
    weights = (0.5, 1.0, 2.0) if step.weighted else ()
    if CASES[step.case].stage != "kto":
        margins = [0.25 * one - 0.5 * two for one, two, _ in step.sizes] if "margins" in step.case else ()
        return pair_dataset(step.sizes, seed=step.seed, weights=weights, margins=margins)
    kinds = [LIKED if odd % 2 else DISLIKED for *_, odd in step.sizes]
    sizes = [(prompt, size) for prompt, size, _ in step.sizes]
    return answer_dataset(sizes, kinds, longest=LONGEST, seed=step.seed, weights=weights)


def take_step(step: Step, world_size: int = 1) -> tuple[dict[str, float], Tensor]:
    """(metrics and loss as logged, gradient of all weights as one float64 vector)."""
    from tunesmith.data.collate import FlatCollator, PaddingCollator
    from tunesmith.objectives import OBJECTIVES
    from tunesmith.train.reference import Beside, WithoutAdapter

    case, rows = CASES[step.case], rows_of(step)
    dataset = pack(rows, 3 * LONGEST, seed=0) if "packs" in step.layout else units(rows)
    collate: Any = PaddingCollator(0)
    if step.layout != "padded":
        collate = FlatCollator(0, one_row=step.layout != "rows of packs", shares=step.layout in ("shared", "packs"))
    attention = "sdpa" if step.layout == "rows of packs" else None
    objective = OBJECTIVES.get(case.stage)(case.config)
    if case.stage == "rm":
        model = classifier_of("chunked", attention)
    elif step.adapted:
        model = with_adapter(policy_of("chunked", 2, attention))
        objective.reference = WithoutAdapter(model)
    else:
        way = "chunked" if step.way == "adapted" else step.way
        model = policy_of(way, 1, attention)
        objective.reference = Beside(policy_of(way, 2, attention))
    told, gradient = first_step(
        model, objective, dataset, collate, batch=step.batch, spare=step.spare, world_size=world_size
    )
    names = [name for name in told if name == "loss" or name in METRICS or "/" in name]
    return {name: told[name] for name in names}, gradient


METRICS = ("accuracy", "margin", "kl", "entropy", "sft_loss", "odds_ratio_loss")


@cache
def plain_models(kind: str) -> tuple[Any, Any]:
    """(policy, reference) with transformers' own forward."""
    if kind == "rm":
        return classifier_of(None), None
    if kind == "adapted":
        return with_adapter(policy_of(None, 2)), policy_of(None, 2)
    return policy_of(None, 1), policy_of(None, 2)


def one_by_one(step: Step) -> tuple[dict[str, float], Tensor]:
    """What the step should give: each sequence alone through transformers' own forward, and the loss of all of them as
    one step."""
    case = CASES[step.case]
    models = plain_models("adapted" if step.adapted else "rm" if case.stage == "rm" else "plain")
    models[0].zero_grad()
    found = {"dpo": _pairs, "kto": _answers, "rm": _rewards}[case.stage]
    losses, told = found(models, list(units(rows_of(step))), case.config)
    loss = losses.mean()
    loss.backward()
    return {**told, "loss": float(loss.detach())}, flat_gradient(models[0])


def _pairs(models: Any, rows: list[dict[str, Any]], config: ObjectiveConfig) -> tuple[Tensor, dict[str, float]]:
    from tunesmith.objectives.dpo import mixture_of

    mixture = mixture_of(config)
    columns = zip(*(_scores(models, row, config) for row in rows), strict=True)
    scores = PairScores(*(torch.stack(column) for column in columns))
    return mixture(scores), {name: float(total) / len(rows) for name, total in mixture.metrics(scores).items()}


def _scores(models: Any, row: dict[str, Any], config: ObjectiveConfig) -> list[Tensor]:
    """The columns of PairScores for a pair."""
    policy, reference = answers_alone(models[0], row), answers_alone(models[1], row)
    shorter = min(len(one.log_probs) for one in policy)

    def total(values: Tensor, weights: Tensor) -> Tensor:
        alpha = 1.0 if config.ld_alpha is None else config.ld_alpha
        return (values * weights)[:shorter].sum() + alpha * (values * weights)[shorter:].sum()

    lengths = [torch.tensor(float(len(one.log_probs)), dtype=torch.float64) for one in policy]
    near = [(one.log_probs.detach() - one.collision).mean() for one in policy]
    sums = [[total(one.log_probs, one.weights) for one in both] for both in (policy, reference)]
    return [*sums[0], *lengths, *(one.detach() for one in sums[1]), *near]


def _answers(models: Any, rows: list[dict[str, Any]], config: ObjectiveConfig) -> tuple[Tensor, dict[str, float]]:
    return feedback_alone(models, rows, config)


def _rewards(models: Any, rows: list[dict[str, Any]], config: ObjectiveConfig) -> tuple[Tensor, dict[str, float]]:
    chosen, rejected = rewards_alone(models[0], rows).double().unbind(1)
    told = {"rewards/chosen": chosen, "rewards/rejected": rejected, "margin": chosen - rejected}
    means = {name: float(values.detach().mean()) for name, values in told.items()}
    means["accuracy"] = float((chosen > rejected).double().mean())
    margins = torch.tensor([float(row["margins"][0]) if "margins" in row else 0.0 for row in rows])
    apart = -logsigmoid(chosen - rejected - margins)
    return apart + config.center_rewards_coefficient * (chosen + rejected) ** 2, means
