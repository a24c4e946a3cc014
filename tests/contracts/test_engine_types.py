"""The engine, by types of models: greedy replies of many requests at once equal those of transformers' `generate`, one
by one, whether their tokens stand in one row or each has a forward of its own."""

from __future__ import annotations

import pytest

from tests.busy_engine import answers, differing, engine_of, generated, greedy, prompts
from tests.tiny_models import tiny_model
from tunesmith.engines.base import Request
from tunesmith.engines.batching.runners import Together
from tunesmith.models.families import FLAT, SHIMS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch_one_thread")]

# Types that read flat batches, of which the layers change keys and values between keeping them and attending to them.
OTHERWISE = {
    "axk1", "deepseek_v2", "deepseek_v3", "diffllama", "glm4_moe_lite", "jetmoe", "longcat_flash", "minicpm3", "youtu"
}  # fmt: skip


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
