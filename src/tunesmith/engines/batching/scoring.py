"""How likely given continuations of prompts are, many at a time.

A sequence is a prompt and its continuation without the last token: that one is only looked up. So continuations of one
token share the forward of their prompt, as do all that differ in their last token.

N tokens of a continuation, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from tunesmith.core.errors import DataError, Problem
from tunesmith.engines.base import Pair, Score
from tunesmith.engines.batching.failures import no_memory, not_finite
from tunesmith.engines.batching.runners import Runner, Scored
from tunesmith.models.out_of_memory import free_memory, is_out_of_memory

__all__ = ["Slice", "check_pairs", "score_slice", "slices"]

Slice: TypeAlias = dict[tuple[int, ...], list[int]]
"""Sequences that are read at a time, and the numbers of the pairs that each serves."""
_ROWS = 64
"""Rows of logits that are in float32 at a time."""


def check_pairs(pairs: Sequence[Pair], context: int | None) -> None:
    """Raises DataError for an empty side, and where more is to be read than the context holds."""
    for prompt, continuation in pairs:
        if not prompt or not continuation:
            what = "there is nothing to score" if prompt else "the first token has nothing before it to follow from"
            fix = "begin the prompt with a token, such as the one that begins texts" if not prompt else ""
            raise DataError(Problem("E-ENGINE-011", what, got="an empty text", fix=fix))
        if context and len(prompt) + len(continuation) - 1 > context:
            got = f"{len(prompt)} and {len(continuation)} tokens, the context is {context}"
            what, fix = "prompt and continuation are longer than the context", "cut the beginning of the prompt"
            raise DataError(Problem("E-ENGINE-011", what, got=got, fix=fix))


def slices(pairs: Sequence[Pair], most: int) -> Iterator[Slice]:
    """The sequences of all pairs, the longest first, in slices of at most `most` tokens, or of one sequence."""
    found: Slice = {}
    for number, (prompt, continuation) in enumerate(pairs):
        found.setdefault((*prompt, *continuation[:-1]), []).append(number)
    own: Slice = {}
    left = most
    for sequence in sorted(found, key=len, reverse=True):
        if own and len(sequence) > left:
            yield own
            own, left = {}, most
        own[sequence] = found[sequence]
        left -= len(sequence)
    if own:
        yield own


def score_slice(
    runner: Runner, device: torch.device, model: str, pairs: Sequence[Pair], own: Slice, adapter: str | None
) -> dict[int, Score]:
    """By number of the pair. Where memory runs out, the slice is read in halves. Raises DataError where values are not
    finite, MachineError where there is no memory for one sequence."""
    try:
        return _score(runner, model, pairs, own, adapter)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    free_memory(device)  # the exception is gone by now: its frames held tensors
    if len(own) == 1:
        raise no_memory()
    items = list(own.items())
    halves = (dict(items[: len(items) // 2]), dict(items[len(items) // 2 :]))
    first, second = (score_slice(runner, device, model, pairs, half, adapter) for half in halves)
    return first | second


def _score(runner: Runner, model: str, pairs: Sequence[Pair], own: Slice, adapter: str | None) -> dict[int, Score]:
    asked = [Scored(ids, max(len(pairs[number][1]) for number in numbers)) for ids, numbers in own.items()]
    found: dict[int, Score] = {}
    for numbers, logits in zip(own.values(), runner.logits(asked, adapter), strict=True):
        for number in numbers:
            continuation = pairs[number][1]
            score = _of_logits(logits[-len(continuation) :], continuation)
            if any(value != value for value in score.logprobs):
                raise not_finite(model)
            found[number] = score
    return found


def _of_logits(logits: Tensor, continuation: Sequence[int]) -> Score:
    """logits [N, V] of the places before the tokens"""
    ids = torch.tensor(list(continuation), device=logits.device)
    logprobs: list[float] = []
    greedy = True
    for rows, wanted in zip(logits.split(_ROWS), ids.split(_ROWS), strict=True):
        scores = rows.float().log_softmax(dim=-1)
        logprobs += scores.gather(1, wanted[:, None])[:, 0].tolist()
        greedy = greedy and bool((scores.argmax(dim=-1) == wanted).all())
    return Score(tuple(logprobs), greedy)
