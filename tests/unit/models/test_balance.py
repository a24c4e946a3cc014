"""The load-balancing loss in training: its place beside the loss of tokens, checkpointing, the log, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

import tunesmith
from tests.tiny_models import tiny_config
from tests.tiny_models import tiny_model as tiny
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import UsageError
from tunesmith.models.attention import VARLEN, register
from tunesmith.models.balance import Balance
from tunesmith.models.checkpointing import enable_checkpointing
from tunesmith.models.fast_path import flat_inputs, plan_fast_path
from tunesmith.models.loss_forward import HeadFacts, LossForward, install

pytestmark = pytest.mark.usefixtures("torch_one_thread")

COEFFICIENT = 0.5
LENGTHS = (9, 6)


def made(model_type: str, way: Any = "chunked", attention: str = "eager") -> Any:
    register()
    model = tiny(model_type, attention).train()
    install(model, way, HeadFacts())
    LossForward.within(model).balance = Balance(model, COEFFICIENT)
    return model


def rows() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 97, (length,), generator=generator) for length in LENGTHS]


def padded() -> dict[str, torch.Tensor]:
    ids, mask = torch.zeros(2, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)
    for number, row in enumerate(rows()):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def targets(*, flat: bool) -> dict[str, torch.Tensor]:
    places, found = [], []
    start = 0
    for number, row in enumerate(rows()):
        places += [[0, start + at] if flat else [number, at] for at in range(len(row) - 1)]
        found += row[1:].tolist()
        start += len(row)
    return {"loss_positions": torch.tensor(places), "loss_targets": torch.tensor(found)}


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def theirs(model_type: str) -> tuple[float, dict[str, torch.Tensor]]:
    """transformers' own: the mean of the tokens and the routers' loss times its coefficient; as a sum, like ours."""
    model = tiny(model_type, "eager", router_aux_loss_coef=COEFFICIENT).train()
    batch = padded()
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    count = sum(LENGTHS) - len(LENGTHS)
    loss = model(**batch, labels=labels, output_router_logits=True, use_cache=False).loss * count
    return float(loss.detach()), gradients(model, loss)


def close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    norm = torch.cat([one.flatten() for one in wanted.values()]).norm()
    assert found.keys() == wanted.keys()
    for name, one in found.items():
        assert float((one - wanted[name]).norm() / norm) < 1e-5, name


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe"])
@pytest.mark.parametrize("way", ["chunked", "kept", "full"])
def test_it_is_what_transformers_adds(model_type: str, way: str) -> None:
    wanted, gradient = theirs(model_type)
    model = made(model_type, way)
    found = model(**padded(), **targets(flat=False))
    assert float(found["loss"].detach()) == pytest.approx(wanted, rel=1e-5)
    close(gradients(model, found["loss"]), gradient)


@pytest.mark.parametrize("model_type", ["mixtral", "qwen3_moe"])
def test_a_flat_batch_gives_the_same(model_type: str) -> None:
    wanted, gradient = theirs(model_type)
    model = made(model_type, attention=VARLEN)
    found = model(**flat_inputs(rows()), **targets(flat=True))
    assert float(found["loss"].detach()) == pytest.approx(wanted, rel=1e-5)
    close(gradients(model, found["loss"]), gradient)


@pytest.mark.parametrize("mode", ["full", "selective"])
def test_activations_that_are_computed_again_change_nothing(mode: str) -> None:
    """With the re-entrant kind the routers would have no gradient."""
    model = made("mixtral", attention=VARLEN)
    wanted = gradients(model, model(**flat_inputs(rows()), **targets(flat=True))["loss"])
    enable_checkpointing(model, mode, reentrant=False)
    close(gradients(model, model(**flat_inputs(rows()), **targets(flat=True))["loss"]), wanted)


def test_evaluation_is_of_the_tokens_alone() -> None:
    model = made("mixtral").eval()
    found = model(**padded(), **targets(flat=False))
    assert "aux_loss" not in found
    assert float(found["loss"].detach()) == pytest.approx(-float(found["log_probs"].sum()), rel=1e-5)


def test_a_batch_without_targets_adds_nothing() -> None:
    none = {"loss_positions": torch.zeros(0, 2, dtype=torch.long), "loss_targets": torch.zeros(0, dtype=torch.long)}
    assert float(made("mixtral")(**padded(), **none)["loss"].detach()) == 0.0


@pytest.mark.parametrize("model_type", ["llama", "deepseek_v3"])
def test_types_without_it_are_refused_with_those_that_have_it(model_type: str, tmp_path: Path) -> None:
    tiny_config(model_type).save_pretrained(tmp_path)
    with pytest.raises(UsageError) as caught:
        plan_fast_path(ModelConfig(model_name_or_path=str(tmp_path), moe_aux_loss_coef=0.01))
    assert caught.value.code == "E-MODEL-026"
    assert "mixtral" in str(caught.value.problems[0].fix)


@pytest.mark.slow
def test_a_run_adds_the_loss_of_the_routers(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """A heavy weight makes the load even: 2 of 4 experts a token, so 2 is even, and more is not."""
    folder = tmp_path / "mixtral"
    model = tiny("mixtral", None, vocab_size=896, max_position_embeddings=512)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.gate.weight[0] += 0.3  # an uneven beginning
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    keys = {
        "model_name_or_path": str(folder),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "finetuning_type": "full",
        "per_device_train_batch_size": 4,
        "num_train_epochs": 8,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    logs = {}
    for coefficient in (0.0, 1.0):
        more = {"moe_aux_loss_coef": coefficient, "output_dir": str(tmp_path / f"out{coefficient}")}
        written = tunesmith.train({**keys, **more}).output_dir / "trainer_log.jsonl"
        logs[coefficient] = [line for line in map(json.loads, written.read_text().splitlines()) if "loss" in line]
    told, heavy = logs[0.0], logs[1.0]
    assert heavy[0]["loss"] == pytest.approx(told[0]["loss"] + told[0]["aux_loss"], rel=1e-5)
    assert heavy[-1]["aux_loss"] < 2.02 < heavy[0]["aux_loss"]
    assert heavy[-1]["aux_loss"] < told[-1]["aux_loss"]


def test_a_dense_model_of_a_type_with_experts_is_refused(tmp_path: Path) -> None:
    """Granite 4.0 has sizes without experts, under the same type; nothing of the weights is read."""
    tiny_config("granitemoehybrid", num_local_experts=0).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="no layer of it has experts") as caught:
        plan_fast_path(ModelConfig(model_name_or_path=str(tmp_path), moe_aux_loss_coef=0.01))
    assert caught.value.code == "E-MODEL-026"
