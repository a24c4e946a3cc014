"""The quick ways prove themselves on rows of the run, and are given up where they differ."""

from __future__ import annotations

import json
import logging
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tunesmith.core.errors import MachineError
from tunesmith.losses import linear_cross_entropy as loss_module
from tunesmith.models import attention

pytestmark = pytest.mark.usefixtures("torch_one_thread")


@pytest.fixture
def run(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> Any:
    keys = {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


def losses(result: Any) -> list[float]:
    lines = (result.output_dir / "trainer_log.jsonl").read_text().splitlines()
    return [one["loss"] for one in map(json.loads, lines) if "loss" in one]


@pytest.mark.parametrize(
    "keys",
    [
        {"finetuning_type": "full"},
        {"bf16": True},
        {"pure_bf16": True},
        {"lora_dropout": 0.3},
        {"use_dft_loss": True},
        {"bf16": True, "use_eaft_loss": True},
    ],
)
def test_a_run_records_how_far_it_is_from_transformers(run: Any, keys: dict[str, Any]) -> None:
    result = run(fast_path="require", **keys)
    proof = json.loads((result.output_dir / "self_proof.json").read_text())
    assert proof["holds"]
    assert proof["rows"] == 3
    half = keys.keys() & {"bf16", "pure_bf16"}
    assert (proof["loss_bound"], proof["gradient_bound"]) == ((2e-3, 5e-3) if half else (1e-5, 1e-4))
    assert 0 <= proof["loss_error"] <= proof["loss_bound"]
    plan = json.loads((result.output_dir / "plan.json").read_text())
    assert (plan["batches"], plan["loss"], plan["attention"]) == ("flat", "chunked", "varlen")


def test_the_proof_leaves_nothing_behind(run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Weights and the state of chance are those of a run without it, dropout included."""
    from tunesmith.train import self_proof

    whole = run(lora_dropout=0.3, output_dir=str(tmp_path / "proven"))
    monkeypatch.setattr(self_proof, "_LOOKED_AT", 0)
    without = run(lora_dropout=0.3, output_dir=str(tmp_path / "unproven"))
    assert not (without.output_dir / "self_proof.json").exists()
    assert losses(whole) == losses(without)


def wrong_borders(*arguments: Any, bounds: Any = None, **keywords: Any) -> Any:
    """Flat attention that forgets the borders where there are more than those of the check at load."""
    if bounds is not None and bounds[-1] > 20:
        bounds = (0, bounds[-1])
    return original(*arguments, bounds=bounds, **keywords)


original = attention.varlen_attention


def test_what_differs_is_given_up(run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(attention, "varlen_attention", wrong_borders)
    with caplog.at_level(logging.WARNING, "tunesmith"):
        result = run()
    assert "quick ways are not used, they differ from transformers" in caplog.text
    proof = json.loads((result.output_dir / "self_proof.json").read_text())
    assert not proof["holds"]
    plan = json.loads((result.output_dir / "plan.json").read_text())
    assert (plan["batches"], plan["loss"], plan["attention"]) == ("padded", "full", "sdpa")
    with pytest.raises(MachineError) as caught:
        run(fast_path="require", overwrite_output_dir=True)
    assert caught.value.code == "E-TRAIN-018"


@pytest.mark.parametrize("wrong", [False, True])
def test_in_half_precision_tokens_decide_where_the_loss_does_not(
    run: Any, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    from tunesmith.train import self_proof

    monkeypatch.setitem(self_proof._BOUNDS, True, (-1.0, 5e-3 if not wrong else 10.0))
    if wrong:
        monkeypatch.setattr(attention, "varlen_attention", wrong_borders)
    proof = json.loads((run(bf16=True).output_dir / "self_proof.json").read_text())
    assert 0 < proof["token_noise"] < 0.05
    assert (proof["token_error"] > 4 * proof["token_noise"]) == wrong
    assert proof["holds"] != wrong


@pytest.mark.parametrize("tokens", [16, 9])
def test_of_long_rows_a_part_is_compared(run: Any, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    from tunesmith.train import self_proof

    monkeypatch.setattr(self_proof, "_TOKENS", tokens)
    proof = json.loads((run(fast_path="require").output_dir / "self_proof.json").read_text())
    assert (proof["rows"], proof["tokens"], proof["holds"]) == (1, tokens, True)
    assert proof["loss_error"] > 0 or proof["gradient_error"] > 0  # something of it is trained


def test_a_proof_that_memory_does_not_hold_is_left_out(
    run: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tunesmith.train import self_proof

    def full(*_arguments: Any, **_keywords: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    run()
    monkeypatch.setattr(self_proof, "_loss_and_gradient", full)
    with caplog.at_level(logging.WARNING, "tunesmith"):
        result = run(overwrite_output_dir=True)
    assert "could not be compared" in caplog.text
    assert (result.plan.batches, result.plan.loss) == ("flat", "chunked")
    assert not (result.output_dir / "self_proof.json").exists(), "that of an earlier run"
    with pytest.raises(MachineError, match="could not be compared"):
        run(fast_path="require", overwrite_output_dir=True)


def test_a_loss_that_differs_is_found(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss whose gradient is off by a thousandth."""
    add = loss_module._Gradients.add

    def off(self: Any, part: slice, gradient: torch.Tensor, *rest: Any) -> None:
        add(self, part, gradient * 1.001, *rest)

    monkeypatch.setattr(loss_module._Gradients, "add", off)
    proof = json.loads((run().output_dir / "self_proof.json").read_text())
    assert proof["loss_error"] < 1e-5
    assert proof["gradient_error"] == pytest.approx(1e-3, rel=0.1)


def test_off_is_off(run: Any) -> None:
    result = run(fast_path="off")
    assert not (result.output_dir / "self_proof.json").exists()
    assert (result.plan.batches, result.plan.loss) == ("padded", "full")


def test_what_has_no_flat_batches_is_padded_and_says_so(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tunesmith"):
        result = run(flash_attn="disabled")
    assert "padded batches: flash_attn: disabled" in caplog.text
    assert (result.plan.batches, result.plan.loss, result.plan.order) == ("padded", "chunked", "group_by_length")
    with pytest.raises(MachineError, match="a quick way is not to be had"):
        run(flash_attn="disabled", fast_path="require", overwrite_output_dir=True)


def test_what_a_run_rules_out_is_left_and_said(run: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "tunesmith"):
        result = run(neftune_noise_alpha=5)
    assert "padded batches: neftune_noise_alpha" in caplog.text
    assert (result.plan.batches, result.plan.loss) == ("padded", "chunked")


def test_the_three_losses_agree(run: Any, tmp_path: Path) -> None:
    keys = {"finetuning_type": "full", "learning_rate": 0.0, "disable_shuffling": True}
    ways = {"off": {"fast_path": "off"}, "flat": {}, "eager": {"flash_attn": "disabled"}}
    found = [losses(run(output_dir=str(tmp_path / name), **keys, **way)) for name, way in ways.items()]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    assert found[0] == pytest.approx(found[2], rel=1e-5)


@pytest.mark.parametrize(("keys", "sets"), [({}, 1), ({"bf16": True, "max_steps": 1}, 0)])
def test_one_set_of_gradients_is_held_at_most(
    run: Any, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Any], sets: int
) -> None:
    """Beside those of two parameters, which are compared: the one that is complete, and the next."""
    from tunesmith.train.self_proof import _Gradient

    take, seen, most = _Gradient.take, [], [0]

    def watched(self: _Gradient, parameter: torch.Tensor) -> None:
        seen.append(weakref.ref(parameter.grad))
        alive = [found.numel() for one in seen if (found := one()) is not None]
        most[0] = max(most[0], sum(alive))
        take(self, parameter)

    monkeypatch.setattr(_Gradient, "take", watched)
    result = run(finetuning_type="full", **keys)
    assert json.loads((result.output_dir / "self_proof.json").read_text())["rows"] == 3
    sizes = [one.numel() for one in load_file(result.output_dir / "model.safetensors").values()]
    assert len(seen) == 2 * len(sizes)
    assert sets * sum(sizes) < most[0] <= sets * sum(sizes) + 2 * max(sizes)


PACKS = {"packing": True, "cutoff_len": 160, "flash_attn": "disabled"}


def test_packs_in_padded_rows_are_proven_as_packs(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.train import self_proof

    seen: list[Any] = []
    on = self_proof.on_device
    monkeypatch.setattr(self_proof, "on_device", lambda batch, device: (seen.append(batch), on(batch, device))[1])
    result = run(**PACKS)
    assert (result.plan.batches, result.plan.packing) == ("padded", True)
    proof = json.loads((result.output_dir / "self_proof.json").read_text())
    assert (proof["rows"], proof["holds"], proof["packed"]) == (3, True, True)
    assert [len(batch["input_ids"]) for batch in seen] == [1, 3]  # one row, and each by itself
    assert seen[0]["row_pieces"].tolist() == [3]


def test_packs_that_see_each_other_stop_the_run(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release in which positions do not make a mask of blocks."""
    monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", lambda positions: positions * 0)
    with pytest.raises(MachineError) as caught:
        run(**PACKS)
    assert caught.value.code == "E-TRAIN-055"
    assert "packing: false" in str(caught.value.problems[0].fix)
