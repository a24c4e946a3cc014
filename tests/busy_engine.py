"""An engine over a model without a tokenizer, many requests at once, and what transformers' `generate` says to each."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch

from tunesmith.config.engine import EngineConfig
from tunesmith.engines.base import Piece, Request, Sampling
from tunesmith.engines.hf import HFEngine

GAP = 1e-4
"""Where the two best logits are closer than this, rounding may decide."""


class Numbers:
    """A tokenizer that writes each token as its number, and a space."""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(f"{token} " for token in ids)


def engine_of(model: Any, stop_ids: Sequence[int] = (2,), **settings: Any) -> HFEngine:
    renderer: Any = SimpleNamespace(stop_ids=tuple(stop_ids), media=None)
    return HFEngine(model, Numbers(), renderer, SimpleNamespace(), EngineConfig(**settings))  # type: ignore[arg-type]


def greedy(tokens: int, **more: Any) -> Sampling:
    return Sampling(do_sample=False, max_new_tokens=tokens, **more)


def prompts(count: int, longest: int, vocabulary: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Of all lengths from 1 on."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [1 + number * (longest - 1) // max(count - 1, 1) for number in range(count)]
    return [tuple(torch.randint(3, vocabulary, (size,), generator=generator).tolist()) for size in sizes]


class Said(NamedTuple):
    """A reply of `generate`, and how many of its tokens come before the first one that rounding may decide."""

    ids: list[int]
    sure: int


def generated(model: Any, prompt: Sequence[int], tokens: int, stop_ids: Sequence[int] = (2,)) -> Said:
    output = model.generate(
        torch.tensor([list(prompt)]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=tokens,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ids = output.sequences[0, len(prompt) :].tolist()
    best = torch.stack([logits[0] for logits in output.logits]).topk(2).values
    close = (best[:, 0] - best[:, 1] < GAP).nonzero().flatten().tolist()
    return Said(ids, close[0] if close else len(ids))


def ids_of(piece: Piece) -> list[int]:
    return [token.id for token in piece.tokens]


def answers(engine: HFEngine, requests: Sequence[Request]) -> list[Piece]:
    found = dict(engine.run_all(requests))
    return [found[number] for number in range(len(requests))]


def differing(pieces: Sequence[Piece], said: Sequence[Said], stop_ids: Sequence[int] = (2,)) -> list[int]:
    """Numbers of replies that differ from `generate` before rounding may decide."""
    wrong = []
    for number, (piece, expected) in enumerate(zip(pieces, said, strict=True)):
        ids = [token for token in expected.ids if token not in stop_ids]
        sure = min(expected.sure, len(ids))
        same = ids_of(piece)[:sure] == ids[:sure]
        if expected.sure == len(expected.ids):
            stopped = bool(expected.ids) and expected.ids[-1] in stop_ids
            same &= ids_of(piece) == ids and piece.end is not None
            same &= piece.end is not None and piece.end.finish_reason == ("stop" if stopped else "length")
        if not same:
            wrong.append(number)
    return wrong
