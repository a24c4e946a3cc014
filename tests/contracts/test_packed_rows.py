"""transformers keeps the sequences of a packed row apart, by types of models: loss and gradient as of each alone.

Without a mask, and with positions that begin anew, it builds a mask of blocks, for those models that hand their
positions to the mask. The others read across the borders, without an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.tiny_models import tiny_model
from tunesmith.data.collate import FlatCollator
from tunesmith.models.families import PACKS

LENGTHS = (13, 7, 21, 1, 9)  # longer than the window of 5, equal to none, and one that has no loss
ATTENTION = ("sdpa", "eager")

# Exact as tiny models, but not listed.
NOT_LISTED = {
    "whisper": "reads more than text",
    "minimax_m3_vl_text": "its sparse layers do not appear in a tiny model",
}


def samples() -> list[dict[str, Any]]:
    generator = np.random.default_rng(1)
    ids = [generator.integers(3, 97, length).astype(np.int32) for length in LENGTHS]
    return [{"input_ids": piece, "trained": np.ones(len(piece), bool)} for piece in ids]


def losses_and_gradient(model: Any, batches: list[dict[str, Any]]) -> tuple[list[float], torch.Tensor]:
    """The loss of each sequence, and the gradient of their sum as one vector."""
    model.zero_grad()
    losses = []
    for batch in batches:
        logits = model(input_ids=batch["input_ids"], position_ids=batch.get("position_ids"), use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), reduction="none"
        )
        (loss.sum()).backward()
        if "position_ids" in batch:
            sequence = (batch["position_ids"] == 0).flatten().cumsum(0).view_as(batch["input_ids"])[:, 1:].flatten() - 1
            losses += [float(loss[sequence == number].detach().sum()) for number in range(int(sequence.max()) + 1)]
        else:
            losses.append(float(loss.detach().sum()))
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    return losses, torch.cat([gradient.flatten().double() for gradient in gradients])


def alone() -> list[dict[str, Any]]:
    batches = []
    for sample in samples():
        ids = torch.tensor(sample["input_ids"])[None].long()
        batches.append({"input_ids": ids, "labels": torch.cat([torch.full((1, 1), -100), ids[:, 1:]], dim=1)})
    return batches


def packed() -> Iterator[dict[str, Any]]:
    """All in one row; and three packs in a batch, of which two are padded."""
    rows = samples()
    packs = [
        {
            "input_ids": np.concatenate([row["input_ids"] for row in part]),
            "trained": np.concatenate([row["trained"] for row in part]),
            "lengths": np.array([len(row["input_ids"]) for row in part]),
        }
        for part in (rows[:2], rows[2:4], rows[4:])
    ]
    yield FlatCollator(0)(packs)
    yield FlatCollator(0, one_row=False)(packs)


def is_exact(model: Any) -> bool:
    wanted, gradient = losses_and_gradient(model, alone())
    for batch in packed():
        found, other = losses_and_gradient(model, [batch])
        if sorted(loss for loss in found if loss) != pytest.approx(sorted(loss for loss in wanted if loss), rel=1e-5):
            return False
        if not float((gradient - other).norm()) < 1e-4 * float(gradient.norm()):
            return False
    return True


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(
    "model_type", ["llama", "qwen2", "qwen3", "qwen3_moe", "gemma2", "gemma3_text", "mistral", "gpt2"]
)
def test_sequences_of_a_packed_row_do_not_see_each_other(model_type: str, attention: str) -> None:
    if (model_type, attention) == ("gemma2", "sdpa"):
        return  # transformers takes eager for it: its scores have a soft cap
    assert model_type in PACKS
    assert is_exact(tiny_model(model_type, attention))


@pytest.mark.parametrize("model_type", ["gpt_oss", "opt", "bloom", "falcon"])
def test_models_that_leak_are_told_from_those_that_do_not(model_type: str) -> None:
    assert model_type not in PACKS
    assert not is_exact(tiny_model(model_type, "eager"))


def derive(model_types: list[str]) -> dict[str, str]:
    """`exact`, `leaks` or what went wrong, for each type that is no composite of several models."""
    from transformers import CONFIG_MAPPING

    found = {}
    for model_type in model_types:
        if CONFIG_MAPPING[model_type].sub_configs:
            continue
        outcomes = []
        for attention in ATTENTION:
            try:
                outcomes.append("exact" if is_exact(tiny_model(model_type, attention)) else "leaks")
            except Exception as error:  # whatever a type does not like about being tiny
                if "scaled_dot_product_attention" not in str(error):
                    outcomes.append(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
        found[model_type] = next((outcome for outcome in outcomes if outcome != "exact"), "exact")
    return found


@pytest.mark.slow
def test_the_list_of_types_is_what_the_installed_release_does() -> None:
    """In a process of its own: some models warn, and some change global state."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=environment, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    exact = {model_type for model_type, outcome in found.items() if outcome == "exact"}
    assert exact - NOT_LISTED.keys() == PACKS, {name: found.get(name) for name in exact ^ PACKS}


if __name__ == "__main__":
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    torch.set_num_threads(1)
    print(json.dumps(derive(sys.argv[1:] or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))))
