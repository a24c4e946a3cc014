"""A compiled run is the run that is not compiled, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.run_logs import curve


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keys", [{}, {"optimizer_in_bwd": True, "gradient_checkpointing_mode": "selective"}])
def test_a_compiled_run_learns_the_same(
    run: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any]
) -> None:
    from torch._dynamo.utils import counters

    for name in ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"):  # so that what transformers sets is taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    settings = {"packing": True, "cutoff_len": 160, "max_steps": 3, "max_grad_norm": 0, "val_size": 4, "do_eval": True}
    torch.compiler.reset()
    counters.clear()
    plain = run(output_dir=str(tmp_path / "plain"), **settings, **keys)
    assert not counters["stats"]
    found = run(output_dir=str(tmp_path / "compiled"), torch_compile_backend="aot_eager", **settings, **keys)
    assert counters["stats"]["unique_graphs"] > 0
    for one, other in zip(curve(found), curve(plain), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    assert found.metrics["eval_loss"] == pytest.approx(plain.metrics["eval_loss"], rel=1e-5)
