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
from tunesmith.models.checkpointing import enable_checkpointing
from tunesmith.models.families import FLAT, PADDED, SHIMS
from tunesmith.models.family import Family, family_of
from tunesmith.models.fast_path import FastPath, prove

LISTED = FLAT | SHIMS.keys()
# In training their router draws experts at random.
DRAWS_EXPERTS = {"phimoe"}
# One for each way in which a flat batch is read.
KINDS = ["lfm2", "qwen3_next", "mamba2", "stablelm", "gptj", "deepseek_v32", "llama4_text", "phimoe", "qwen2_moe"]


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


def flat_model(model_type: str, family: Family | None = None) -> tuple[Any, Any, FastPath]:
    """(the plain model, the same as it reads flat batches, which of the quick ways it proved)"""
    attention.register()
    family = family or family_of(model_type)
    name = family.attention or attention.VARLEN
    plain = tiny_model(model_type, "eager")
    quick = tiny_model(model_type, name)
    quick.load_state_dict(plain.state_dict())
    return plain, quick, prove(quick, family, FastPath(True, "chunked", name), ModelConfig())


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


def check_with_help(model_type: str) -> None:
    """In training, also where activations are computed again, and afterwards in evaluation and chat."""
    plain, quick, found = flat_model(model_type)
    assert found.flat, found.why
    quick.train(model_type not in DRAWS_EXPERTS)
    assert is_exact(plain, quick)
    for reentrant in (False, True) if quick.supports_gradient_checkpointing else ():
        enable_checkpointing(quick, "full", reentrant=reentrant)
        assert is_exact(plain, quick), f"reentrant: {reentrant}"
    (getattr(quick, "activation_checkpointing_disable", None) or quick.gradient_checkpointing_disable)()
    quick.eval()
    check_padded_rows(plain, quick)
    check_replies(plain, quick)


def check_padded_rows(plain: Any, quick: Any) -> None:
    """Rows that are padded on the right, with a mask."""
    ids = [torch.tensor(sample["input_ids"]).long() for sample in samples()]
    width = max(map(len, ids))
    rows = torch.stack([torch.nn.functional.pad(piece, (0, width - len(piece))) for piece in ids])
    mask = torch.stack([(torch.arange(width) < len(piece)).long() for piece in ids])
    with torch.no_grad():
        wanted, found = (one(input_ids=rows, attention_mask=mask, use_cache=False).logits for one in (plain, quick))
    real = mask.bool()
    assert float((found[real] - wanted[real]).norm()) < 1e-5 * float(wanted[real].norm())


def check_replies(plain: Any, quick: Any) -> None:
    """Greedy replies to one prompt, longer than any window, with and without a mask."""
    prompt = torch.tensor(samples()[0]["input_ids"]).long()[None]
    how = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    wanted = plain.generate(prompt, attention_mask=torch.ones_like(prompt), **how)
    assert wanted.shape[1] == prompt.shape[1] + 6
    assert torch.equal(quick.generate(prompt, attention_mask=torch.ones_like(prompt), **how), wanted)
    assert torch.equal(quick.generate(prompt, **how), wanted)


@pytest.mark.parametrize("model_type", KINDS)
def test_a_model_with_help_reads_flat_batches_exactly(model_type: str) -> None:
    assert model_type in SHIMS
    check_with_help(model_type)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the models' own code
@pytest.mark.parametrize("model_type", sorted(SHIMS.keys() - set(KINDS)))
def test_every_model_with_help_reads_flat_batches_exactly(model_type: str) -> None:
    check_with_help(model_type)


@pytest.mark.parametrize("model_type", ["bloom", "xglm", "mamba", "lfm2", "codegen", "bert", "bart"])
def test_a_model_that_reads_across_is_found_out(model_type: str) -> None:
    """As if someone had listed it without what it needs."""
    assert model_type not in FLAT
    with suppress(MachineError):  # bound to the attention that it was loaded with
        _, quick, found = flat_model(model_type, Family(model_type, flat=True))
        assert not found.flat
        assert found.why
        assert attention.attention_of(quick) != attention.VARLEN


def derive(model_types: list[str]) -> dict[str, dict[str, Any]]:
    """For each type that reads text only: is it exact, and what does the check at load say?"""
    from transformers import CONFIG_MAPPING

    found: dict[str, dict[str, Any]] = {}
    for model_type in model_types:
        if CONFIG_MAPPING[model_type].sub_configs and model_type not in LISTED:
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
def test_the_lists_of_types_are_what_the_installed_release_does() -> None:
    """In a process of its own: some models warn, and some change global state. And no type that passes the check at
    load is wrong: whoever is not exact is found out by it."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, env=environment, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    exact = {model_type for model_type, one in found.items() if one["exact"]}
    assert exact - PADDED.keys() == LISTED, {name: found.get(name) for name in exact ^ LISTED}
    assert exact & PADDED.keys() == {"whisper"}  # cannot be loaded for training
    assert {model_type for model_type, one in found.items() if one["flat"]} == exact


def test_every_type_is_on_a_list() -> None:
    """Of a composite that transformers loads without its other parts, the type of the text part is."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    assert not LISTED & PADDED.keys()
    assert not FLAT & SHIMS.keys()
    rest = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys() - LISTED - PADDED.keys()
    loaded = {name: MODEL_FOR_CAUSAL_LM_MAPPING[CONFIG_MAPPING[name]].config_class.model_type for name in rest}
    assert loaded.keys() == {name for name, kind in loaded.items() if kind in LISTED}, loaded
    assert not PADDED.keys() - MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()


if __name__ == "__main__":
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    torch.set_num_threads(1)
    print(json.dumps(derive(sys.argv[1:] or sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))))
