"""What torch refuses with full_determinism is said in the words of the run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tunesmith.core.errors import MachineError
from tunesmith.train.determinism import explained


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def test_an_operation_without_a_deterministic_form_is_named() -> None:
    with pytest.raises(MachineError, match="E-TRAIN-092") as caught, explained():
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))  # which of two writers is last is not told
    assert caught.value.problems[0].got == "put_"


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size") as caught, explained():
        torch.zeros(3) @ torch.zeros(4)
    assert not isinstance(caught.value, MachineError)
