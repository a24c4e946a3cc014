"""Where a run computes and in which number type: what the keys ask for, and what the machine allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith.config import load_config
from tunesmith.core.errors import ConfigError, MachineError
from tunesmith.models.fast_path import FastPath
from tunesmith.train.arguments import training_arguments
from tunesmith.train.plan import as_before, resolve_plan, what_rules_out, with_fast_path

KEYS = {"model_name_or_path": "m", "dataset": "d"}


def plan(folder: Path, **keys: Any) -> Any:
    return resolve_plan(load_config({**KEYS, "output_dir": str(folder), **keys}))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(("keys", "device"), [({}, "cuda:0"), ({"use_cpu": True}, "cpu"), ({"no_cuda": True}, "cpu")])
def test_the_processor_is_used_on_request(tmp_path: Path, keys: dict[str, Any], device: str) -> None:
    assert plan(tmp_path, **keys).device == device


@pytest.mark.usefixtures("gpu")
def test_activations_leave_a_gpu_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert plan(tmp_path, use_unsloth_gc=True).gradient_checkpointing == "offload"
    assert not caplog.messages
    assert plan(tmp_path, use_unsloth_gc=True, use_cpu=True).gradient_checkpointing == "full"
    assert "offload is without effect" in caplog.messages[-1]
    assert plan(tmp_path, disable_gradient_checkpointing=True).gradient_checkpointing == "off"
    assert plan(tmp_path, gradient_checkpointing_mode="selective").gradient_checkpointing == "selective"


@pytest.mark.usefixtures("gpu")
def test_fp16_loads_and_computes_in_float16(tmp_path: Path) -> None:
    found = plan(tmp_path, fp16=True)
    assert (found.dtype, found.autocast) == ("float16", "float16")


@pytest.mark.usefixtures("no_gpu")
def test_fp16_needs_a_gpu(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        plan(tmp_path, fp16=True)
    assert caught.value.code == "E-TRAIN-004"


def test_a_gpu_without_bfloat16_is_told(tmp_path: Path, gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old")
    with pytest.raises(MachineError) as caught:
        plan(tmp_path, bf16=True)
    assert caught.value.code == "E-TRAIN-005"


def arguments(folder: Path, **keys: Any) -> Any:
    config = load_config({**KEYS, "output_dir": str(folder), "use_cpu": True, **keys})
    return training_arguments(config, resolve_plan(config))


@pytest.mark.parametrize("value", [True, False])
def test_tf32_is_switched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: bool) -> None:
    switched = []
    monkeypatch.setattr("transformers.training_args.is_torch_tf32_available", lambda: True)
    monkeypatch.setattr("transformers.training_args.enable_tf32", switched.append)
    arguments(tmp_path)
    assert switched == []
    arguments(tmp_path, tf32=value)
    assert switched == [value]


def test_tf32_where_there_is_none_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.training_args.is_torch_tf32_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        arguments(tmp_path, tf32=True)
    assert caught.value.code == "E-TRAIN-002"
    assert "tf32" in str(caught.value)


class Asked(Exception):
    """Raised in place of setting up processes, with what was asked for."""


def test_processes_talk_through_the_backend_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(**settings: Any) -> Any:
        raise Asked(settings["backend"])

    arguments(tmp_path, ddp_backend="gloo")  # one process has nobody to talk to
    monkeypatch.setattr("transformers.training_args.PartialState", state)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Asked, match="gloo"):
        arguments(tmp_path, ddp_backend="gloo")
    with pytest.raises(Asked, match="None"):
        arguments(tmp_path)


@pytest.mark.usefixtures("gpu")
def test_processes_wait_for_each_other_as_long_as_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def state(**settings: Any) -> Any:
        raise Asked(settings["timeout"].total_seconds())

    monkeypatch.setattr("transformers.training_args.PartialState", state)
    with pytest.raises(Asked, match="77"):
        arguments(tmp_path, ddp_timeout=77, use_cpu=False)


def test_what_transformers_refuses_is_told_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Model and data of this config do not exist."""
    for name in ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"):  # so that what transformers sets is taken back
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    keys = {**KEYS, "output_dir": str(tmp_path), "use_cpu": True}
    with pytest.raises(ConfigError) as caught:
        tunesmith.train(keys, torch_compile_backend="nonsense")
    assert caught.value.code == "E-TRAIN-002"
    assert "DynamoBackend" in str(caught.value)


@pytest.mark.usefixtures("gpu")
def test_float16_keeps_its_logits(tmp_path: Path) -> None:
    config = load_config({**KEYS, "output_dir": str(tmp_path), "fp16": True})
    ruled_out = what_rules_out(resolve_plan(config), config)
    assert ruled_out["no_chunks"]
    assert not ruled_out["no_flat"]


# --- a run that is resumed ---

FLAT = FastPath(True, "chunked", "varlen")


def test_a_resumed_run_draws_rows_as_before(tmp_path: Path) -> None:
    """The proof failed where it began, so rows were padded and grouped; here it holds."""
    config = load_config({**KEYS, "output_dir": str(tmp_path), "use_cpu": True})
    here = with_fast_path(resolve_plan(config), config, FLAT)
    assert here.order == "random"
    before = {**here.to_dict(), "order": "group_by_length", "batches": "padded"}
    assert as_before(here, before).order == "group_by_length"
    assert what_rules_out(here, config)["no_flat"] is None
    assert what_rules_out(here, config, before)["no_flat"] == "so did the run that is resumed"
    assert as_before(here, here.to_dict()) == here


def test_flat_batches_that_cannot_be_had_any_more_are_told(tmp_path: Path) -> None:
    config = load_config({**KEYS, "output_dir": str(tmp_path), "use_cpu": True})
    before = with_fast_path(resolve_plan(config), config, FLAT).to_dict()
    here = with_fast_path(resolve_plan(config), config, FLAT.without_flat("they did not prove themselves"))
    assert (here.batches, here.order) == ("padded", "group_by_length")
    with pytest.raises(MachineError) as caught:
        as_before(here, before)
    (problem,) = caught.value.problems
    assert problem.code == "E-TRAIN-054"
    assert "resume_allow: fast_path" in str(problem.fix)
    allowed = as_before(here, before, {"fast_path"})
    assert (allowed.batches, allowed.order) == ("padded", "random")
