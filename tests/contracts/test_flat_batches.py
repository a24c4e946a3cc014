"""Flat batches with our attention, by types of models: loss and gradient are those of each sequence alone, with the
loss that never holds all logits.

The reference is transformers' own `eager` attention on each sequence by itself, with all logits. Models that accept the
name of our attention and never call it, or that keep a state over the row, read across borders without an error; the
check of `models/fast_path.py` tells them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.contracts.test_packed_rows import alone, losses_and_gradient, samples
from tests.tiny_models import tiny_model
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import MachineError
from tunesmith.models import attention
from tunesmith.models.families import FLAT
from tunesmith.models.family import family_of
from tunesmith.models.fast_path import FastPath, prove

# Exact as tiny models, but not listed.
NOT_LISTED = {
    "whisper": "reads more than text",
    "minimax_m3_vl_text": "its sparse layers do not appear in a tiny model",
}


def flat_loss_and_gradient(model: Any) -> tuple[float, torch.Tensor]:
    """The sum of all losses, and its gradient as one vector."""
    ids = [torch.tensor(sample["input_ids"]).long() for sample in samples()]
    bounds = (0, *accumulate(map(len, ids)))
    row, positions = torch.cat(ids), torch.cat([torch.arange(len(piece)) for piece in ids])
    places = (positions > 0).nonzero().squeeze(-1) - 1  # where what is no first token is predicted
    model.zero_grad()
    found = model(
        input_ids=row[None],
        position_ids=positions[None],
        bounds=bounds,
        use_cache=False,
        loss_positions=torch.stack([torch.zeros_like(places), places], dim=1),
        loss_targets=row[places + 1],
    )
    found["loss"].backward()
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    return float(found["loss"].detach()), torch.cat([gradient.flatten().double() for gradient in gradients])


def flat_model(model_type: str) -> tuple[Any, Any, FastPath]:
    """(the plain model, the same with our attention and loss, which of the quick ways it proved)"""
    attention.register()
    plain = tiny_model(model_type, "eager")
    quick = tiny_model(model_type, attention.VARLEN)
    quick.load_state_dict(plain.state_dict())
    found = prove(quick, family_of(model_type), FastPath(True, "chunked", attention.VARLEN), ModelConfig())
    return plain, quick, found


def is_exact(plain: Any, quick: Any) -> bool:
    losses, gradient = losses_and_gradient(plain, alone())
    loss, other = flat_loss_and_gradient(quick)
    return loss == pytest.approx(sum(losses), rel=1e-5) and bool((gradient - other).norm() < 1e-4 * gradient.norm())


@pytest.mark.parametrize(
    "model_type",
    ["llama", "qwen2", "qwen3_moe", "gemma2", "gemma3_text", "gpt_oss", "gpt2", "granite", "cohere2", "opt"],
)
def test_a_flat_batch_is_its_sequences_alone(model_type: str) -> None:
    assert model_type in FLAT
    plain, quick, found = flat_model(model_type)
    assert (found.flat, found.loss, found.why) == (True, "chunked", ())
    assert is_exact(plain, quick)


@pytest.mark.parametrize("model_type", ["bloom", "xglm", "mamba", "lfm2", "codegen"])
def test_a_model_that_reads_across_is_found_out(model_type: str) -> None:
    """As if someone had put it on the list."""
    assert model_type not in FLAT
    with suppress(MachineError):  # bound to the attention that it was loaded with
        _, quick, found = flat_model(model_type)
        assert not found.flat
        assert found.why
        assert attention.attention_of(quick) != attention.VARLEN


def derive(model_types: list[str]) -> dict[str, dict[str, Any]]:
    """For each type that is no composite of several models: is it exact, and what does the check at load say?"""
    from transformers import CONFIG_MAPPING

    found: dict[str, dict[str, Any]] = {}
    for model_type in model_types:
        if CONFIG_MAPPING[model_type].sub_configs:
            continue
        try:
            plain, quick, way = flat_model(model_type)
            exact = way.flat and is_exact(plain, quick)
            found[model_type] = {"exact": exact, "flat": way.flat, "loss": way.loss, "why": list(way.why)}
        except Exception as error:  # whatever a type does not like about being tiny
            text = str(error).splitlines()[0] if str(error) else ""
            found[model_type] = {"exact": False, "flat": False, "why": [f"{type(error).__name__}: {text}"]}
    return found


@pytest.mark.slow
def test_the_list_of_types_is_what_the_installed_release_does() -> None:
    """In a process of its own: some models warn, and some change global state. And no type that passes the check at
    load is wrong: whoever is not exact is found out by it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=environment, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    exact = {model_type for model_type, one in found.items() if one["exact"]}
    assert exact - NOT_LISTED.keys() == FLAT, {name: found.get(name) for name in exact ^ FLAT}
    assert len(FLAT) >= 60


if __name__ == "__main__":
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    torch.set_num_threads(1)
    print(json.dumps(derive(sys.argv[1:] or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))))
