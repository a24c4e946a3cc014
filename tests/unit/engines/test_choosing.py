"""How a token is chosen, and where a reply ends: on scores that are written down here."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tunesmith.engines.base import Sampling
from tunesmith.engines.batching.choose import Chooser
from tunesmith.engines.batching.stops import ReplyText

SCORES = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, 1.5])


def choose(
    sampling: Sampling, prompt: tuple[int, ...] = (), times: int = 1, scores: torch.Tensor = SCORES
) -> list[int]:
    chooser = Chooser(sampling, prompt, None)
    return [chooser.choose(scores).id for _ in range(times)]


@pytest.mark.parametrize(
    "settings", [{"top_k": 3}, {"top_p": 0.6}, {"min_p": 0.3}, {"top_k": 4, "top_p": 0.8, "min_p": 0.2}]
)
def test_draws_have_the_shares_that_transformers_gives(settings: dict[str, float]) -> None:
    sampling = Sampling(temperature=0.8, seed=1, **{"top_k": 0, "top_p": 1.0, **settings})
    warpers = [TemperatureLogitsWarper(0.8)]
    warpers += [TopKLogitsWarper(sampling.top_k)] if sampling.top_k else []
    warpers += [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    warpers += [MinPLogitsWarper(sampling.min_p)] if sampling.min_p else []
    shares = LogitsProcessorList(warpers)(torch.tensor([[0]]), SCORES[None].clone())[0].softmax(-1).tolist()
    counts = Counter(choose(sampling, times=4000))
    for token, share in enumerate(shares):
        assert counts[token] / 4000 == pytest.approx(share, abs=0.03)  # four standard deviations of the mean
        assert bool(counts[token]) == bool(share)


def test_penalties_are_those_of_the_field() -> None:
    # Presence counts once: 2.0; 2.0 - 1.2 < 1.5; 1.5 - 1.2 < 1.0; then 2.0 - 1.2 is best.
    assert choose(Sampling(do_sample=False, presence_penalty=1.2), times=4) == [0, 5, 1, 0]
    # Frequency counts: 2.0, then 1.5, 2.0 - 0.9 = 1.1 before 1.0, then 1.0, then 1.5 - 0.9 = 0.6 before 2.0 - 1.8.
    assert choose(Sampling(do_sample=False, frequency_penalty=0.9), times=5) == [0, 5, 0, 1, 5]
    # Neither looks at the prompt; repetition does, and divides: 2.0 / 1.5 < 1.5.
    assert choose(Sampling(do_sample=False, presence_penalty=1.2), prompt=(0,)) == [0]
    assert choose(Sampling(do_sample=False, repetition_penalty=1.5), prompt=(0,)) == [5]


def test_bias_is_added_to_the_scores() -> None:
    assert choose(Sampling(do_sample=False, logit_bias={4: 3.5, 0: -0.1})) == [4]
    assert choose(Sampling(do_sample=False, logit_bias={0: -100.0})) == [5]


def test_log_probabilities_are_those_of_the_model() -> None:
    token = Chooser(Sampling(do_sample=False, logit_bias={4: 9.0}, logprobs=2), (), None).choose(SCORES)
    total = math.log(sum(math.exp(score) for score in SCORES.tolist()))
    assert token.id == 4
    assert token.logprob == pytest.approx(-1.0 - total, abs=1e-5)
    assert [(one, round(value, 4)) for one, value in token.top] == [
        (0, round(2.0 - total, 4)),
        (5, round(1.5 - total, 4)),
    ]


def test_rounding_that_swaps_two_tokens_changes_no_draw() -> None:
    """A seeded reply would depend on the batch otherwise: its scores differ in their last digits."""
    sampling = Sampling(temperature=1.0, top_k=0, top_p=0.9, seed=3)
    scores = torch.tensor([1.0, 1.0 + 1e-6, 0.5, 0.9])
    other = torch.tensor([1.0 + 1e-6, 1.0, 0.5, 0.9])
    assert choose(sampling, times=300, scores=scores) == choose(sampling, times=300, scores=other)


def test_a_constraint_that_allows_nothing_is_an_error() -> None:
    class Nothing:
        finished = False

        def restrict(self, scores: torch.Tensor) -> None:
            scores.fill_(float("-inf"))

        def accept(self, token: int) -> None: ...

    with pytest.raises(ValueError, match="allows no token"):
        Chooser(Sampling(), (), Nothing()).choose(SCORES)


class Letters:
    """Gives the characters of a text one by one, a token each."""

    def push(self, token: int) -> str:
        return chr(token)

    def flush(self) -> str:
        return ""


def told(text: str, stops: tuple[str, ...]) -> tuple[list[str], str | None]:
    reply = ReplyText(Letters(), stops)  # type: ignore[arg-type]
    pieces = [reply.push(ord(letter)) for letter in text]
    return [*pieces, reply.flush()], reply.stopped


def test_what_may_become_a_stop_text_is_held_back() -> None:
    assert told("abXYcXYZd", ("XYZ",)) == (["a", "b", "", "", "XYc", "", "", "", "", ""], "XYZ")
    assert told("abX", ("XYZ",)) == (["a", "b", "", "X"], None)


@given(text=st.text("ab", max_size=12), stops=st.lists(st.text("ab", min_size=1, max_size=3), max_size=3))
def test_a_reply_ends_before_the_first_stop_text(text: str, stops: list[str]) -> None:
    pieces, stopped = told(text, tuple(stops))
    ends = {len(stop) + at: at for stop in stops if (at := text.find(stop)) >= 0}
    assert "".join(pieces) == (text[: _first(text, stops)] if ends else text)
    assert bool(stopped) == bool(ends)


def _first(text: str, stops: list[str]) -> int:
    """Where the stop text begins that is complete first; of several the one that begins first."""
    end = min(text.find(stop) + len(stop) for stop in stops if stop in text)
    return min(text[:end].find(stop) for stop in stops if stop in text[:end])
