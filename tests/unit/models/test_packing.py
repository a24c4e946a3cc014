"""Models whose sequences would see each other in a packed row are refused before anything of them is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tunesmith
from tunesmith.core.errors import UsageError
from tunesmith.models.families import PACKS
from tunesmith.models.family import family_of


@pytest.fixture
def mamba(tmp_path: Path) -> Path:
    """A folder with nothing but a config.json. Its type reads flat batches only."""
    folder = tmp_path / "mamba"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    return folder


@pytest.mark.parametrize("keys", [{"packing": True}, {"neat_packing": True}, {"stage": "pt"}])
def test_a_model_with_a_recurrent_state_cannot_be_packed_in_padded_batches(mamba, tmp_path, keys):
    run = {"model_name_or_path": str(mamba), "dataset": "none.jsonl", "output_dir": str(tmp_path / "out"), **keys}
    with pytest.raises(UsageError) as caught:
        tunesmith.train({**run, "fast_path": "off", "use_cpu": True})
    (problem,) = caught.value.problems
    assert (problem.code, problem.got) == ("E-MODEL-023", "model_type mamba")
    assert problem.fix is not None
    assert "packing: false" in problem.fix


def test_types_that_leak_are_not_in_the_list():
    """Recurrent mixers, ALiBi, and masks that do not look at positions."""
    leaky = {"mamba", "mamba2", "jamba", "bamba", "rwkv", "qwen3_next", "lfm2", "falcon_h1", "bloom", "mpt", "falcon"}
    assert not leaky & PACKS
    assert not any(family_of(kind).packs for kind in [*leaky, "unheard_of"])
    assert family_of("llama").packs
