"""FlexAttention on a CPU, forward and backward: torch refuses the latter there, though it can compute it (all T x T
scores, not compiled)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import pytest
import torch

__all__ = ["QUIET", "flex_on_cpu"]

QUIET = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile", "ignore:The .grad attribute")
"""What torch warns of where it is not compiled, and dynamo hears itself."""


@contextmanager
def flex_on_cpu() -> Iterator[None]:
    torch.compiler.reset()  # dynamo remembers other numbers of heads, and then takes them for any
    with mock.patch("torch.nn.attention.flex_attention._validate_device"):
        yield
    torch.compiler.reset()
