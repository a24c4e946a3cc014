"""What is computed again in the backward pass changes neither the loss nor any gradient, whatever is kept."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.tiny_models import tiny_model
from tunesmith.core.errors import UsageError
from tunesmith.models.attention import register
from tunesmith.models.checkpointing import ATTENTION_OPS, enable_checkpointing
from tunesmith.models.family import family_of
from tunesmith.models.fast_path import flat_inputs
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.models.offload import HiddenStates
from tunesmith.models.quirks.checkpoint_function import wrap_checkpoint_function

LENGTHS = (13, 7, 21, 1)  # longer than the windows of tiny models
WAYS = [("full", True), ("full", False), ("selective", False)]

pytestmark = pytest.mark.usefixtures("torch_one_thread")


def made(kind: str) -> Any:
    """A language model that ends in the loss."""
    register()
    model = tiny_model(kind, "varlen")
    install(model, "chunked", HeadFacts.of(model, family_of(kind)))
    return model


def adapted(model: Any, method: str) -> Any:
    """All of it trained, or an adapter whose weights are not zero."""
    if method == "full":
        return model
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    adapter = LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1, init_lora_weights=False)
    adapter.fan_in_fan_out = model.config.model_type == "gpt2"
    return get_peft_model(model, adapter)


def inputs(*, flat: bool) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    pieces = [torch.randint(97, (length,), generator=generator) for length in LENGTHS]
    if flat:
        found: dict[str, Any] = flat_inputs(pieces)
        ends = set(found["bounds"])
        places = [(0, at) for at in range(sum(LENGTHS) - 1) if at + 1 not in ends]
    else:
        ids = torch.nn.utils.rnn.pad_sequence(pieces, batch_first=True)
        found = {
            "input_ids": ids,
            "attention_mask": (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long(),
        }
        places = [(row, at) for row, length in enumerate(LENGTHS) for at in range(length - 1)]
    positions = torch.tensor(places)
    targets = found["input_ids"][positions[:, 0], positions[:, 1] + 1]
    return {**found, "use_cache": False, "loss_positions": positions, "loss_targets": targets}


def step(model: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss, and gradient of every trained parameter, with the same dropout each time."""
    torch.manual_seed(5)
    model.train()
    model.zero_grad()
    loss = model(**batch)["loss"]
    loss.backward()
    return loss.detach(), {name: one.grad for name, one in model.named_parameters() if one.requires_grad}


def assert_equal(found: tuple[Tensor, dict[str, Tensor]], wanted: tuple[Tensor, dict[str, Tensor]]) -> None:
    assert torch.equal(found[0], wanted[0])
    assert found[1].keys() == wanted[1].keys()
    for name, gradient in wanted[1].items():
        assert torch.equal(found[1][name], gradient), name
    assert any(gradient.abs().max() > 0 for gradient in wanted[1].values())


@pytest.mark.parametrize("flat", [True, False], ids=["flat", "padded"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "gpt2"])
def test_loss_and_gradients_are_those_of_kept_activations(kind: str, method: str, flat: bool) -> None:
    batch = inputs(flat=flat)
    wanted = step(adapted(made(kind), method), batch)
    for mode, reentrant in WAYS:
        model = made(kind)
        enable_checkpointing(model, mode, reentrant=reentrant)
        assert_equal(step(adapted(model, method), batch), wanted)


class Runs(TorchDispatchMode):
    """How often attention, and the product of matrices, really run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        name = operation.name()
        self.counts["attention" if name in ATTENTION_OPS else name] += 1
        return operation(*arguments, **(keywords or {}))


def test_selective_computes_attention_once() -> None:
    found = {}
    for mode in ("off", "full", "selective"):
        model = made("llama")
        if mode != "off":
            enable_checkpointing(model, mode, reentrant=False)
        with Runs() as runs:
            step(model, inputs(flat=True))
        found[mode] = runs.counts["attention"], runs.counts["aten::silu"]
    attention, silu = found["off"]
    assert attention >= silu == model.config.num_hidden_layers
    assert found["full"] == (2 * attention, 2 * silu)
    assert found["selective"] == (attention, 2 * silu)  # SiLU stands for the rest of a layer


def test_selective_says_where_attention_has_no_kernel(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    assert enable_checkpointing(made("llama"), "selective", reentrant=False) == "selective"
    assert not caplog.messages
    assert enable_checkpointing(made("gemma2"), "selective", reentrant=False) == "full"
    assert "selective keeps no more than full" in caplog.messages[-1]


def test_a_model_that_cannot_is_told() -> None:
    model = made("llama")
    type(model).supports_gradient_checkpointing, before = False, type(model).supports_gradient_checkpointing
    try:
        with pytest.raises(UsageError, match="E-MODEL-009"):
            enable_checkpointing(model, "full", reentrant=False)
    finally:
        type(model).supports_gradient_checkpointing = before


# ---- offload ----


class Elsewhere:
    """In place of a device's streams: what is sent lies in arrays, and what happens is written down."""

    def __init__(self) -> None:
        self.happened: list[tuple[str, int]] = []
        self.away = 0

    def send(self, tensor: Tensor) -> Any:
        self.happened.append(("send", self.away))
        self.away += 1
        return self.away - 1, tensor.detach().numpy().copy()

    def fetch(self, away: Any) -> Any:
        self.happened.append(("fetch", away[0]))
        return away

    def arrive(self, coming: Any) -> Tensor:
        self.happened.append(("arrive", coming[0]))
        return torch.from_numpy(coming[1])


def away_model(kind: str, reentrant: bool) -> tuple[Any, Elsewhere]:
    model, elsewhere = made(kind), Elsewhere()
    enable_checkpointing(model, "full", reentrant=reentrant)
    wrap_checkpoint_function(model, HiddenStates(elsewhere).around)
    return model, elsewhere


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_states_that_were_away_give_the_same(kind: str, method: str, reentrant: bool) -> None:
    batch = inputs(flat=True)
    wanted = step(adapted(made(kind), method), batch)
    model, elsewhere = away_model(kind, reentrant)
    assert_equal(step(adapted(model, method), batch), wanted)
    assert sum(what == "send" for what, _ in elsewhere.happened) == 2  # one for each layer, and nothing else


@pytest.mark.parametrize("reentrant", [True, False])
def test_the_state_below_is_on_its_way_before_it_is_needed(reentrant: bool) -> None:
    model, elsewhere = away_model("llama", reentrant)
    step(model, inputs(flat=True))
    assert elsewhere.happened == [
        *(("send", 0), ("send", 1)),
        *(("fetch", 1), ("fetch", 0), ("arrive", 1)),  # the first layer's travels while the second is computed
        ("arrive", 0),
    ]
    elsewhere.happened.clear()
    step(model, inputs(flat=True))  # nothing of the step before is asked for
    assert [number for what, number in elsewhere.happened if what == "fetch"] == [3, 2]


def test_states_of_a_forward_without_backward_are_let_go() -> None:
    model, elsewhere = away_model("llama", False)
    model.train()
    batch = inputs(flat=True)
    del elsewhere.happened[:]
    loss = model(**batch)["loss"]
    del loss
    gc.collect()
    step(model, batch)
    assert [number for what, number in elsewhere.happened if what == "fetch"] == [3, 2]


@pytest.mark.gpu
@pytest.mark.parametrize("reentrant", [True, False])
def test_states_in_main_memory_give_the_same_on_a_gpu(reentrant: bool) -> None:
    batch = {name: one.cuda() if isinstance(one, Tensor) else one for name, one in inputs(flat=True).items()}
    wanted = step(made("llama").cuda(), batch)
    model = made("llama").cuda()
    enable_checkpointing(model, "offload", reentrant=reentrant)
    for _ in range(3):  # memory is used again
        found = step(model, batch)
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-6, atol=0)
        size = torch.stack([one.square().sum() for one in wanted[1].values()]).sum().sqrt()
        for name, gradient in wanted[1].items():
            assert (found[1][name] - gradient).norm() <= 1e-6 * size, name


@pytest.mark.gpu
def test_states_in_main_memory_leave_the_gpu() -> None:
    def peak(mode: str) -> int:
        model = made("llama").cuda()
        enable_checkpointing(model, mode, reentrant=False)
        hidden = torch.randn(1, 4096, 32, device="cuda")
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model.train()
        output = model.model(inputs_embeds=hidden.requires_grad_(), use_cache=False).last_hidden_state
        grown = torch.cuda.memory_allocated() - before
        output.sum().backward()
        return int(grown)

    assert peak("offload") < peak("full") - 4096 * 32 * 4  # one of two layers' inputs at least
