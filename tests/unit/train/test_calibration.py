"""The rows that a method looks at before it begins."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import tunesmith
from tunesmith.train.calibration import calibration_of

pytestmark = pytest.mark.usefixtures("torch_one_thread")


class Rows(list):
    """What of a dataset is asked for."""


def made(begins="eva", number=3, batches="flat"):
    config = tunesmith.load_config(
        {
            "model_name_or_path": "m",
            "dataset": "d",
            "output_dir": "o",
            "init_lora_weights": begins,
            "lora_init_rows": number,
        }
    )
    rows = Rows(
        {"input_ids": np.full(length, length), "trained": np.ones(length, dtype=bool)} for length in (5, 2000, 100, 7)
    )
    objective = SimpleNamespace(
        compares=False,
        compute=lambda model, batch: SimpleNamespace(loss_sum=torch.tensor(6.0), units=torch.tensor(3.0)),
    )
    plan = SimpleNamespace(batches=batches, device="cpu", shares=False)
    tokenizer = SimpleNamespace(pad_token_id=0, eos_token_id=0)
    return calibration_of(config, plan, objective, tokenizer, SimpleNamespace(train=rows, read_media=None))


@pytest.mark.parametrize(("number", "expected"), [(1, [5]), (3, [2005, 100]), (64, [2005, 107])])
def test_so_many_rows_are_looked_at(number, expected):
    """In batches of at most 2,048 tokens."""
    calibration = made(number=number)
    assert [batch["input_ids"].shape[1] for batch in calibration.batches()] == expected
    assert calibration.loss(None, {}) == 2.0, "the mean: a gradient is not to grow with the rows"


def test_padded_rows_come_one_by_one():
    assert [batch["input_ids"].shape for batch in made(number=4, batches="padded").batches()] == [
        (1, 5),
        (1, 2000),
        (1, 100),
        (1, 7),
    ]


def test_others_look_at_nothing():
    assert made("pissa") is None
