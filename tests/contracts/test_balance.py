"""The types whose routers tell how they send tokens: our loss of them is the one of transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny_models import tiny_model
from tunesmith.losses.load_balance import load_balance
from tunesmith.models.families import BALANCED

pytestmark = pytest.mark.usefixtures("torch_one_thread")


def outputs(model_type: str) -> tuple[Any, Any, torch.Tensor]:
    ids = torch.randint(3, 97, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, 6:] = 0
    model = tiny_model(model_type, None)
    return model, model(input_ids=ids, attention_mask=mask, output_router_logits=True, use_cache=False), mask


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(BALANCED))
def test_our_loss_is_that_of_transformers(model_type: str) -> None:
    with torch.no_grad():
        model, found, mask = outputs(model_type)
    assert float(found.aux_loss.detach()) == pytest.approx(
        float(load_balance(found.router_logits, model.num_experts_per_tok, mask)), rel=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["afmoe", "deepseek_v3", "doge", "dots1", "llama4_text", "zaya"])
def test_the_others_tell_nothing(model_type: str) -> None:
    _, found, _ = outputs(model_type)
    assert getattr(found, "aux_loss", None) is None
