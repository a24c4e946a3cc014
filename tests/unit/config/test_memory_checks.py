"""What saves memory goes with some settings only; the others are told before a run begins."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.core.errors import ConfigError

TRAIN = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
IN_BWD = {**TRAIN, "optimizer_in_bwd": True, "max_grad_norm": 0}
SELECTIVE = {**TRAIN, "gradient_checkpointing_mode": "selective"}


@pytest.mark.parametrize(
    "keys",
    [
        {**SELECTIVE, "use_reentrant_gc": True},
        {**SELECTIVE, "flash_attn": "disabled"},
        {**SELECTIVE, "flash_attn": "flex"},
        {**TRAIN, "gradient_checkpointing_mode": "offload", "torch_compile": True},
        {**TRAIN, "use_unsloth_gc": True, "torch_compile_backend": "aot_eager"},
        {**TRAIN, "optimizer_in_bwd": True},  # clipping is on unless it is switched off
        {**IN_BWD, "gradient_accumulation_steps": 2},
        {**IN_BWD, "fp16": True},
        {**IN_BWD, "optim": "lion_8bit"},
    ],
)
def test_what_does_not_go_together_is_one_error(keys: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(keys)
    assert [problem.code for problem in caught.value.problems] == ["E-CONFIG-021"]
    assert caught.value.problems[0].fix


@pytest.mark.parametrize(
    "keys",
    [
        SELECTIVE,
        {**SELECTIVE, "use_reentrant_gc": False},
        {**SELECTIVE, "flash_attn": "disabled", "disable_gradient_checkpointing": True},
        {**TRAIN, "use_unsloth_gc": True, "use_reentrant_gc": True},
        {**TRAIN, "torch_compile": True},
        IN_BWD,
        {**IN_BWD, "optim": "adamw_torch", "bf16": True},
        {**IN_BWD, "adafactor": True},
    ],
)
def test_what_goes_together_is_none(keys: dict[str, Any]) -> None:
    load_config(keys)
