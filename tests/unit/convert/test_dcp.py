"""Folders of torch.distributed.checkpoint: there and back, and nothing of them is run."""

from __future__ import annotations

import errno
import pickle
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tests import tiny_models
from tunesmith.convert.dcp import dcp_to_hf, hf_to_dcp
from tunesmith.convert.weights import open_weights
from tunesmith.core.errors import DataError, MissingInputError, StorageError

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
IDS = torch.arange(3, 40)[None]


def nothing(done: int, total: int | None) -> None:
    pass


def back(source: Path, target: Path, config: Path | None = None, prefix: str | None = None) -> dict[str, Any]:
    return dcp_to_hf(source, target, config, prefix=prefix, max_shard_size=10**9, progress=nothing)


def save(state: dict[str, Any], folder: Path) -> Path:
    dcp.save(state, storage_writer=dcp.FileSystemWriter(folder), no_dist=True)
    return folder


def test_there_and_back_is_the_same_files(tiny_model: Path, tmp_path: Path) -> None:
    counted: list[tuple[int, int | None]] = []
    hf_to_dcp(tiny_model, tmp_path / "dcp", progress=lambda done, total: counted.append((done, total)))
    assert counted[-1][0] == counted[-1][1]
    found = back(tmp_path / "dcp", tmp_path / "hf")
    assert "tokenizer.json" in found["copied"]
    before, after = dict(open_weights(tiny_model)), dict(open_weights(tmp_path / "hf"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)


def test_what_torch_reads_of_ours_is_the_model(tiny_model: Path, tmp_path: Path) -> None:
    """As a run does it: into the state of a model that is there."""
    from transformers import AutoModelForCausalLM

    hf_to_dcp(tiny_model, tmp_path / "dcp", progress=nothing)
    wanted = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = AutoModelForCausalLM.from_config(wanted.config)
    state = model.state_dict()
    dcp.load(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    assert all(torch.equal(one, state[name]) for name, one in wanted.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gemma2"])
def test_a_state_of_training_gives_its_model(model_type: str, tmp_path: Path) -> None:
    """As accelerate saves it: the model under a name, beside an optimizer and numbers. Mixtral's files name experts
    otherwise than the model in memory does; Gemma's output layer is its embeddings."""
    model = tiny_model_of(model_type)
    moments = {f"state.{name}.exp_avg": torch.ones(3) for name in ("a", "b")}
    save({"model": model.state_dict(), "optim": moments, "step": 7}, tmp_path / "dcp")
    model.config.save_pretrained(tmp_path / "config")
    found = back(tmp_path / "dcp", tmp_path / "hf", tmp_path / "config")
    assert (found["prefix"], found["left_out"]) == ("model.", 2)
    from transformers import AutoModelForCausalLM

    after, told = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not told["missing_keys"]
    with torch.no_grad():
        assert torch.equal(model(input_ids=IDS).logits, after.eval()(input_ids=IDS).logits)


def tiny_model_of(model_type: str) -> Any:
    return tiny_models.tiny_model(model_type, None)


def own_metadata(file: Path) -> Any:
    return pickle.loads(file.read_bytes())  # noqa: S301 - written by this test


def test_a_disk_that_fills_up_is_an_error_of_the_disk(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Any, plan: Any, planner: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(dcp.FileSystemWriter, "write_data", full)
    with pytest.raises(StorageError) as caught:
        hf_to_dcp(tiny_model, tmp_path / "dcp", progress=nothing)
    assert caught.value.code == "E-CONVERT-010"
    assert list(tmp_path.iterdir()) == []


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_metadata_that_would_run_something_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    hf_to_dcp(tiny_model, tmp_path / "dcp", progress=nothing)
    file, mark = tmp_path / "dcp" / ".metadata", tmp_path / "ran"
    metadata = own_metadata(file)
    metadata.planner_data = Evil(mark)
    file.write_bytes(pickle.dumps(metadata))
    with pytest.raises(DataError) as caught:
        back(tmp_path / "dcp", tmp_path / "hf")
    assert caught.value.code == "E-CONVERT-013"
    assert not mark.exists()
    assert not (tmp_path / "hf").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.FileSystemReader(tmp_path / "dcp").read_metadata()
    assert mark.exists(), "torch's own reader would have run it"


@pytest.mark.parametrize("content", [b"", b"\x80\x04N.", b"cos\nsystem\n(S'true'\ntR.", b"nothing"])
def test_metadata_that_is_none_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / ".metadata").write_bytes(content)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(DataError) as caught:
        back(tmp_path, tmp_path / "hf")
    assert caught.value.code == "E-CONVERT-013"


def test_metadata_that_points_out_of_the_folder_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    hf_to_dcp(tiny_model, tmp_path / "dcp", progress=nothing)
    file = tmp_path / "dcp" / ".metadata"
    metadata = own_metadata(file)
    next(iter(metadata.storage_data.values())).relative_path = "../elsewhere"
    file.write_bytes(pickle.dumps(metadata))
    with pytest.raises(DataError) as caught:
        back(tmp_path / "dcp", tmp_path / "hf")
    assert "out of the folder" in str(caught.value.problems[0].got)


@pytest.mark.slow
def test_a_tensor_file_that_is_a_pickle_is_not_run(tiny_model: Path, tmp_path: Path) -> None:
    hf_to_dcp(tiny_model, tmp_path / "dcp", progress=nothing)
    mark, evil = tmp_path / "ran", tmp_path / "dcp" / "evil.distcp"
    torch.save(Evil(mark), evil)
    file = tmp_path / "dcp" / ".metadata"
    metadata = own_metadata(file)
    for place in metadata.storage_data.values():
        place.relative_path, place.offset, place.length = evil.name, 0, evil.stat().st_size
    file.write_bytes(pickle.dumps(metadata))
    with pytest.raises(DataError) as caught:
        back(tmp_path / "dcp", tmp_path / "hf")
    assert caught.value.code == "E-CONVERT-006"
    assert not mark.exists()


def test_a_checkpoint_of_another_model_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    hf_to_dcp(tiny_model, tmp_path / "dcp", progress=nothing)
    tiny_model_of("llama").config.save_pretrained(tmp_path / "config")
    with pytest.raises(DataError) as caught:
        back(tmp_path / "dcp", tmp_path / "hf", tmp_path / "config")
    assert caught.value.code == "E-CONVERT-014"
    assert "config.json asks for" in str(caught.value.problems[0].got)
    with pytest.raises(DataError) as caught:
        back(tmp_path / "dcp", tmp_path / "hf", prefix="other.")
    assert "the checkpoint lacks it" in str(caught.value.problems[0].got)


@pytest.mark.slow
def test_ties_that_are_none_are_refused(tmp_path: Path) -> None:
    model = tiny_model_of("gemma2")
    state = {name: one.clone() for name, one in model.state_dict().items()}
    state["lm_head.weight"] += 1
    save(state, tmp_path / "dcp")
    model.config.save_pretrained(tmp_path / "dcp")
    with pytest.raises(DataError) as caught:
        back(tmp_path / "dcp", tmp_path / "hf")
    assert (caught.value.code, "ties" in caught.value.problems[0].what) == ("E-CONVERT-014", True)


def test_a_folder_that_is_none_is_named(tiny_model: Path, tmp_path: Path) -> None:
    hf_to_dcp(tiny_model, tmp_path / "run" / "pytorch_model_fsdp_0", progress=nothing)
    with pytest.raises(MissingInputError) as caught:
        back(tmp_path / "run", tmp_path / "hf")
    assert "did you mean" in str(caught.value.problems[0].fix)
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(MissingInputError):
        back(tmp_path / "run", tmp_path / "hf")
