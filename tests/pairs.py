"""Pairs of answers for tests: random ids for tiny models, and chats that a small model can tell apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.tiny_models import tiny_model
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.core.types import Encoded
from tunesmith.data.dataset import CHOSEN, DISLIKED, LIKED, REJECTED, TokenDataset
from tunesmith.data.mismatch import MISMATCHED, mismatched
from tunesmith.data.pack import units
from tunesmith.models import attention
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.models.reward_forward import install_rewards

PAD = 0
SIZES = ((13, 7, 9), (3, 11, 2), (1, 4, 6), (8, 3, 3))
"""(tokens of the prompt, of the chosen answer, of the rejected one)"""


def pair_dataset(
    sizes: Sequence[tuple[int, int, int]] = SIZES,
    vocabulary: int = 97,
    *,
    seed: int = 0,
    weights: Sequence[float] = (),
    margins: Sequence[float] = (),
) -> TokenDataset:
    """Pairs as the data engine makes them, with random ids; `weights`: those of tokens are drawn from these; `margins`:
    of the pairs."""
    generator = np.random.default_rng(seed)
    sequences = []
    for prompt, *answers in sizes:
        asked = generator.integers(3, vocabulary, prompt).tolist()
        sequences += [
            _answered(asked, generator.integers(3, vocabulary, size).tolist(), generator, weights) for size in answers
        ]
    made = TokenDataset.from_encoded(sequences, [CHOSEN, REJECTED] * len(sizes))
    of_both = np.repeat(np.array(margins, np.float32), 2)
    columns = made.stores, made.store, made.starts, made.lengths, made.origins, made.trained_counts, made.kinds
    return TokenDataset(*columns, of_both) if margins else made


def token_pairs(sizes: Sequence[tuple[int, int, int]] = SIZES, vocabulary: int = 97) -> list[dict[str, Any]]:
    """Pairs as the data engine hands them on, with random ids."""
    return list(units(pair_dataset(sizes, vocabulary)))


def answer_dataset(
    sizes: Sequence[tuple[int, int]],
    kinds: Sequence[int],
    vocabulary: int = 97,
    *,
    longest: int,
    seed: int = 0,
    weights: Sequence[float] = (),
) -> TokenDataset:
    """Answers of these kinds with answers to other prompts of at most `longest` tokens; the rest as above."""
    generator = np.random.default_rng(seed)
    sequences = []
    for prompt, size in sizes:
        ids = generator.integers(3, vocabulary, prompt + size).tolist()
        sequences.append(_answered(ids[:prompt], ids[prompt:], generator, weights))
    return mismatched(TokenDataset.from_encoded(sequences, kinds), longest)


def _answered(asked: list[int], answer: list[int], generator: Any, weights: Sequence[float]) -> Encoded:
    ids, trained = asked + answer, [False] * len(asked) + [True] * len(answer)
    drawn = generator.choice(weights, len(ids)).tolist() if weights else None
    return Encoded(ids, trained, weights=drawn)


def token_answers(
    sizes: Sequence[tuple[int, int]] = ((13, 7), (3, 2), (1, 6), (8, 3), (4, 5)), vocabulary: int = 97
) -> list[dict[str, Any]]:
    """Answers that were liked, or not, as the data engine hands them on; sizes: (tokens of the prompt, of the
    answer)."""
    kinds = [DISLIKED if number % 3 == 1 else LIKED for number in range(len(sizes))]
    return list(answer_dataset(sizes, kinds, vocabulary, longest=18, seed=1))


@dataclass(frozen=True)
class Alone:
    """What a model says at the N trained tokens of one sequence that it reads alone; float64 [N], the first with
    gradient. `collision`: log sum_v p[v] ** 2."""

    log_probs: Tensor
    collision: Tensor
    entropy: Tensor
    weights: Tensor

    @property
    def total(self) -> Tensor:
        return (self.log_probs * self.weights).sum()


def alone(model: Any, ids: Any, trained: Any, weights: Any = None) -> Alone:
    """By transformers' own forward and formulas on all logits."""
    sequence, which = torch.tensor(ids).long(), torch.tensor(trained)[1:]
    chances = model(input_ids=sequence[None], use_cache=False).logits[0, :-1].double().log_softmax(-1)[which]
    found, every = chances[torch.arange(len(chances)), sequence[1:][which]], chances.detach()
    counts = torch.ones_like(found) if weights is None else torch.tensor(weights).double()[1:][which]
    return Alone(found, every.exp().square().sum(-1).log(), -(every.exp() * every).sum(-1), counts)


def answers_alone(model: Any, pair: Mapping[str, Any]) -> list[Alone]:
    """Of both answers of a pair."""
    first = int(pair["lengths"][0])
    columns = [pair[name] for name in ("input_ids", "trained", "weights") if name in pair]
    return [alone(model, *(one[part] for one in columns)) for part in (slice(first), slice(first, None))]


def log_probs_alone(model: Any, pair: Mapping[str, Any]) -> list[Tensor]:
    """Of both answers of a pair the log probability of each token, with transformers' own forward of each sequence."""
    return [one.log_probs for one in answers_alone(model, pair)]


def feedback_alone(
    models: Sequence[Any], rows: Sequence[Mapping[str, Any]], config: ObjectiveConfig
) -> tuple[Tensor, dict[str, float]]:
    """(losses [E] of all answers as one step, means that are told of it), from the formulas of the papers. models:
    policy and reference."""

    def read(model: Any, prefix: str = "") -> list[Alone]:
        names = [prefix + name for name in ("input_ids", "trained", "weights") if prefix + name in rows[0]]
        return [alone(model, *(row[name] for name in names)) for row in rows]

    with torch.no_grad():
        others, references = [read(model, MISMATCHED) for model in models], read(models[1])
    policies = read(models[0])
    logps = torch.stack([one.total for one in policies])
    liked = torch.tensor([int(row["kinds"][0]) == LIKED for row in rows])
    rewards = config.pref_beta * (logps - torch.stack([one.total for one in references]))
    kl = max(0.0, float(np.mean([float(one.total - two.total) for one, two in zip(*others, strict=True)])))
    sides = [rewards.detach()[side].mean() for side in (liked, ~liked) if side.any()]
    shift = {"kto": config.pref_beta * kl, "bco": float(sum(sides)) / len(sides)}.get(config.kto_loss, 0.0)
    apart = torch.where(liked, rewards - shift, shift - rewards)
    losses = -apart.sigmoid().log() if config.kto_loss == "bco" else 1 - apart.sigmoid()
    losses = torch.where(liked, config.kto_chosen_weight, config.kto_rejected_weight).double() * losses
    averages = logps / torch.tensor([len(one.log_probs) for one in policies])
    means = {
        f"{name}/{side}": float(values.detach()[which].mean())
        for name, values in (("rewards", rewards), ("logps", logps))
        for side, which in (("chosen", liked), ("rejected", ~liked))
        if which.any()
    }
    means["rewards/accuracies"] = float(((rewards.detach() > shift) == liked).double().mean())
    means["entropy"] = float(torch.stack([one.entropy.mean() for one in policies]).mean())
    if liked.any() and not liked.all():
        means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
    return losses - config.pref_ftx * torch.where(liked, averages, 0.0), means | (
        {"kl": kl} if config.kto_loss == "kto" else {}
    )


def rewards_alone(model: Any, rows: Sequence[Mapping[str, Any]]) -> Tensor:
    """[P, 2] of pairs by transformers' own forward of each sequence."""
    found = []
    for row in rows:
        first = int(row["lengths"][0])
        parts = (torch.tensor(row["input_ids"][part]).long()[None] for part in (slice(first), slice(first, None)))
        found.append(torch.cat([model(input_ids=ids, use_cache=False).logits[:, 0] for ids in parts]))
    return torch.stack(found)


_WHO = ("cat", "dog", "bird", "boy", "girl", "fish", "bear", "frog", "king", "mouse")
_WHERE = ("park", "house", "garden", "forest", "river", "school", "shop", "field")


def stories(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of preferences in ShareGPT's form: a story goes on well, or sadly."""
    generator = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        who, where = generator.choice(_WHO), generator.choice(_WHERE)
        asked = f"One day a little {who} went to the {where}. There it saw a big red ball."
        rows.append(
            {
                "conversations": [{"from": "human", "value": asked}],
                "chosen": {"from": "gpt", "value": f"The {who} was very happy. It played with the ball all day."},
                "rejected": {"from": "gpt", "value": f"The {who} was sad and cried. It did not like the ball."},
            }
        )
    return rows


def write_stories(folder: Path, count: int = 40, seed: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in stories(count, seed)), encoding="utf-8")
    return file


def write_feedback(folder: Path, count: int = 40, seed: int = 0) -> Path:
    """The same stories one by one, with what people thought of them."""
    rows = [
        {"conversations": [*row["conversations"], row[side]], "kto_tag": side == "chosen"}
        for number, row in enumerate(stories(count, seed))
        for side in [("chosen", "rejected")[number % 2]]
    ]
    file = folder / "feedback.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


# ---- policies and references ----


def policy_of(way: str | None, seed: int, kind: str | None = None) -> Any:
    """A small Llama whose weights follow from the seed; with the forward that ends in the loss where a way to it is
    named, and with transformers' own otherwise."""
    attention.register()
    model = tiny_model("llama", (kind or attention.VARLEN) if way else "eager").eval()
    torch.manual_seed(seed)  # the tiny model itself is always the same
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    if way:
        install(model, way, HeadFacts())  # type: ignore[arg-type]
    return model


def classifier_of(way: str | None, attention_kind: str | None = None, *, kind: str = "llama") -> Any:
    """A small model with one label, whose forward ends in rewards where a way is named."""
    from transformers import AutoModelForSequenceClassification

    attention.register()
    torch.manual_seed(1)
    settings = tiny_model(kind, "eager").config
    settings.num_labels, settings.pad_token_id = 1, PAD
    how = (attention_kind or attention.VARLEN) if way else "eager"
    model = AutoModelForSequenceClassification.from_config(settings, attn_implementation=how).eval()
    torch.manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    if way:
        install_rewards(model, way)  # type: ignore[arg-type]
    return model


def gradient_of(loss: Tensor, model: Any) -> Tensor:
    """Of all weights as one vector, zero where a weight has none."""
    weights = list(model.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True)
    each = [torch.zeros_like(weight) if one is None else one for one, weight in zip(found, weights, strict=True)]
    return torch.cat([one.flatten() for one in each]).double()


def steps_of(result: Any) -> list[dict[str, Any]]:
    """What the log of a run tells of its steps."""
    lines = (result.output_dir / "trainer_log.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if "loss" in one]
