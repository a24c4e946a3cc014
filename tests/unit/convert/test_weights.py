"""Shards are read only where they agree with each other and with their index."""

from __future__ import annotations

import errno
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from tunesmith.convert.target import new_folder, write_shards
from tunesmith.convert.weights import open_weights
from tunesmith.core.disk import parse_size
from tunesmith.core.errors import DataError, MissingInputError, OutputError, StorageError

A, B, C = (torch.full((2, 3), float(value)) for value in (1, 2, 3))


def save(folder: Path, shards: list[dict[str, Any]], kind: str, index: dict[str, str] | None = None) -> list[str]:
    stem, end = {"safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin")}[kind]
    names = [f"{stem}-{number:05}-of-{len(shards):05}.{end}" for number in range(1, len(shards) + 1)]
    for name, tensors in zip(names, shards, strict=True):
        save_file(tensors, folder / name) if kind == "safetensors" else torch.save(tensors, folder / name)
    if index is not None:
        (folder / f"{stem}.{end}.index.json").write_text(json.dumps({"weight_map": index}))
    return names


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_every_weight_of_every_shard_is_read_once_as_it_is(kind: str, tmp_path: Path) -> None:
    half = C.bfloat16()
    names = save(tmp_path, [{"a": A, "b": B}, {"c": half}], kind)
    weights = open_weights(tmp_path)
    assert {name: entry.shard.name for name, entry in weights.entries.items()} == {
        "a": names[0],
        "b": names[0],
        "c": names[1],
    }
    assert [entry.shape for entry in weights.entries.values()] == [(2, 3)] * 3
    assert weights.size == 2 * 6 * 4 + 6 * 2
    found = dict(weights)
    assert found["c"].dtype == torch.bfloat16
    assert torch.equal(found["a"], A)
    assert torch.equal(weights.read("c"), half)


def test_a_file_of_an_old_torch_is_read_too(tmp_path: Path) -> None:
    torch.save({"a": A}, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert torch.equal(open_weights(tmp_path).read("a"), A)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_weight_in_two_shards_is_an_error_that_names_both(kind: str, tmp_path: Path) -> None:
    names = save(tmp_path, [{"a": A, "b": B}, {"a": A}], kind)
    with pytest.raises(DataError) as caught:
        open_weights(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.code, problem.got) == ("E-CONVERT-003", "a")
    assert str(problem.where).endswith(f"{names[0]} and {names[1]}")


def test_an_index_that_disagrees_with_the_shards_is_an_error(tmp_path: Path) -> None:
    first, second = save(tmp_path, [{"a": A, "b": B}, {"c": C}], "safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": first, "b": second, "c": second}}))
    with pytest.raises(DataError) as caught:
        open_weights(tmp_path)
    told = {(Path(str(one.where)).name, one.got) for one in caught.value.problems if one.code == "E-CONVERT-004"}
    assert told == {(first, "b"), (second, "b")}  # beyond the index in one, lacking in the other


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"weight_map": {"a": "x.safetensors", "a": "y.safetensors"}}', "a stands there twice"),
        ('{"weight_map": {}}', "weight_map"),
        ("{", ""),
        ('{"weight_map": {"a": "../x.safetensors"}}', "../x.safetensors"),
    ],
)
def test_an_index_that_cannot_be_right_is_an_error(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(DataError) as caught:
        open_weights(tmp_path)
    assert caught.value.code == "E-CONVERT-004"
    assert said in str(caught.value.problems[0].got)


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard_is_named(with_index: bool, tmp_path: Path) -> None:
    names = save(tmp_path, [{"a": A}, {"b": B}, {"c": C}], "bin")
    if with_index:
        index = {"a": names[0], "b": names[1], "c": names[2]}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / names[1]).unlink()
    with pytest.raises(MissingInputError) as caught:
        open_weights(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.code, Path(str(problem.where)).name) == ("E-CONVERT-002", names[1])


def test_what_is_no_tensor_is_an_error_with_its_name(tmp_path: Path) -> None:
    torch.save({"a": A, "epoch": 3, "more": {"b": B}}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError) as caught:
        open_weights(tmp_path)
    assert [(one.code, one.got) for one in caught.value.problems] == [
        ("E-CONVERT-005", "epoch: int"),
        ("E-CONVERT-005", "more: dict"),
    ]


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_pickle_that_would_run_something_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"a": Evil(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError) as caught:
        open_weights(tmp_path)
    assert caught.value.code == "E-CONVERT-006"
    assert not mark.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_file_that_was_cut_off_is_an_error(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    save_file({"a": A}, file) if file.suffix == ".safetensors" else torch.save({"a": A}, file)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError) as caught:
        open_weights(tmp_path)
    assert caught.value.code == "E-CONVERT-006"


def test_what_is_written_in_shards_is_read_as_it_was(tmp_path: Path) -> None:
    whole = torch.arange(60.0).reshape(12, 5)
    tensors = {"a": A, "part": whole[3:6], "turned": whole.T, "b": B.bfloat16(), "one": torch.tensor(7)}
    with new_folder(tmp_path / "new", 1000) as folder:
        write_shards(folder, tensors.items(), max_shard_size=100)
    assert not list(tmp_path.glob(".*"))
    weights = open_weights(tmp_path / "new")
    assert len({entry.shard for entry in weights.entries.values()}) > 2
    found = dict(weights)
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) and found[name].dtype == tensors[name].dtype for name in found)


def test_a_target_that_holds_something_is_never_written(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(OutputError) as caught, new_folder(tmp_path, 0):
        raise AssertionError("it must not come to this")
    assert (caught.value.code, caught.value.problems[0].got) == ("E-CONVERT-009", "model.safetensors")


def test_what_fails_leaves_nothing_and_what_was_killed_is_swept(tmp_path: Path) -> None:
    left = tmp_path / ".new.4194303.converting"  # of a process that is gone: beyond the largest number of one
    left.mkdir()
    (left / "draft-0").write_bytes(b"half")

    def fail() -> None:
        with new_folder(tmp_path / "new", 0) as folder:
            assert not left.exists()
            (folder / "half").write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_kill_leaves_no_folder_of_that_name(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from tunesmith.convert.target import new_folder\n"
        "with new_folder(Path(sys.argv[1]), 0) as folder:\n"
        "    (folder / 'config.json').write_text('{}'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "new")], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert re.fullmatch(r"\.new\.\d+\.converting", left.name)
    with new_folder(tmp_path / "new", 0) as folder:
        (folder / "config.json").write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "no space"), SafetensorError("I/O error: os error 28")])
def test_a_disk_that_fills_up_is_an_error_of_the_disk(error: Exception, tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught, new_folder(tmp_path / "new", 0):
        raise error
    assert (caught.value.code, caught.value.problems[0].what) == ("E-CONVERT-010", "the disk is full")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_the_space_is_an_error_beforehand(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught, new_folder(tmp_path / "new", 10**18):
        raise AssertionError("it must not come to this")
    assert caught.value.code == "E-CONVERT-010"


@pytest.mark.parametrize(
    ("text", "size"), [("5GB", 5 * 10**9), ("500 mb", 5 * 10**8), ("2", 2 * 10**9), ("0.5GB", 5 * 10**8)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "0", "-1GB", "5TB"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=text or "^$"):
        parse_size(text)
