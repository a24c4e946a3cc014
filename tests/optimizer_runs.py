"""Optimizers without a run: made from keys, stepped on a tiny model or on a weight with gradients that are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from tunesmith.config import load_config
from tunesmith.config.optimizer_checks import options_of
from tunesmith.config.optimizer_facts import optimizer_of
from tunesmith.train.optimizers import OPTIMIZERS
from tunesmith.train.optimizers.ask import Ask

BASE = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "finetuning_type": "full"}
ADAM = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8}


@cache
def _config() -> Any:
    from transformers import LlamaConfig

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3, "vocab_size": 31}
    return LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)


def tiny_llama() -> Any:
    """Three layers, 4 heads, 2 of keys, with weights from seed 0."""
    from transformers import LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(_config())


def asked(model: Any, inside: Any = None, **keys: Any) -> Ask:
    """What `optimizer_for` would ask for with these keys."""
    config = load_config({**BASE, **keys})
    decays = frozenset(name for name, weight in model.named_parameters() if weight.ndim > 1)
    adam = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}
    return Ask(
        config.optimizer,
        model,
        adam,
        decays,
        inside or (lambda groups: torch.optim.AdamW(groups, weight_decay=0.0)),
        seed=3,
        options=options_of(config),
    )


def made(model: Any, inside: Any = None, **keys: Any) -> Any:
    """The optimizer that these keys ask for."""
    name = optimizer_of(load_config({**BASE, **keys})).name
    return OPTIMIZERS.get(name)(asked(model, inside, **keys))


def train(
    model: Any, optimizer: Any, steps: int, begin: int = 0, after: Callable[[], Any] = lambda: None
) -> list[float]:
    """Losses of steps on random tokens; those of step n are always the same. `after` each step."""
    losses = []
    for step in range(begin, begin + steps):
        if hasattr(optimizer, "train"):
            optimizer.train()
        tokens = torch.randint(31, (4, 9), generator=torch.Generator().manual_seed(step % 5))
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        after()
    return losses


def stepped(make: Callable[..., Any], grads: Sequence[Tensor], start: Tensor | None = None) -> Tensor:
    """A weight after steps of an optimizer with these gradients. `make(groups)`."""
    weight = Parameter(torch.zeros_like(grads[0]) if start is None else start.clone())
    optimizer = make([{"params": [weight]}])
    for grad in grads:
        if hasattr(optimizer, "train"):
            optimizer.train()
        weight.grad = grad.clone()
        optimizer.step()
    return weight.detach()


def draws(*shape: int, count: int = 7) -> list[Tensor]:
    """Gradients that are not alike."""
    chance = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=chance) * (1 + number) for number in range(count)]
