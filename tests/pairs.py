"""Pairs of answers for tests: random ids for tiny models, and chats that a small model can tell apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.tiny_models import tiny_model
from tunesmith.core.types import Encoded
from tunesmith.data.dataset import CHOSEN, DISLIKED, LIKED, REJECTED, TokenDataset
from tunesmith.data.mismatch import mismatched
from tunesmith.data.pack import units
from tunesmith.models import attention
from tunesmith.models.loss_forward import HeadFacts, install

SIZES = ((13, 7, 9), (3, 11, 2), (1, 4, 6), (8, 3, 3))
"""(tokens of the prompt, of the chosen answer, of the rejected one)"""


def token_pairs(sizes: Sequence[tuple[int, int, int]] = SIZES, vocabulary: int = 97) -> list[dict[str, Any]]:
    """Pairs as the data engine hands them on, with random ids."""
    generator = np.random.default_rng(0)
    sequences = []
    for prompt, *answers in sizes:
        asked = generator.integers(3, vocabulary, prompt).tolist()
        sequences += [
            Encoded(asked + generator.integers(3, vocabulary, size).tolist(), [False] * prompt + [True] * size)
            for size in answers
        ]
    return list(units(TokenDataset.from_encoded(sequences, [CHOSEN, REJECTED] * len(sizes))))


def token_answers(
    sizes: Sequence[tuple[int, int]] = ((13, 7), (3, 2), (1, 6), (8, 3), (4, 5)), vocabulary: int = 97
) -> list[dict[str, Any]]:
    """Answers that were liked, or not, as the data engine hands them on; sizes: (tokens of the prompt, of the
    answer)."""
    generator = np.random.default_rng(1)
    sequences = [
        Encoded(generator.integers(3, vocabulary, prompt + size).tolist(), [False] * prompt + [True] * size)
        for prompt, size in sizes
    ]
    kinds = [DISLIKED if number % 3 == 1 else LIKED for number in range(len(sizes))]
    return list(mismatched(TokenDataset.from_encoded(sequences, kinds), 18))


def log_probs_alone(model: Any, pair: Mapping[str, Any]) -> list[Tensor]:
    """Of both answers of a pair the log probability of each token, with transformers' own forward of each sequence."""
    first = int(pair["lengths"][0])
    found = []
    for part in (slice(first), slice(first, None)):
        ids = torch.tensor(pair["input_ids"][part]).long()
        trained = torch.tensor(pair["trained"][part])[1:]
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1].double().log_softmax(-1)
        found.append(logits[torch.arange(len(trained)), ids[1:]][trained])
    return found


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
