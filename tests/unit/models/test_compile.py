"""torch.compile takes flat batches of any number of sequences and any lengths with the graphs of the first one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.tiny_models import tiny_model
from tunesmith.models.attention import Bounds, register
from tunesmith.models.checkpointing import enable_checkpointing
from tunesmith.models.family import family_of
from tunesmith.models.fast_path import flat_inputs
from tunesmith.models.loss_forward import HeadFacts, LossWay, install, trunk_of
from tunesmith.models.segments import fit

LENGTHS = [(5, 9, 3), (4, 8, 12, 2), (7, 7, 7), (3, 4, 5, 6, 7), (21, 2, 3)]


def made(kind: str, *, adapter: bool, way: LossWay = "chunked", attention: str | None = None) -> Any:
    register()
    family = family_of(kind)
    model = tiny_model(kind, attention or family.attention or "varlen")
    install(model, way, HeadFacts.of(model, family))
    fit(model, family, trunk_of(model))
    if adapter:
        from peft import LoraConfig, get_peft_model

        enable_checkpointing(model, "full", reentrant=True)
        torch.manual_seed(1)
        adapter = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
        model = get_peft_model(model, adapter)
    return model.train()


def batch(lengths: tuple[int, ...]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(sum(lengths))
    found = flat_inputs([torch.randint(97, (length,), generator=generator) for length in lengths])
    places = [at for at in range(sum(lengths) - 1) if at + 1 not in found["bounds"]]
    positions = torch.tensor([(0, at) for at in places])
    found |= {"use_cache": False, "loss_positions": positions}
    return {**found, "loss_targets": found["input_ids"][0][positions[:, 1] + 1], "bounds": Bounds(found["bounds"])}


def padded(lengths: tuple[int, ...]) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(sum(lengths))
    rows = [torch.randint(97, (length,), generator=generator) for length in lengths]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = (torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]).long()
    positions = mask[:, 1:].nonzero()
    found = {"input_ids": ids, "attention_mask": mask, "use_cache": False, "loss_positions": positions}
    return {**found, "loss_targets": ids[positions[:, 0], positions[:, 1] + 1]}


def losses(model: Any, forward: Any, after_each: Any = lambda: None, make: Any = batch) -> list[float]:
    """Loss and gradient norm of each batch, one behind the other."""
    found = []
    for lengths in LENGTHS:
        model.zero_grad()
        loss = forward(**make(lengths))["loss"]
        loss.backward()
        gradients = [one.grad for one in model.parameters() if one.grad is not None]
        found += [float(loss), float(torch.nn.utils.get_total_norm(gradients))]
        after_each()
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("torch_one_thread")
@pytest.mark.parametrize(
    ("kind", "adapter"), [("llama", False), ("llama", True), ("lfm2", False), ("gpt_neo", False), ("stablelm", False)]
)
def test_no_new_graph_after_the_first_batch(kind: str, adapter: bool) -> None:
    from torch._dynamo.utils import counters

    expected = made(kind, adapter=adapter)
    wanted = losses(expected, expected)
    torch.compiler.reset()
    counters.clear()
    graphs: list[int] = []
    model = made(kind, adapter=adapter)
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    found = losses(model, compiled, lambda: graphs.append(counters["stats"]["unique_graphs"]))
    assert found == pytest.approx(wanted, rel=1e-6)
    assert graphs[0] > 0
    assert graphs == graphs[:1] * len(LENGTHS)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("torch_one_thread")
@pytest.mark.parametrize(
    ("way", "attention", "adapter"), [("full", "sdpa", True), ("kept", "sdpa", False), ("chunked", "eager", False)]
)
def test_padded_batches_make_no_new_graph_either(way: LossWay, attention: str, adapter: bool) -> None:
    from torch._dynamo.utils import counters

    expected = made("llama", adapter=adapter, way=way, attention=attention)
    wanted = losses(expected, expected, make=padded)
    torch.compiler.reset()
    counters.clear()
    graphs: list[int] = []
    model = made("llama", adapter=adapter, way=way, attention=attention)
    compiled = torch.compile(model, backend="aot_eager", dynamic=True)
    found = losses(model, compiled, lambda: graphs.append(counters["stats"]["unique_graphs"]), padded)
    assert found == pytest.approx(wanted, rel=1e-6)
    assert graphs[0] > 0
    assert graphs == graphs[:1] * len(LENGTHS)


def test_bounds_are_a_sequence_of_numbers() -> None:
    bounds = Bounds((0, 3, 7))
    assert (list(bounds), bounds[-1], len(bounds)) == ([0, 3, 7], 7, 3)
