"""Modules that are called once for each sequence: which bounds they read, and that a mistake in it is found."""

from __future__ import annotations

import copy
import json
import shutil
from itertools import accumulate, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tunesmith
from tests.tiny_models import tiny_model
from tunesmith.config.model import ModelConfig
from tunesmith.models import attention, fast_path, segments
from tunesmith.models.families import PADDED, SHIMS
from tunesmith.models.family import Family, family_of
from tunesmith.models.fast_path import FastPath, flat_inputs, plan_fast_path, prove

pytestmark = pytest.mark.usefixtures("torch_one_thread")


class Sums(nn.Module):
    """A mixer: each position becomes the sum of all up to it, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, hidden: Tensor, position_ids: Tensor | None = None, **others: Any) -> tuple[Tensor, str]:
        self.told = set(others)
        if position_ids is not None:
            assert position_ids[0, 0] == 0
        return hidden.cumsum(1) * self.weight, "a state"


class Model(nn.Module):
    """Two mixers, of which activations of the first are computed again in backward."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = Trunk()

    def forward(self, hidden: Tensor, position_ids: Tensor | None = None, **others: Any) -> Tensor:
        return self.trunk(hidden, position_ids=position_ids, **others)[0]


class Trunk(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Sums(), Sums()

    def forward(self, hidden: Tensor, position_ids: Tensor | None = None) -> tuple[Tensor, None]:
        first = torch.utils.checkpoint.checkpoint(lambda x: self.first(x)[0], hidden, use_reentrant=True)
        return self.second(first, position_ids, max_length_q=4)[0] ** 2, None


def fitted() -> tuple[Model, segments.Segments]:
    model = Model()
    return model, segments.fit(model, Family("sums", per_sequence=("Sums",)), model.trunk)


def row(length: int, seed: int) -> Tensor:
    hidden = torch.randn(1, length, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return hidden.requires_grad_()


def alone(hidden: Tensor, bounds: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The output, and the gradient of its sum, with each sequence by itself in a model that nothing was done to."""
    model, mine = Model(), hidden.detach().clone().requires_grad_()
    output = torch.cat([model(mine[:, start:end]) for start, end in pairwise(bounds)], dim=1)
    output.sum().backward()
    assert mine.grad is not None
    return output.detach(), mine.grad


def test_each_sequence_is_read_by_itself_and_without_bounds_the_row_is_one() -> None:
    model, found = fitted()
    hidden, bounds = row(9, 0), (0, 4, 5, 9)
    positions = torch.cat([torch.arange(end - start) for start, end in pairwise(bounds)])[None]
    output = model(hidden, position_ids=positions, bounds=bounds, max_length_q=4)
    expected, gradient = alone(hidden, bounds)
    assert torch.equal(output, expected)
    output.sum().backward()
    assert torch.allclose(hidden.grad, gradient)
    assert found.runs == 3  # two, and the first again in backward
    assert model.trunk.second.told == set(), "nothing of the row"
    assert torch.equal(model(hidden), alone(hidden, (0, 9))[0])
    assert found.runs == 3
    assert model.trunk.second.told == {"max_length_q"}, "as it was called"
    with pytest.raises(ValueError, match="bounds of 8 positions"):
        model(hidden, bounds=(0, 8))


def test_several_forwards_may_come_before_their_backward() -> None:
    """With other bounds, without any, and without gradient; what is computed again is computed as it was."""
    model, found = fitted()
    one, other, padded = row(9, 0), row(9, 1), row(6, 2)
    total = model(one, bounds=(0, 4, 9)).sum() + model(other, bounds=(0, 2, 7, 9)).sum() + model(padded).sum()
    with torch.no_grad():
        model(row(5, 3), bounds=(0, 5))
    assert found.bounds is None, "those of the last forward with a gradient"
    total.backward()
    for hidden, bounds in ((one, (0, 4, 9)), (other, (0, 2, 7, 9)), (padded, (0, 6))):
        assert torch.allclose(hidden.grad, alone(hidden, bounds)[1])


def test_a_copy_of_a_model_has_its_own_bounds() -> None:
    model, found = fitted()
    twin = copy.deepcopy(model)
    hidden = row(5, 0)
    assert torch.equal(twin(hidden, bounds=(0, 2, 5)), alone(hidden, (0, 2, 5))[0])
    assert (found.bounds, found.runs) == (None, 0)
    with torch.no_grad():
        twin.trunk.first.weight.fill_(0)
    assert not twin(hidden).any()
    assert model(hidden).all()


def test_chunks_of_a_sequence_see_only_themselves() -> None:
    """A layer that attends in chunks of 3, against the same attention with the chunks as sequences."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 8, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    chunked = SimpleNamespace(training=False, is_causal=True, varlen_chunk=3)
    plain = SimpleNamespace(training=False, is_causal=True)
    for bounds, pieces in (((0, 5, 8), (0, 3, 5, 8)), (None, (0, 3, 6, 8))):
        found, _ = attention.varlen_attention(chunked, query, key, value, None, bounds=bounds)
        expected, _ = attention.varlen_attention(plain, query, key, value, None, bounds=pieces)
        assert torch.allclose(found, expected)
    rows = [torch.cat([tensor, tensor.flip(2)]) for tensor in (query, key, value)]
    both, _ = attention.varlen_attention(chunked, *rows, None)
    for number in (0, 1):
        one, _ = attention.varlen_attention(chunked, *(tensor[number : number + 1] for tensor in rows), None)
        assert torch.allclose(both[number], one[0])


# ---- a shim that is wrong is found ----


def proven(model_type: str, family: Family | None = None) -> tuple[Any, FastPath]:
    attention.register()
    family = family or family_of(model_type)
    name = family.attention or attention.VARLEN
    model = tiny_model(model_type, name)
    return model, prove(model, family, FastPath(True, "chunked", name), ModelConfig())


def one_too_many(value: Any, axes: Any, length: int, start: int, end: int) -> Any:
    """Each sequence but the first with the last token of the one before; without it again where it is joined."""
    return whole(value, axes, length, max(0, start - isinstance(value, Tensor)), end)


def without_first(pieces: Any, bounds: Any) -> Any:
    lengths = [end - start for start, end in pairwise(bounds)]
    own = [piece[:, -n:] if isinstance(piece, Tensor) else piece for piece, n in zip(pieces, lengths, strict=True)]
    return joined(own, bounds)


whole, joined = segments._cut, segments._joined


@pytest.mark.parametrize("model_type", ["lfm2", "mamba2", "falcon", "stablelm"])
def test_a_module_that_reads_a_token_too_much_is_found_at_load(
    model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert proven(model_type)[1].flat
    monkeypatch.setattr(segments, "_cut", one_too_many)
    monkeypatch.setattr(segments, "_joined", without_first)
    _, found = proven(model_type)
    assert not found.flat
    assert "see each other" in found.why[0]


def test_a_class_that_goes_by_another_name_is_found_at_load() -> None:
    _, found = proven("lfm2", Family("lfm2", flat=True, per_sequence=("Lfm2Convolution",)))
    assert not found.flat
    _, found = proven("falcon", Family("falcon", flat=True, per_sequence=("FalconAttn",), attention="sdpa"))
    assert not found.flat


@pytest.fixture
def hybrid(tiny_model: Path, tmp_path: Path) -> Any:
    """Writes a folder with a tiny model of a type and a tokenizer."""

    def write(model_type: str) -> Path:
        from tests.tiny_models import tiny_model as make

        folder = tmp_path / model_type
        make(model_type, "eager", vocab_size=896, max_position_embeddings=512).save_pretrained(folder)
        for path in [*tiny_model.glob("tokenizer*"), tiny_model / "chat_template.jinja"]:
            shutil.copy(path, folder)
        return folder

    return write


@pytest.fixture
def run(tiny_data: Path, tmp_path: Path) -> Any:
    keys = {
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "output_dir": str(tmp_path / "out"),
        "max_steps": 2,
        "per_device_train_batch_size": 3,
        "save_strategy": "no",
        "use_cpu": True,
        "overwrite_output_dir": True,
    }
    return lambda **changes: tunesmith.train({**keys, **changes})


def test_a_hybrid_trains_on_flat_batches_and_chats(hybrid: Any, run: Any, tiny_data: Path) -> None:
    """Under an adapter, with activations computed again by either of torch's kinds, packed; then it writes replies."""
    folder = hybrid("lfm2")
    for keys in ({"finetuning_type": "full"}, {"use_reentrant_gc": False, "packing": True, "cutoff_len": 128}):
        result = run(model_name_or_path=str(folder), fast_path="require", **keys)
        proof = json.loads((result.output_dir / "self_proof.json").read_text())
        assert proof["holds"], proof
        assert (result.plan.batches, result.plan.attention) == ("flat", "varlen")
    again = {"do_predict": True, "predict_with_generate": True, "max_new_tokens": 4, "max_samples": 4}
    result = run(model_name_or_path=str(folder), eval_dataset=str(tiny_data / "known_alpaca.json"), **again)
    assert (result.output_dir / "generated_predictions.jsonl").read_text().count("\n") == 4


def test_what_short_rows_do_not_show_is_found_by_the_proof_of_the_run(
    hybrid: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama4 without its chunks: three sequences of 5, 9 and 3 tokens alone do not tell."""
    folder = hybrid("llama4_text")
    assert run(model_name_or_path=str(folder)).plan.batches == "flat"
    monkeypatch.setitem(SHIMS, "llama4_text", {"per_sequence": ("Llama4TextAttention",)})
    result = run(model_name_or_path=str(folder))
    assert not json.loads((result.output_dir / "self_proof.json").read_text())["holds"]
    assert result.plan.batches == "padded"


# ---- what is planned ----


def planned(tmp_path: Path, settings: Any, **keys: Any) -> FastPath:
    settings.save_pretrained(tmp_path)
    return plan_fast_path(ModelConfig(model_name_or_path=str(tmp_path), **keys))


@pytest.mark.parametrize("kind", ["bart", "bert", "cpmant", "glm_moe_dsa", "reformer", "unheard_of"])
def test_a_type_that_is_padded_is_so_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "unheard_of":  # as a type of a release to come
        monkeypatch.setattr(fast_path, "language_type", lambda config: kind)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    found = plan_fast_path(ModelConfig(model_name_or_path=str(tmp_path)))
    assert not found.flat
    reason = PADDED.get(kind, "is not known to read flat ones")
    assert found.why == (f"padded batches: a model of the type {kind} {reason}",)


def test_no_type_is_both_padded_and_flat() -> None:
    assert len(PADDED) > 40
    assert not any(family_of(kind).flat for kind in PADDED)


def test_which_attention_is_planned(tmp_path: Path) -> None:
    from transformers import FalconConfig, Llama4Config, Llama4TextConfig, MambaConfig, Qwen3_5Config

    def of(settings: Any, **keys: Any) -> tuple[bool, str]:
        found = planned(tmp_path, settings, **keys)
        return found.flat, found.attention

    assert of(FalconConfig()) == (True, "sdpa")
    assert of(FalconConfig(), flash_attn="sdpa") == (True, "sdpa")
    assert of(FalconConfig(), flash_attn="fa2") == (False, "flash_attention_2")
    assert of(MambaConfig()) == (True, "eager")
    assert of(MambaConfig(), flash_attn="sdpa") == (False, "sdpa")
    assert of(MambaConfig(), flash_attn="disabled") == (False, "eager")
    assert of(Llama4TextConfig(), flash_attn="fa2") == (False, "flash_attention_2")
    assert of(Qwen3_5Config()) == (True, "varlen"), "its text part is what is loaded"
    assert of(Qwen3_5Config(), flash_attn="fa2") == (True, "flash_attention_2")
    assert of(Llama4Config()) == (True, "varlen")


def test_borders_are_told_in_all_forms_and_read_in_one() -> None:
    """What a model's forward has no place for does not reach it."""
    model, _ = fitted()
    pieces = [torch.arange(length) for length in (2, 3)]
    inputs = flat_inputs(pieces)
    hidden = row(5, 0)
    borders = {name: value for name, value in inputs.items() if name not in ("input_ids", "position_ids")}
    assert inputs["bounds"] == (0, *accumulate(map(len, pieces)))
    assert torch.equal(model(hidden, **borders), alone(hidden, (0, 2, 5))[0])
