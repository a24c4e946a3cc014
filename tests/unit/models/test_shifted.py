"""Shifted sparse attention: against a mask written out pair by pair, what is refused, and a run."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tunesmith
from tests.tiny_models import tiny_config
from tests.tiny_models import tiny_model as tiny
from tunesmith.config import load_config
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import ConfigError, UsageError
from tunesmith.models.attention import SHIFTED, VARLEN, register
from tunesmith.models.fast_path import flat_inputs, plan_fast_path
from tunesmith.models.flops import TokenFlops
from tunesmith.models.shifted import group_bounds

pytestmark = pytest.mark.usefixtures("torch_one_thread")

LENGTHS = (16, 13, 1, 8, 3)


def sees(query: int, key: int, length: int, *, shifted: bool) -> bool:
    """Within one sequence: the same group, and not later. A group is a quarter, rounded up; shifted ones begin half a
    group later, and what is before the first and behind the last is a group too."""
    size = -(-length // 4)
    move = size // 2 if shifted else 0
    return key <= query and (query - move) // size == (key - move) // size


def mask(lengths: tuple[int, ...], heads: int) -> torch.Tensor:
    """[1, H, T, T]: what is added to the scores."""
    total = sum(lengths)
    found = torch.full((1, heads, total, total), torch.finfo(torch.float32).min)
    start = 0
    for length in lengths:
        for head in range(heads):
            for query in range(length):
                for key in range(length):
                    if sees(query, key, length, shifted=head >= heads // 2):
                        found[0, head, start + query, start + key] = 0.0
        start += length
    return found


def test_groups_are_quarters_and_shifted_by_half_of_one() -> None:
    assert group_bounds((0, 16)) == ((0, 4, 8, 12, 16), (0, 2, 6, 10, 14, 16))
    assert group_bounds((0, 3, 4)) == ((0, 1, 2, 3, 4), (0, 1, 2, 3, 4))  # groups of one token
    assert group_bounds((5, 18))[0] == (5, 9, 13, 17, 18)


@pytest.mark.parametrize(
    ("model_type", "more"),
    [
        ("llama", {}),
        ("llama", {"num_key_value_heads": 1}),
        ("llama", {"num_key_value_heads": 4}),
        ("gpt2", {}),
        ("qwen3_moe", {"layer_types": ["full_attention"] * 2}),
    ],
    ids=["llama", "one head of keys", "no shared keys", "gpt2", "qwen3_moe"],
)
def test_half_of_the_heads_attend_in_groups_and_half_in_shifted_ones(model_type: str, more: dict[str, Any]) -> None:
    """Logits and gradients are those of eager attention with the mask above, in place of the model's."""
    more = {**more, "use_sliding_window": False} if model_type == "qwen3_moe" else more
    register()
    generator = torch.Generator().manual_seed(0)
    pieces = [torch.randint(97, (length,), generator=generator) for length in LENGTHS]
    ids = torch.cat(pieces)[None]
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    plain = tiny(model_type, "eager", **more).train()
    wanted = plain(input_ids=ids, position_ids=positions, attention_mask=mask(LENGTHS, 4), use_cache=False).logits[0]
    model = tiny(model_type, SHIFTED, **more).train()
    found = model(**flat_inputs(pieces), use_cache=False).logits[0]
    assert torch.allclose(found, wanted, atol=1e-5)
    names = [name for name, _ in model.named_parameters()]
    mine = torch.autograd.grad(found.square().sum(), list(model.parameters()), allow_unused=True)
    theirs = torch.autograd.grad(wanted.square().sum(), list(plain.parameters()), allow_unused=True)
    norm = torch.cat([one.flatten() for one in theirs if one is not None]).norm()
    for name, one, other in zip(names, mine, theirs, strict=True):
        if one is not None and other is not None:
            assert float((one - other).norm() / norm) < 1e-5, name


def test_sinks_stay_with_their_heads() -> None:
    """gpt_oss: a head's share that nobody gets, and windows in every second layer."""
    register()
    more = {"layer_types": ["full_attention"] * 2}
    pieces = [torch.arange(16)]
    plain = tiny("gpt_oss", "eager", **more).train()
    wanted = plain(input_ids=pieces[0][None], attention_mask=mask((16,), 4), use_cache=False).logits[0]
    found = tiny("gpt_oss", SHIFTED, **more).train()(**flat_inputs(pieces), use_cache=False).logits[0]
    assert torch.allclose(found, wanted, atol=1e-5)


def test_no_token_sees_a_later_one() -> None:
    """The paper's roll would show the last half group to the first tokens."""
    register()
    model = tiny("llama", SHIFTED).train()
    one, other = torch.arange(16), torch.arange(16)
    other[-1] = 50
    before, after = (model(**flat_inputs([ids]), use_cache=False).logits[0] for ids in (one, other))
    assert torch.equal(before[:-1], after[:-1])
    assert not torch.equal(before[-1], after[-1])


def test_evaluation_and_padded_rows_see_everything() -> None:
    register()
    pieces = [torch.arange(16), torch.arange(9)]
    shifted, whole = tiny("llama", SHIFTED).eval(), tiny("llama", VARLEN).eval()
    with torch.no_grad():
        assert torch.equal(*(one(**flat_inputs(pieces), use_cache=False).logits for one in (shifted, whole)))


def test_work_is_counted_in_groups() -> None:
    """16 tokens: quarters of 4 have 4 x 10 pairs, shifted ones 3 x 10 + 2 x 3; each half of the heads counts half."""
    flops = TokenFlops(0.0, 0.0, {None: 2.0}, head_everywhere=False, shifted=True)
    assert flops.of(np.array([16]), 0) == 2.0 * (40 + 36) / 2


# ---- what is refused ----


def save(model_type: str, folder: Path) -> ModelConfig:
    settings = tiny_config(model_type)
    settings.save_pretrained(folder)
    return ModelConfig(model_name_or_path=str(folder), shift_attn=True)


@pytest.mark.parametrize("model_type", ["bloom", "gptj", "mamba", "qwen3_next", "llama4_text", "falcon", "bert"])
def test_types_with_another_attention_are_refused(model_type: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        plan_fast_path(save(model_type, tmp_path))
    assert caught.value.code == "E-MODEL-025"


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen3", "gemma2", "gpt2", "phi3", "mixtral"])
def test_types_of_the_interface_are_not(model_type: str, tmp_path: Path) -> None:
    config = save(model_type, tmp_path)
    for flash_attn in ("auto", "fa2", "disabled"):
        assert plan_fast_path(replace(config, flash_attn=flash_attn), kernel="flash_attention_2").attention == SHIFTED


@pytest.mark.parametrize("more", [{"fast_path": "off"}, {"neftune_noise_alpha": 5.0}])
def test_padded_batches_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"model_name_or_path": "x", "dataset": "y", "output_dir": "z", "shift_attn": True, **more})
    assert caught.value.code == "E-CONFIG-021"


# ---- a run ----


@pytest.mark.slow
def test_a_run_trains_in_groups_and_is_judged_whole(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LlamaFactory's example names fa2 as well; the loss falls, and differs from that of whole sequences, while the
    evaluation before the first step does not."""
    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "val_size": 4,
        "eval_on_start": True,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 4,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    logs = []
    for name, more in (("whole", {}), ("groups", {"shift_attn": True, "flash_attn": "fa2"})):
        folder = tunesmith.train({**keys, **more, "output_dir": str(tmp_path / name)}).output_dir
        logs.append([json.loads(line) for line in (folder / "trainer_log.jsonl").read_text().splitlines()])
    assert "shift_attn attends by SDPA, in groups" in caplog.text
    whole, groups = ([line["loss"] for line in log if "loss" in line] for log in logs)
    assert groups[0] != whole[0]
    assert groups[-1] < 0.7 * groups[0]
    first = [next(line["eval_loss"] for line in log if "eval_loss" in line) for log in logs]
    assert first[0] == first[1]
    assert all(later >= 0 for _, later in pairwise(groups))
