"""How many bytes of states each optimizer holds for a trained weight, after two steps.

    python bench/optimizer_states.py
    python scripts/generate_optimizers_doc.py

All weights of a Llama with random weights train, in float32: 4 layers of 256 x 704, 2,048 tokens. GaLore and APOLLO
have rank 16, as by default. What lies in the state of a weight is counted once where weights share it. Results are
written into bench/results/optimizer_states.json.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
import transformers

from tunesmith.config import load_config
from tunesmith.config.optimizer_facts import OPTIMIZERS, OptimizerFacts
from tunesmith.train.arguments import training_arguments
from tunesmith.train.optimizers.make import optimizer_for
from tunesmith.train.plan import resolve_plan

RESULTS = Path(__file__).parent / "results" / "optimizer_states.json"
SHAPE = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 8}


def main() -> None:
    warnings.simplefilter("ignore")
    found = {}
    for name, facts in OPTIMIZERS.items():
        if facts.gpu_only and not torch.cuda.is_available():
            continue
        found[name] = round(bytes_of(facts), 3)
        print(f"{name:<24}{found[name]:>8.3f} bytes for each weight", flush=True)
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def bytes_of(facts: OptimizerFacts) -> float:
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**SHAPE, vocab_size=2048))
    total = sum(weight.numel() for weight in model.parameters())
    optimizer = _made(facts, model)
    for _ in range(2):
        tokens = torch.randint(2048, (1, 32))
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    seen: dict[int, int] = {}
    for state in optimizer.state.values():
        for tensor in _tensors(state):
            seen[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
    return sum(seen.values()) / total


def _made(facts: OptimizerFacts, model: Any) -> Any:
    asked = dict(part.split(": ") for part in facts.asked.split(", "))
    keys: dict[str, Any] = {key: value == "true" or value for key, value in asked.items()}
    keys |= {"lr_scheduler_type": "constant"} if facts.averages else {}
    with TemporaryDirectory() as folder:
        given = {"model_name_or_path": "m", "dataset": "d", "output_dir": folder, "use_cpu": True}
        config = load_config({**given, "finetuning_type": "full", "learning_rate": 1e-4, **keys})
        arguments = training_arguments(config, resolve_plan(config))
    settings = optimizer_for(config)
    if not settings.ours:
        kind, more = transformers.Trainer.get_optimizer_cls_and_kwargs(arguments, model)
        return kind(model.parameters(), **more)
    trainer = SimpleNamespace(args=arguments, get_decay_parameter_names=lambda _: [])
    settings.give(trainer, model)
    return trainer.optimizer


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if hasattr(value, "tensor_attrs"):  # made of others
        yield from (getattr(value, name) for name in value.tensor_attrs)
    elif isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)


if __name__ == "__main__":
    main()
