"""The engine, by types of models: greedy replies of many requests at once equal those of transformers' `generate`, one
by one, whether their tokens stand in one row or each has a forward of its own."""

from __future__ import annotations

import pytest

from tests.busy_engine import answers, differing, engine_of, generated, greedy, prompts
from tests.tiny_models import tiny_model
from tests.unit.engines.test_scoring import pairs_of, plain
from tunesmith.engines.base import Request
from tunesmith.engines.batching.runners import Together
from tunesmith.models.families import FLAT, SHIMS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch_one_thread")]

# Types that read flat batches, of which the layers change keys and values between keeping them and attending to them.
OTHERWISE = {
    "axk1", "deepseek_v2", "deepseek_v3", "diffllama", "glm4_moe_lite", "jetmoe", "longcat_flash", "minicpm3", "youtu"
}  # fmt: skip


# Types of which transformers' own forward changes the logits of a token with those behind it: what a token attends to
# is chosen among all.
NOT_CAUSAL = {"axk2", "deepseek_v32", "doge", "dots3_note_text"}


@pytest.mark.parametrize("model_type", sorted(FLAT | SHIMS.keys()))
def test_replies_equal_those_of_generate(model_type: str) -> None:
    asked = prompts(6, 26, 97)
    reference = tiny_model(model_type, None)
    said = [generated(reference, prompt, 16) for prompt in asked]
    assert sum(one.sure for one in said) > 40, "hardly anything is compared"
    with engine_of(tiny_model(model_type, None), max_batch_requests=4, prefill_chunk_tokens=15) as engine:
        together = isinstance(engine._fitted.runner, Together)
        found = answers(engine, [Request(prompt, greedy(16)) for prompt in asked])
    assert differing(found, said) == []
    assert together == (model_type in FLAT - OTHERWISE or model_type in ("phimoe", "qwen2_moe"))


@pytest.mark.parametrize("model_type", sorted((FLAT | SHIMS.keys()) - NOT_CAUSAL))
def test_scores_equal_those_of_a_plain_forward(model_type: str) -> None:
    reference = tiny_model(model_type, None)
    pairs = [pair for pair in pairs_of(reference) if len(pair[0]) + len(pair[1]) <= 50]
    with engine_of(tiny_model(model_type, None)) as engine:
        found = engine.score(pairs)
    for score, pair in zip(found, pairs, strict=True):
        assert score.logprobs == pytest.approx(plain(reference, *pair).logprobs, abs=1e-5)
