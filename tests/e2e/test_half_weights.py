"""With bf16 a frozen weight is held once, in bfloat16: no float32 copy of it is made, not for a moment either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tunesmith.train.trainer import Trainer


class Widened(TorchDispatchMode):
    """Shapes of bfloat16 tensors that were copied to float32."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        found = operation(*arguments, **(keywords or {}))
        if operation.name() == "aten::_to_copy" and found.dtype == torch.float32:
            self.shapes.add(tuple(arguments[0].shape))
        return found


def test_no_float32_copy_of_a_frozen_weight(
    run: Callable[..., Any], trainers: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    widened, original = Widened(), Trainer.training_step

    def step(self: Any, *arguments: Any, **others: Any) -> Any:
        with widened:
            return original(self, *arguments, **others)

    monkeypatch.setattr(Trainer, "training_step", step)
    run(bf16=True, max_steps=2)
    (trainer,) = trainers
    named = dict(trainer.model.named_parameters())
    frozen = {name: one for name, one in named.items() if not one.requires_grad}
    assert {one.dtype for one in frozen.values()} == {torch.bfloat16}
    assert {one.dtype for name, one in named.items() if name not in frozen} == {torch.float32}
    matrices = {tuple(one.shape) for one in frozen.values() if one.ndim == 2}
    matrices |= {shape[::-1] for shape in matrices}
    assert widened.shapes, "activations of norms are widened"
    assert not widened.shapes & matrices
