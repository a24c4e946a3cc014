"""What a checkpoint holds beside weights: the optimizer, its schedule, the generators, what was counted; and how a run
takes them up again, also where the config has changed what may change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from transformers.trainer_callback import ExportableState

from tunesmith.checkpoints.chance import Chance
from tunesmith.checkpoints.states import has_tree, load_tree
from tunesmith.core.log import get_logger
from tunesmith.models.quantization.weights import parts_of

__all__ = [
    "callback_states",
    "copied_where_trained",
    "first_groups",
    "frozen_digest",
    "load_optimizer",
    "loss_to_tell",
    "optimizer_trees",
    "process_name",
    "process_state",
    "restore_process",
    "seconds_before",
    "show_average",
    "size_to_save",
]

_ENDS = 64  # elements
_NOT_SETTINGS = {"params", "lr", "initial_lr"}
"""Of an optimizer's groups: the weights, and what the schedule sets."""


def callback_states(callbacks: Iterable[Any]) -> dict[str, Any]:
    """States of the callbacks that have one, as transformers keeps them: by class, several of one as a list."""
    found: dict[str, list[Any]] = {}
    for callback in callbacks:
        if isinstance(callback, ExportableState):
            found.setdefault(type(callback).__name__, []).append(callback.state())
    return {name: states[0] if len(states) == 1 else states for name, states in found.items()}


# ---- one process ----


def process_name(rank: int) -> str:
    return f"process_{rank}"


def process_state(device: torch.device, loss: float, sums: Mapping[str, list[float]]) -> dict[str, Any]:
    """The generators of this process, and the sums of losses and metrics that no log has told yet."""
    return {"chance": Chance(device).to_tree(), "loss": loss, "sums": dict(sums)}


def restore_process(checkpoint: Path, rank: int, device: torch.device) -> None:
    """Set the generators of this process as they were. Where the checkpoint has fewer processes, those that are new
    keep what the seed made."""
    if has_tree(checkpoint, process_name(rank)):
        Chance.from_tree(load_tree(checkpoint, process_name(rank))["chance"], device).restore()


def loss_to_tell(checkpoint: Path, rank: int, ranks: int) -> float:
    """The sum of losses of this process since the last log; with another number of processes the mean of theirs."""
    losses: list[float] = []
    while has_tree(checkpoint, process_name(len(losses))):
        losses.append(load_tree(checkpoint, process_name(len(losses)))["loss"])
    if len(losses) == ranks:
        return losses[rank]
    get_logger().info(
        "the checkpoint is of %d processes, this run has %d: rows come in the same order, dropout is drawn anew",
        *(len(losses), ranks),
    )
    return sum(losses) / max(len(losses), 1)


def seconds_before(checkpoint: str | None) -> float:
    """Seconds of training up to a checkpoint; 0 where it does not tell."""
    if checkpoint is None or not has_tree(Path(checkpoint), "progress"):
        return 0.0
    return float(load_tree(Path(checkpoint), "progress")["seconds"])


# ---- optimizer and schedule ----


def first_groups(optimizer: Any) -> list[dict[str, Any]]:
    """The settings of the optimizer's groups as the config made them; some optimizers change theirs while they run."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def optimizer_trees(optimizer: Any, schedule: Any, scaler: Any, first: list[dict[str, Any]]) -> dict[str, Any]:
    trees = {
        "optimizer": {"kind": _kind(optimizer), "state": optimizer.state_dict(), "first": _plain(first)},
        "schedule": {"kind": type(schedule).__name__, "state": schedule.state_dict()},
    }
    if scaler is not None:
        trees["scaler"] = scaler.state_dict()
    return trees


def load_optimizer(folder: Path, optimizer: Any, schedule: Any, scaler: Any, device: torch.device) -> None:
    """Put the states of a checkpoint into an optimizer that was made from the config of today. What the config has
    changed since (learning rate, weight decay, schedule, number of steps) holds from here on; without a change
    everything is as it was, to the bit."""
    now = first_groups(optimizer)
    saved = load_tree(folder, "optimizer", device)
    if saved["kind"] != _kind(optimizer) or len(saved["first"]) != len(now):
        get_logger().warning("the optimizer begins anew, and so does the learning rate: it was a %s", saved["kind"])
        return
    optimizer.load_state_dict(saved["state"])
    changed = [
        {name: value for name, value in _plain(group).items() if value != before.get(name)}
        for group, before in zip(now, saved["first"], strict=True)
    ]
    for group, changes in zip(optimizer.param_groups, changed, strict=True):
        group.update({name: value for name, value in changes.items() if name not in _NOT_SETTINGS})
    _load_schedule(load_tree(folder, "schedule"), optimizer, schedule, now, saved["first"])
    if scaler is not None and has_tree(folder, "scaler"):
        scaler.load_state_dict(load_tree(folder, "scaler"))


def _kind(optimizer: Any) -> str:
    return type(getattr(optimizer, "optimizer", optimizer)).__name__  # accelerate wraps it


def _load_schedule(
    saved: Mapping[str, Any], optimizer: Any, schedule: Any, now: list[dict[str, Any]], before: list[dict[str, Any]]
) -> None:
    rates = [
        (one.get("initial_lr", one["lr"]), was.get("initial_lr", was["lr"]))
        for one, was in zip(now, before, strict=True)
    ]
    if saved["kind"] != type(schedule).__name__:
        get_logger().warning("the schedule of the learning rate begins anew: it was a %s", saved["kind"])
        for group, (rate, _) in zip(optimizer.param_groups, rates, strict=True):
            group["initial_lr"] = rate
            _set_rate(group, rate)
        return
    state = dict(saved["state"])
    for group, (rate, was) in zip(optimizer.param_groups, rates, strict=True):
        if rate != was:
            _set_rate(group, group["lr"] * rate / was if was else rate)
            group["initial_lr"] = rate
    if isinstance(schedule, LambdaLR):  # a function of the step: what today's gives, as the next step would
        factors = [factor(state["last_epoch"]) for factor in schedule.lr_lambdas]
        state["base_lrs"] = [float(rate) for rate, _ in rates]
        state["_last_lr"] = [base * factor for base, factor in zip(state["base_lrs"], factors, strict=True)]
        for group, rate in zip(optimizer.param_groups, state["_last_lr"], strict=True):
            _set_rate(group, rate)
    schedule.load_state_dict(state)


def _set_rate(group: dict[str, Any], rate: Any) -> None:
    """Some optimizers are compiled for a learning rate that is a tensor, and stays the same one."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _plain(value: Any) -> Any:
    """Settings without tensors: a learning rate may be one."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def show_average(optimizer: Any) -> None:
    """Optimizers that average weights put the mean into the model, to be judged or saved; the next step of training
    takes it out again."""
    if optimizer is not None and callable(show := getattr(optimizer, "eval", None)):
        show()


# ---- weights ----


def copied_where_trained(model: Any, optimizer: Any) -> dict[str, Tensor]:
    """The state of a model to be saved while training goes on: weights of the optimizer and buffers copied into the
    memory of the processor, others as they are. Weights that are tied stay one tensor."""
    trained = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
    frozen = {name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) not in trained}
    copies: dict[tuple[int, torch.Size], Tensor] = {}
    found = {}
    for name, tensor in model.state_dict().items():
        if name not in frozen and isinstance(tensor, Tensor):
            place = (tensor.data_ptr(), tensor.shape)
            if place not in copies:
                copies[place] = tensor.detach().to("cpu", copy=True)
            tensor = copies[place]
        found[name] = tensor
    return found


def frozen_digest(model: Any) -> str:
    """Tells base models apart: names, shapes and types of the weights that are not trained, and both ends of each; of
    quantized ones those of all their parts."""
    digest = hashlib.blake2b(digest_size=16)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    for name, weight in sorted(parts_of(model), key=lambda item: item[0]):
        if name in trained:
            continue
        flat = weight.detach().reshape(-1)
        ends = torch.cat([flat[:_ENDS], flat[-_ENDS:]]).cpu().contiguous().view(torch.uint8)
        digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}".encode() + ends.numpy().tobytes())
    return digest.hexdigest()


def size_to_save(model: Any, optimizer: Any) -> int:
    """Bytes of the weights that are saved (of an adapter: the trained ones) and of the optimizer's states. Before the
    first step, when there are none, two numbers of 32 bits for each trained weight stand for them."""
    adapter = hasattr(model, "peft_config")
    weights = [weight for weight in model.parameters() if weight.requires_grad or not adapter]
    trained = sum(weight.numel() for weight in weights if weight.requires_grad)
    states = sum(
        tensor.numel() * tensor.element_size()
        for state in optimizer.state.values()
        for tensor in state.values()
        if isinstance(tensor, Tensor)
    )
    return sum(weight.numel() * weight.element_size() for weight in weights) + (states or 8 * trained)
