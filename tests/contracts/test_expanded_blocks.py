"""A copy of a layer whose ways out are zero changes no logit, and learns: by types of models.

Norms are given weights of their own: with those of a fresh model some layers would pass on what a trained one does not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from tests.tiny_models import tiny_model
from tunesmith.convert.llama_pro import expand
from tunesmith.models.families import EXPANDS, FLAT, PACKS, SHIMS


def outcome(model_type: str) -> str:
    """`same`, or what went wrong."""
    model = tiny_model(model_type, None)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model.save_pretrained(folder / "model")
        options = {"max_shard_size": 10**9, "check": True, "progress": lambda done, total: None}
        found = expand(folder / "model", folder / "larger", model.config.num_hidden_layers, **options)
        return "same" if learns(folder / "larger", found["expanded_layers"]) else "a new layer gets no gradient"


def learns(folder: Path, layers: list[int]) -> bool:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.arange(3, 20)[None]
    logits = model(input_ids=ids, use_cache=False).logits
    torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
    reached = {
        layer
        for name, parameter in model.named_parameters()
        for layer in layers
        if f".{layer}." in name and parameter.grad is not None and parameter.grad.abs().max() > 0
    }
    return reached == set(layers)


def derive(model_types: list[str]) -> dict[str, str]:
    import tunesmith.models.family as family
    from tunesmith.models.quiet import quiet_libraries

    quiet_libraries()
    family.EXPANDS = frozenset(model_types)
    found = {}
    for model_type in model_types:
        try:
            found[model_type] = outcome(model_type)
        except Exception as error:  # whatever a type does not like about being larger
            found[model_type] = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    return found


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
    assert same == EXPANDS, {name: found.get(name) for name in same ^ EXPANDS}


if __name__ == "__main__":
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    torch.set_num_threads(1)
    known = (PACKS | FLAT | SHIMS.keys()) & MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
    print(json.dumps(derive(sys.argv[1:] or sorted(known))))
