"""vLLM and SGLang themselves, on a GPU: greedy replies and scores are those of the engine of this package."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tunesmith.config import load_config
from tunesmith.core.types import Message
from tunesmith.engines import make_engine
from tunesmith.engines.base import Request, Sampling

pytestmark = [pytest.mark.gpu, pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
TEXTS = ("What is a cat?", "Count to five.", "Name a colour.", "Say hello.")


def said(backend: str, **keys: Any) -> tuple[list[list[int]], list[float]]:
    base = {"model_name_or_path": MODEL, "infer_backend": backend, "infer_dtype": "bfloat16", **keys}
    with make_engine(load_config(base, verb="chat")) as engine:
        prompts = [tuple(engine.renderer.encode_prompt([Message("user", text)])) for text in TEXTS]
        greedy = Sampling(do_sample=False, max_new_tokens=24)
        pieces = dict(engine.run_all(Request(prompt, greedy) for prompt in prompts))
        scores = engine.score([(prompt, prompt[:5]) for prompt in prompts])
    ids = [[token.id for token in pieces[number].tokens] for number in range(len(TEXTS))]
    return ids, [sum(score.logprobs) for score in scores]


@pytest.mark.parametrize(
    "backend", [pytest.param(name, marks=pytest.mark.needs_package(name)) for name in ("vllm", "sglang")]
)
def test_the_real_engine_says_what_ours_says(backend: str) -> None:
    limits = {f"{backend}_maxlen": 512}
    found, scores = said(backend, **limits)
    expected, own = said("huggingface")
    # In bfloat16 kernels differ where two words are about equally likely: the beginnings agree.
    assert [ids[:4] for ids in found] == [ids[:4] for ids in expected]
    assert scores == pytest.approx(own, rel=0.02)
