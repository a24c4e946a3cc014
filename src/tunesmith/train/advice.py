"""What to change where memory does not hold a single row, and about how much each change saves.

Counted, not measured, from the model's shape: T tokens of the row, H hidden, I intermediate, L layers, b bytes of a
number in the activations.

    kept of a layer      b * T * (8 H + 3 I)   inputs of two norms, q k v and their output, two sums; gate, up, product
    without recomputing  L * kept of a layer
    with recomputing     b * T * H * L + kept of one layer
    gradients            bytes of the trained weights
    optimizer            its states, see `optimizer_bytes`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tunesmith.core.errors import MachineError, Problem
from tunesmith.models.quantization.weights import packed_names
from tunesmith.train.micro import Batch, size_of

__all__ = [
    "Facts",
    "Saving",
    "facts_of",
    "no_room",
    "no_room_for_states",
    "no_room_to_save",
    "optimizer_bytes",
    "savings",
]

_GIB = 2**30

# States of an optimizer by a word in its name, first match: how many numbers per trained weight, and their bytes (None:
# those of the weight). Paged ones lie in main memory.
_STATES: tuple[tuple[str, float, int | None], ...] = (
    ("paged", 0, None),
    ("galore", 0, None),
    ("apollo", 0, None),
    ("badam", 0, None),
    ("adam_mini", 1, None),
    ("muon", 1, None),
    ("soap", 5, 4),
    ("adafactor", 0, None),
    ("8bit", 2, 1),
    ("4bit", 1, 1),
    ("sgd", 1, None),
    ("lion", 1, None),
    ("rmsprop", 1, None),
    ("adagrad", 1, None),
    ("", 2, None),
)


@dataclass(frozen=True, slots=True)
class Facts:
    """Sizes of a model and of how it is trained. `numbers`: bytes of a number in the activations; `trained` and
    `frozen`: weights, with their bytes; `optimizer`: bytes of its states."""

    hidden: int
    intermediate: int
    layers: int
    numbers: int
    recomputes: bool
    trained: int
    trained_bytes: int
    frozen_bytes: int
    frozen: int
    optimizer: int

    def layer(self, tokens: int) -> int:
        """Bytes that the backward pass keeps of one layer."""
        return self.numbers * tokens * (8 * self.hidden + 3 * self.intermediate)

    def activations(self, tokens: int, *, recomputes: bool) -> int:
        if not recomputes:
            return self.layers * self.layer(tokens)
        return self.numbers * tokens * self.hidden * self.layers + self.layer(tokens)


class Saving(NamedTuple):
    """What to write, and about how many bytes that saves."""

    text: str
    bytes: int


def optimizer_bytes(optim: str, model: Any) -> int:
    """Bytes of the states that an optimizer (`optim`) will hold for the trained weights of a model."""
    _, count, own = next(entry for entry in _STATES if entry[0] in optim)
    return int(sum(one.numel() * count * (own or one.element_size()) for one in _weights(model, trained=True)))


def facts_of(model: Any, optim: str, *, half: bool) -> Facts:
    """`half`: the arithmetic is in half precision, whatever the weights are held in."""
    config = model.config.get_text_config()
    hidden = int(getattr(config, "hidden_size", None) or 0)
    trained, frozen = (list(_weights(model, trained=flag)) for flag in (True, False))
    packed = packed_names(model)
    largest = max((one for name, one in model.named_parameters() if name not in packed), key=lambda one: one.numel())
    return Facts(
        hidden=hidden,
        intermediate=int(getattr(config, "intermediate_size", None) or 4 * hidden),
        layers=int(getattr(config, "num_hidden_layers", None) or 0),
        numbers=2 if half else int(largest.element_size()),
        recomputes=any(getattr(module, "gradient_checkpointing", False) for module in model.modules()),
        trained=sum(one.numel() for one in trained),
        trained_bytes=sum(one.numel() * one.element_size() for one in trained),
        frozen=sum(one.numel() for one in frozen),
        frozen_bytes=sum(one.numel() * one.element_size() for one in frozen),
        optimizer=optimizer_bytes(optim, model),
    )


def savings(facts: Facts, tokens: int) -> list[Saving]:
    """What would help, the most helpful first. Only keys that work are named."""
    found = [one for one in _candidates(facts, tokens) if one.bytes > 0]
    return sorted(found, key=lambda one: -one.bytes)


def _candidates(facts: Facts, tokens: int) -> Iterator[Saving]:
    kept = facts.activations(tokens, recomputes=facts.recomputes)
    if tokens > 1:
        yield Saving(f"cutoff_len: {tokens // 2}", kept - facts.activations(tokens // 2, recomputes=facts.recomputes))
    if not facts.recomputes:
        saved = kept - facts.activations(tokens, recomputes=True)
        yield Saving("disable_gradient_checkpointing: false", saved)
    if facts.numbers > 2:
        frozen = max(facts.frozen_bytes - 2 * facts.frozen, 0)
        yield Saving("bf16: true", kept // 2 + frozen)
    if not facts.frozen:
        yield Saving("finetuning_type: lora", facts.trained_bytes + facts.optimizer)
        yield Saving("optim: adafactor", facts.optimizer)
    elif facts.frozen_bytes >= 2 * facts.frozen:  # not quantized yet
        yield Saving("quantization_bit: 4", facts.frozen_bytes - facts.frozen // 2)


def no_room(batch: Batch, facts: Facts, where: str, *, alone: bool, training: bool) -> MachineError:
    """The error for what memory does not hold: a single row, sequence or pair (`alone`), or a larger part of a step
    that cannot be begun anew."""
    tokens = size_of(batch).tokens
    helps = savings(facts, tokens)
    if not alone:
        fewer = facts.activations(tokens, recomputes=facts.recomputes) // 2
        helps = [Saving("half of per_device_train_batch_size, twice gradient_accumulation_steps", fewer), *helps]
    if not training:  # neither gradients nor states, and nothing is kept for a backward pass
        helps = [Saving(f"cutoff_len: {tokens // 2}", facts.layer(tokens) - facts.layer(tokens // 2))]
    what = "out of memory with a single row" if alone else "out of memory in a step that cannot be begun anew"
    return MachineError(Problem("E-TRAIN-030", what, where, f"{tokens:,} tokens at once", _listed(helps)))


def no_room_for_states(facts: Facts) -> MachineError:
    """The error where not even the optimizer's states fit beside the weights."""
    helps = [one for one in savings(facts, 0) if one.bytes]
    what = "out of memory: the states of the optimizer do not fit beside the weights"
    return MachineError(Problem("E-TRAIN-030", what, "optim", _gib(facts.optimizer), _listed(helps)))


def no_room_to_save(facts: Facts) -> MachineError:
    """The error where memory runs out while a checkpoint is written, which copies weights and states at most."""
    helps = [one for one in savings(facts, 0) if one.bytes]
    what = "out of memory while a checkpoint was written; the one before it is whole"
    held = facts.trained_bytes + facts.frozen_bytes + facts.optimizer
    return MachineError(Problem("E-TRAIN-030", what, "saving", f"{_gib(held)} of weights and states", _listed(helps)))


def _listed(helps: list[Saving]) -> str:
    texts = [f"{one.text} (saves about {_gib(one.bytes)})" for one in helps]
    return "; ".join(texts) or "use a machine with more memory"


def _gib(size: int) -> str:
    return f"{size / _GIB:.1f} GiB" if size >= _GIB / 10 else f"{size / 2**20:.1f} MiB"


def _weights(model: Any, *, trained: bool) -> Iterator[Any]:
    return (one for one in model.parameters() if one.requires_grad == trained)
