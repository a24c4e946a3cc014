"""Layers that compute a part of the tokens, by types of models: as written out by hand, in flat and in padded batches.

By hand the layer reads all tokens, under a mask in which the chosen ones see each other only, and what it says of the
others is thrown away.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny_models import tiny_config, tiny_model
from tunesmith.models.attention import VARLEN, register
from tunesmith.models.depth_plan import Depths
from tunesmith.models.depths import ROUTER, add_routers, begin_routers, decoder_layers, route
from tunesmith.models.families import DEPTHS, FLAT
from tunesmith.models.fast_path import flat_inputs

DEPTH = Depths(capacity=0.4)
LENGTHS = (9, 6, 1, 12)  # 4, 3, 1 and 5 are chosen


def changes(model_type: str) -> dict[str, Any]:
    """No windows: all layers see everything, or a window is longer than the sequences."""
    settings = tiny_config(model_type)
    kinds = getattr(settings, "layer_types", None)
    window = 64 if kinds else None
    found: dict[str, Any] = {
        name: value
        for name, value in (("sliding_window", window), ("use_sliding_window", False))
        if hasattr(settings, name)
    }
    return found | ({"layer_types": ["full_attention"] * len(kinds)} if kinds else {})


def made(model_type: str, attention: str) -> Any:
    model = tiny_model(model_type, attention, **changes(model_type))
    add_routers(model, DEPTH)
    begin_routers(model, seed=0)
    for layer in decoder_layers(model):
        if hasattr(layer, ROUTER):  # numbers that matter
            getattr(layer, ROUTER).weight.data *= 20
    return model


def by_hand(model: Any) -> Any:
    """The model with its routed layers as they would be written on paper, for one sequence at a time."""
    for layer in decoder_layers(model):
        if hasattr(layer, ROUTER):
            layer.forward = on_paper(layer.forward, getattr(layer, ROUTER).weight[0])
    return model


def on_paper(forward: Any, weight: Tensor) -> Any:
    def computed(hidden: Tensor, *arguments: Any, **more: Any) -> Any:
        length = hidden.shape[1]
        scores = hidden[0] @ weight
        count = -(-length * 2 // 5)
        ranked = sorted(range(length), key=lambda place: (-float(scores[place].detach()), place))
        chosen = set(ranked[:count])
        mask = torch.full((1, 1, length, length), torch.finfo(torch.float32).min)
        for query in range(length):
            for key in range(query + 1):
                if key == query or {query, key} <= chosen:
                    mask[0, 0, query, key] = 0.0
        arguments = tuple(mask if isinstance(one, Tensor) and one.ndim == 4 else one for one in arguments)
        more = {**more, "attention_mask": mask} if "attention_mask" in more else more
        output = forward(hidden, *arguments, **more)
        through = output[0] if isinstance(output, tuple) else output
        rows = [
            hidden[0, at] + scores[at] * (through[0, at] - hidden[0, at]) if at in chosen else hidden[0, at]
            for at in range(length)
        ]
        mixed = torch.stack(rows)[None]
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    return computed


def pieces() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(3, 97, (length,), generator=generator) for length in LENGTHS]


def padded() -> tuple[Tensor, Tensor]:
    ids, mask = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.long), torch.zeros(len(LENGTHS), max(LENGTHS))
    for number, piece in enumerate(pieces()):
        ids[number, : len(piece)], mask[number, : len(piece)] = piece, 1
    return ids, mask.long()


def in_padded_rows(model: Any) -> Tensor:
    ids, mask = padded()
    return model(input_ids=ids, attention_mask=mask, use_cache=False).logits[mask.bool()]


def in_one_row(model: Any) -> Tensor:
    return model(**flat_inputs(pieces()), use_cache=False).logits[0]


def alone(model: Any) -> Tensor:
    return torch.cat([model(input_ids=piece[None], use_cache=False).logits[0] for piece in pieces()])


def gradients(model: Any, logits: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    logits.square().sum().backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def outcome(model_type: str) -> str:
    """`same`, or what went wrong."""
    register()
    plain = by_hand(made(model_type, "eager"))
    wanted = alone(plain)
    expected = gradients(plain, wanted)
    for read, attention in (
        (alone, "eager"),
        (in_padded_rows, "eager"),
        (in_padded_rows, VARLEN),
        (in_one_row, VARLEN),
    ):
        model = made(model_type, attention)
        route(model, DEPTH)
        found = read(model)
        if not torch.allclose(found, wanted, atol=2e-5):
            return f"{read.__name__}: logits differ by {float((found - wanted).detach().abs().max()):.1e}"
        own = gradients(model, found)
        norm = torch.cat([one.flatten() for one in expected.values()]).norm()
        if own.keys() != expected.keys() or not any(ROUTER in name for name in own):
            return f"{read.__name__}: other weights have a gradient"
        worst = max(float((one - expected[name]).norm() / norm) for name, one in own.items())
        if worst > 1e-4:
            return f"{read.__name__}: gradients differ by {worst:.1e}"
    return "same"


def derive(model_types: list[str]) -> dict[str, str]:
    from tunesmith.models.quiet import quiet_libraries

    quiet_libraries()
    found = {}
    for model_type in model_types:
        try:
            found[model_type] = outcome(model_type)
        except Exception as error:  # whatever a type does not like
            found[model_type] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return found


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen3_moe"])
def test_a_routed_layer_is_what_it_would_be_on_paper(model_type: str, torch_one_thread: None) -> None:
    assert model_type in DEPTHS
    assert outcome(model_type) == "same"


@pytest.mark.slow
def test_the_list_of_types_is_what_the_installed_release_does() -> None:
    """In a process of its own: some models warn, and some change global state."""
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    same = {model_type for model_type, what in found.items() if what == "same"}
    assert same == DEPTHS, {name: found.get(name) for name in same ^ DEPTHS}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(derive(sys.argv[1:] or sorted(FLAT))))
