"""Which attention a run takes, and that flash-attention is handed flat batches rightly, on what stands in for it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests.flex_on_cpu import QUIET, flex_on_cpu
from tests.run_logs import curve
from tests.stand_in_flash import Flash, install
from tests.tiny_models import tiny_config, tiny_model
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import MachineError, TunesmithError, UsageError
from tunesmith.models import kernels
from tunesmith.models.attention import register
from tunesmith.models.fast_path import flat_inputs, plan_fast_path
from tunesmith.models.kernels import check_dropout, check_kernel, installed_kernel

pytestmark = pytest.mark.usefixtures("torch_one_thread")
FUNCTIONS = "transformers.modeling_flash_attention_utils._lazy_imports"


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Flash:
    return install(monkeypatch)


@pytest.fixture
def run(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> Any:
    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
        "finetuning_type": "full",
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_shuffling": True,
        "overwrite_output_dir": True,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


# --- what is handed to a kernel ---


@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen2", "mistral"])
def test_a_flat_batch_on_flash_attention_is_each_sequence_alone(kind: str, flash: Flash) -> None:
    """gemma2 has soft caps, it and mistral windows of 5, all grouped heads. Loss and gradient, against eager."""
    pieces = [torch.randint(97, (length,), generator=torch.Generator().manual_seed(3)) for length in (9, 1, 14, 6)]
    model = tiny_model(kind, "eager")
    expected = sum(model(input_ids=one[None]).logits[0].logsumexp(-1).sum() for one in pieces)
    wanted = torch.autograd.grad(expected, list(model.parameters()), allow_unused=True)
    model.set_attn_implementation("flash_attention_2")
    found = model(**flat_inputs(pieces), use_cache=False).logits[0].logsumexp(-1).sum()
    assert flash.calls == [[0, 9, 10, 24, 30]] * 2
    torch.testing.assert_close(found, expected)
    for one, other in zip(torch.autograd.grad(found, list(model.parameters()), allow_unused=True), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    if kind in ("gemma2", "mistral"):
        assert (4, 4) in flash.windows


@pytest.mark.parametrize("packed", [{}, {"packing": True, "cutoff_len": 160}])
@pytest.mark.parametrize("value", ["fa2", pytest.param("fa3", marks=pytest.mark.slow)])
def test_a_run_on_flash_attention_learns_the_same(
    run: Any, flash: Flash, tmp_path: Path, value: str, packed: dict[str, Any]
) -> None:
    found = run(flash_attn=value, **packed)
    assert (found.plan.attention, found.plan.batches) == (f"flash_attention_{value[-1]}", "flat")
    assert any(len(borders) > 3 for borders in flash.calls)
    other_way = {"flash_attn": "sdpa"} if packed else {"fast_path": "off"}
    wanted = run(output_dir=str(tmp_path / "other"), **packed, **other_way)
    for one, other in zip(curve(found), curve(wanted), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_padded_packs_on_flash_attention_are_refused(run: Any, flash: Flash) -> None:
    keys = {"packing": True, "flash_attn": "fa2"}
    for more in ({"fast_path": "off"}, {"neftune_noise_alpha": 5}):
        with pytest.raises(UsageError) as caught:
            run(**keys, **more)
        assert caught.value.code == "E-TRAIN-050"
    assert flash.calls == []
    run(flash_attn="fa2", fast_path="off")  # rows that are no packs have a mask of their padding
    assert any(len(borders) == 5 for borders in flash.calls)


def test_packs_that_do_not_prove_themselves_on_flash_attention_stop(
    run: Any, flash: Flash, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = flash.varlen

    def wrong(*arguments: Any, **keywords: Any) -> Any:
        return true(*arguments, **keywords) * (1.001 if len(arguments[0]) > 20 else 1)

    monkeypatch.setattr(FUNCTIONS, lambda *_a, **_k: _functions(wrong))
    with pytest.raises(TunesmithError) as caught:
        run(packing=True, flash_attn="fa2")
    assert caught.value.code == "E-TRAIN-050"


def _functions(varlen: Any) -> tuple[Any, ...]:
    from transformers import modeling_flash_attention_utils as utils

    return Flash().plain, varlen, None, utils._pad_input, utils._unpad_input


# --- what is chosen ---


@pytest.mark.parametrize(
    ("installed", "capability", "device", "arithmetic", "chosen"),
    [
        ("23", (9, 0), "cuda:0", "bfloat16", "flash_attention_3"),
        ("23", (8, 0), "cuda:0", "bfloat16", "flash_attention_2"),
        ("3", (8, 9), "cuda:0", "bfloat16", None),  # written for Hopper
        ("2", (9, 0), "cuda:0", "float16", "flash_attention_2"),
        ("23", (7, 5), "cuda:0", "float16", None),
        ("23", (9, 0), "cuda:0", "float32", None),
        ("23", (9, 0), "cpu", "bfloat16", None),
        ("", (9, 0), "cuda:0", "bfloat16", None),
    ],
)
def test_auto_takes_the_best_flash_attention_that_can(
    monkeypatch: pytest.MonkeyPatch,
    installed: str,
    capability: tuple[int, int],
    device: str,
    arithmetic: str,
    chosen: str | None,
) -> None:
    for number in "23":
        name = f"flash_attention_{number}"
        kernel = kernels._KERNELS[name]._replace(is_installed=lambda number=number: number in installed)
        monkeypatch.setitem(kernels._KERNELS, name, kernel)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    assert installed_kernel(device, arithmetic) == chosen


@pytest.mark.parametrize(
    ("flash_attn", "capability", "device", "arithmetic", "code", "got"),
    [
        ("fa2", (9, 0), "cpu", "bfloat16", "E-TRAIN-051", "CUDA GPU"),
        ("flex", (9, 0), "cpu", "bfloat16", "E-TRAIN-051", "CUDA GPU"),
        ("fa3", (7, 5), "cuda:0", "float16", "E-TRAIN-051", "capability 8.0, and this GPU has 7.5"),
        ("fa2", (9, 0), "cuda:0", "float32", "E-TRAIN-051", "half precision"),
        ("fa2", (9, 0), "cuda:0", "bfloat16", "E-TRAIN-052", "flash-attn"),
        ("fa3", (9, 0), "cuda:0", "bfloat16", "E-TRAIN-052", "flash_attn_3"),
    ],
)
def test_what_cannot_be_had_is_an_error_with_a_way_out(
    monkeypatch: pytest.MonkeyPatch,
    flash_attn: str,
    capability: tuple[int, int],
    device: str,
    arithmetic: str,
    code: str,
    got: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    with pytest.raises(MachineError) as caught:
        check_kernel(flash_attn, device, arithmetic)
    (problem,) = caught.value.problems
    assert problem.code == code
    assert got in str(problem.got)
    assert "flash_attn: auto" in str(problem.fix)


@pytest.mark.parametrize("flash_attn", ["auto", "sdpa", "disabled"])
def test_what_every_machine_has_needs_no_check(flash_attn: str) -> None:
    check_kernel(flash_attn, "cpu", "float32")


def test_flex_computes_in_any_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 6))
    check_kernel("flex", "cuda:0", "float32")


def test_a_kernel_that_was_picked_is_loaded_after_it_agreed(
    run: Any, flash: Flash, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "tunesmith"):
        found = run()
    assert (found.plan.attention, found.plan.batches) == ("flash_attention_3", "flat")
    assert json.loads((found.output_dir / "plan.json").read_text())["attention"] == "flash_attention_3"
    assert flash.calls
    wanted = run(flash_attn="sdpa", output_dir=str(tmp_path / "varlen"))
    assert wanted.plan.attention == "varlen"
    assert [line for line in wanted.plan.lines() if line.endswith("varlen (SDPA within each sequence)")]
    for one, other in zip(curve(found), curve(wanted), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize("fault", ["wrong", "refuses", "drops", "forbidden"])
def test_a_kernel_that_was_picked_and_does_not_agree_is_left(
    run: Any, flash: Flash, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    def wrong(q: Any, *_arguments: Any, **_keywords: Any) -> Any:
        if fault == "refuses":
            raise RuntimeError("FlashAttention only supports head dimension at most 256")
        return q * 2

    if fault == "forbidden":
        monkeypatch.setattr("transformers.PreTrainedModel._compatible_flash_implementations", ["flash_attention_4"])
    elif fault == "drops":
        monkeypatch.setattr("tunesmith.models.fast_path.dropped", lambda *_: "attention_dropout 0.1")
    else:
        monkeypatch.setattr(FUNCTIONS, lambda *_a, **_k: _functions(wrong))
    with caplog.at_level(logging.INFO, "tunesmith"):
        found = run(fast_path="require")
    assert (found.plan.attention, found.plan.batches) == ("varlen", "flat")
    assert "attention: varlen, as flash_attention_3 is not for this model" in caplog.text


def test_what_is_padded_keeps_sdpa(run: Any, flash: Flash) -> None:
    found = run(neftune_noise_alpha=5)
    assert (found.plan.attention, found.plan.batches) == ("sdpa", "padded")
    assert flash.calls == []


# --- FlexAttention ---


def config_of(folder: Path, kind: str, flash_attn: str, **changes: Any) -> ModelConfig:
    tiny_config(kind, **changes).save_pretrained(folder)
    return ModelConfig(model_name_or_path=str(folder), flash_attn=flash_attn)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "flat", "attention"),
    [
        ("llama", True, "varlen_flex"),
        ("phimoe", True, "varlen_flex"),  # a window that only the mask knows is told to our own attention
        ("falcon", False, "sdpa"),  # an attention of its own
        ("mamba", False, "sdpa"),
    ],
)
def test_flex_is_for_models_that_take_our_attention(tmp_path: Path, kind: str, flat: bool, attention: str) -> None:
    found = plan_fast_path(config_of(tmp_path, kind, "flex"))
    assert (found.flat, found.attention) == (flat, attention)


def test_dropout_that_a_kernel_has_not_is_refused_before_weights_are_read(tmp_path: Path) -> None:
    check_dropout(config_of(tmp_path, "llama", "flex"))
    for flash_attn in ("flex", "fa3"):
        with pytest.raises(UsageError) as caught:
            plan_fast_path(config_of(tmp_path, "llama", flash_attn, attention_dropout=0.1))
        assert caught.value.code == "E-TRAIN-053"
        assert caught.value.problems[0].got == "attention_dropout 0.1"
    plan_fast_path(config_of(tmp_path, "llama", "fa2", attention_dropout=0.1))


@QUIET
@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss", "qwen2", "phimoe"])
def test_models_read_flat_batches_with_flex_as_with_varlen(kind: str) -> None:
    """Soft caps, sinks, windows of 5, and a window that is told to the attention; loss and gradient."""
    from tunesmith.models.family import family_of
    from tunesmith.models.loss_forward import trunk_of
    from tunesmith.models.segments import fit

    register()
    pieces = [torch.randint(97, (length,), generator=torch.Generator().manual_seed(3)) for length in (9, 1, 14, 6)]
    model = tiny_model(kind, "varlen")
    fit(model, family_of(kind), trunk_of(model))
    results = []
    for name in ("varlen", "varlen_flex"):
        model.set_attn_implementation(name)
        with flex_on_cpu():
            loss = model(**flat_inputs(pieces), use_cache=False).logits[0].logsumexp(-1).sum()
            results.append((loss, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@QUIET
@pytest.mark.parametrize(
    "keys",
    [{}, pytest.param({"packing": True, "cutoff_len": 160, "use_reentrant_gc": False}, marks=pytest.mark.slow)],
)
def test_a_run_on_flex_learns_the_same(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, keys: dict[str, Any]
) -> None:
    monkeypatch.setattr(kernels, "_lack", lambda *_: None)
    with flex_on_cpu():
        found = run(flash_attn="flex", fast_path="require", **keys)
    assert found.plan.attention == "varlen_flex"
    wanted = run(output_dir=str(tmp_path / "varlen"), **keys)
    assert wanted.plan.attention == "varlen", "auto never takes it"
    for one, other in zip(curve(found), curve(wanted), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
