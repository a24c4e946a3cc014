"""The engine, by types of models that see or hear: greedy replies of many requests at once, with media and without,
equal those of transformers' `generate` on what the model's own processor makes of the same texts and media."""

from __future__ import annotations

from typing import Any

import pytest

from tests.busy_engine import answers, differing, greedy
from tests.media_families import CASES
from tests.seeing_engine import Sighted
from tunesmith.engines.base import Piece
from tunesmith.engines.batching.runners import Alone, Together
from tunesmith.models.families.flat import SEEING

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("torch_one_thread"),
    # Processors of transformers make arrays of tensors.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

TOKENS = 10
# One of each way in which features reach tokens, positions are counted and masks are made.
ALONE = ("llava", "qwen2_vl", "qwen3_5", "gemma3", "gemma4", "paligemma", "mllama", "qwen2_audio", "qwen2_5_omni")
WITHOUT_CACHE = ("llava", "qwen2_vl", "gemma3", "mllama")
IN_ONE_ROW = (
    "llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "ernie4_5_vl_moe", "internvl", "idefics3"
)  # fmt: skip


def compare(name: str, runner: type, **settings: Any) -> list[Piece]:
    """The replies to all chats of a family, asked together."""
    sighted = Sighted(CASES[name])
    chats, model = sighted.chats(), sighted.model()
    said = [sighted.generated(model, messages, TOKENS) for messages in chats]
    requests = [sighted.request(messages, greedy(TOKENS, logprobs=0)) for messages in chats]
    assert requests[1].prompt == requests[2].prompt
    assert sum(one.sure for one, _ in said) > 3 * TOKENS, "hardly anything is compared"
    with sighted.engine(max_batch_requests=3, **settings) as engine:
        assert type(engine._fitted.runner) is runner
        found = answers(engine, requests)
        again = answers(engine, requests)
    for pieces in (found, again):
        assert [piece.end.error for piece in pieces if piece.end] == [None] * len(chats)
        assert differing(pieces, [one for one, _ in said], sighted.renderer.stop_ids) == []
        for piece, (one, likely) in zip(pieces, said, strict=True):
            own = [token.logprob for token in piece.tokens[: one.sure]]
            assert own == pytest.approx(likely[: len(own)], abs=1e-4)
    return again


@pytest.mark.parametrize(
    ("name", "cache"), [*((name, True) for name in ALONE), *((name, False) for name in WITHOUT_CACHE)]
)
def test_replies_one_by_one_equal_those_of_generate(name: str, cache: bool) -> None:
    compare(name, Alone, one_by_one=name in SEEING, use_kv_cache=cache)


@pytest.mark.parametrize("name", IN_ONE_ROW)
def test_replies_in_one_row_equal_those_of_generate(name: str) -> None:
    """Prompts come in pieces, and what requests begin with alike is computed once."""
    pieces = compare(name, Together, prefill_chunk_tokens=7)
    ends = [piece.end for piece in pieces if piece.end]
    assert all(end.cached_tokens > 10 for end in ends)
    assert ends[1].cached_tokens == ends[1].prompt_tokens - 1  # with its own picture
