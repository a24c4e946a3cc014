"""Rows of a dataset as requests: the prompt that a row ends with, and what was expected of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.core.types import Placed
from tunesmith.engines.base import Piece, Request, Sampling

if TYPE_CHECKING:
    from tunesmith.render import Renderer

__all__ = ["ANSWERED", "answer_of", "media_of", "prompt_and_label", "request_of", "seed_of"]

ANSWERED = ("prompt", "predict", "label")
"""The names of an answered row: what was asked, what the model wrote, what was expected."""


def prompt_and_label(row: dict[str, Any], stop_ids: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Ids before the last trained run of a row, and that run without its stop token."""
    trained = np.asarray(row["trained"], dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], trained, [False]]).astype(np.int8)))
    begin, end = int(edges[-2]), int(edges[-1])
    ids = [int(token) for token in row["input_ids"]]
    return ids[:begin], [token for token in ids[begin:end] if token not in stop_ids]


def request_of(row: dict[str, Any], renderer: Renderer, sampling: Sampling) -> Request:
    """The last turn of a row as a request: its prompt is exactly what training saw."""
    prompt, _ = prompt_and_label(row, renderer.stop_ids)
    media = tuple(one for one in media_of(row) if one.end <= len(prompt))
    return Request(tuple(prompt), sampling, media=media)


def media_of(row: dict[str, Any]) -> list[Placed]:
    """What tokens of a row stand for."""
    return [one for own in row.get("media", ()) for one in own]


def answer_of(
    tokenizer: Any, renderer: Renderer, row: dict[str, Any], reply: Piece, sampling: Sampling
) -> dict[str, str]:
    """{prompt, predict, label} as texts. Raises the error that ended the reply."""
    if reply.end and reply.end.error:
        raise reply.end.error
    prompt, label = prompt_and_label(row, renderer.stop_ids)
    expected = tokenizer.decode(
        label, skip_special_tokens=sampling.skip_special_tokens, clean_up_tokenization_spaces=False
    )
    texts = (tokenizer.decode(prompt, skip_special_tokens=False), reply.text, expected)
    return dict(zip(ANSWERED, texts, strict=True))


def seed_of(seed: int, row: int) -> int:
    """Of one row, whoever answers it and when."""
    return int(np.random.SeedSequence([seed, row]).generate_state(1, np.uint64)[0] >> np.uint64(1))
