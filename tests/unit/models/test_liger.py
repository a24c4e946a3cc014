"""Liger's kernels: its loss stays out, and where it does nothing that is said."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tiny_models import tiny_model
from tunesmith.config import load_config
from tunesmith.core.errors import ConfigError, MachineError
from tunesmith.models.quirks.liger import use_liger_kernels


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a package in the shape of Liger's is called with."""
    calls: list[dict[str, Any]] = []

    def of_llama(
        rope: bool = True, cross_entropy: bool = False, fused_linear_cross_entropy: bool = True, model: Any = None
    ) -> None:
        calls.append({"rope": rope, "losses": (cross_entropy, fused_linear_cross_entropy), "model": model})

    def of_gpt2(layer_norm: bool = True, model: Any = None) -> None:
        calls.append({"layer_norm": layer_norm, "model": model})

    package = ModuleType("liger_kernel.transformers.monkey_patch")
    package.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": of_llama, "gpt2": of_gpt2}  # type: ignore[attr-defined]
    for name in ("liger_kernel", "liger_kernel.transformers"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, package.__name__, package)
    return calls


def test_the_layers_are_patched_and_the_loss_is_not(patched: list[dict[str, Any]]) -> None:
    llama, gpt2 = tiny_model("llama", "sdpa"), tiny_model("gpt2", "sdpa")
    assert use_liger_kernels(llama, "cuda:0")
    assert use_liger_kernels(gpt2, "cuda:0")  # takes no word about losses
    assert patched == [
        {"rope": True, "losses": (False, False), "model": llama},
        {"layer_norm": True, "model": gpt2},
    ]


def test_where_it_does_nothing_it_says_why(patched: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    assert not use_liger_kernels(tiny_model("llama", "sdpa"), "cpu")
    assert "enable_liger_kernel is without effect: its kernels run on a GPU" in caplog.messages[-1]
    assert not use_liger_kernels(tiny_model("opt", "sdpa"), "cuda:0")
    assert "no kernels for models of the type opt" in caplog.messages[-1]
    assert patched == []


def test_a_missing_package_is_an_error_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "liger_kernel", None)  # as if it were not installed
    with pytest.raises(MachineError, match="E-MODEL-030") as caught:
        use_liger_kernels(tiny_model("llama", "sdpa"), "cuda:0")
    assert "tunesmith[liger]" in str(caught.value.problems[0].fix)


def test_transformers_name_for_it_is_ours() -> None:
    assert load_config({"use_liger_kernel": True}, verb="show").model.enable_liger_kernel
    assert load_config({"use_liger_kernel": True}, verb="show").train.hf == {}
    with pytest.raises(ConfigError, match="E-CONFIG-021"):
        load_config({"use_liger_kernel": True, "enable_liger_kernel": False}, verb="show")


@pytest.mark.gpu
def test_logits_are_those_of_plain_layers() -> None:
    pytest.importorskip("liger_kernel")
    plain, quick = (tiny_model("llama", "sdpa").cuda() for _ in range(2))
    assert use_liger_kernels(quick, "cuda:0")
    assert "Liger" in str(quick)
    ids = torch.arange(20, device="cuda")[None]
    torch.testing.assert_close(quick(ids).logits, plain(ids).logits, rtol=1e-4, atol=1e-4)
