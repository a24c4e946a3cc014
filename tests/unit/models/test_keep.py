"""`logits_to_keep` for classes of transformers that lack it."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMultimodalLM, TrOCRConfig, TrOCRForCausalLM

from tests.hearing import hearing_model
from tunesmith.core.errors import MachineError
from tunesmith.models.keep import take_logits_to_keep


def test_logits_of_some_positions_are_those_of_all(stories: Path, tmp_path: Path) -> None:
    model = AutoModelForMultimodalLM.from_pretrained(hearing_model(tmp_path, stories)).eval()
    assert "logits_to_keep" not in inspect.signature(model.forward).parameters
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        whole = model(input_ids=ids).logits
        take_logits_to_keep(model)
        assert torch.equal(model(input_ids=ids).logits, whole)
        assert torch.equal(model(input_ids=ids, logits_to_keep=0).logits, whole)
        torch.testing.assert_close(model(input_ids=ids, logits_to_keep=2).logits, whole[:, -2:])
        some = torch.tensor([1, 4])
        torch.testing.assert_close(model(input_ids=ids, logits_to_keep=some).logits, whole[:, some])
        assert torch.equal(model(input_ids=ids).logits, whole), "nothing of a call stays"


def test_a_text_model_that_lacks_it_is_refused() -> None:
    model = TrOCRForCausalLM(TrOCRConfig(vocab_size=20, d_model=8, decoder_layers=1, decoder_attention_heads=1))
    with pytest.raises(MachineError) as caught:
        take_logits_to_keep(model)
    assert caught.value.code == "E-MODEL-008"
