"""The engine, by types of models that see or hear: greedy replies of many requests at once, with media and without,
equal those of transformers' `generate` on what the model's own processor makes of the same texts and media."""

from __future__ import annotations

import pytest

from tests.busy_engine import answers, differing
from tests.media_families import CASES
from tests.seeing_engine import Sighted

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("torch_one_thread"),
    # Processors of transformers make arrays of tensors.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

TOKENS = 10
# One of each way in which features reach tokens, positions are counted and masks are made.
TYPES = (
    "llava", "llava_next", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "glm4v", "ernie4_5_vl_moe", "gemma3",
    "gemma4", "paligemma", "mllama", "internvl", "idefics3", "qwen2_audio", "qwen2_5_omni"
)  # fmt: skip
WITHOUT_CACHE = ("llava", "qwen2_vl", "gemma3", "mllama")


@pytest.mark.parametrize(
    ("name", "cache"), [*((name, True) for name in TYPES), *((name, False) for name in WITHOUT_CACHE)]
)
def test_replies_equal_those_of_generate(name: str, cache: bool) -> None:
    sighted = Sighted(CASES[name])
    chats, model = sighted.chats(), sighted.model()
    said = [sighted.generated(model, messages, TOKENS) for messages in chats]
    requests = [sighted.request(messages, TOKENS) for messages in chats]
    assert requests[1].prompt == requests[2].prompt
    assert sum(one.sure for one in said) > 3 * TOKENS, "hardly anything is compared"
    with sighted.engine(max_batch_requests=3, use_kv_cache=cache) as engine:
        found = answers(engine, requests)
    assert [piece.end.error for piece in found if piece.end] == [None] * len(chats)
    assert differing(found, said, sighted.renderer.stop_ids) == []
