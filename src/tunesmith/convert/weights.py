"""The weights of a model folder, in any number of shards: what they are is known before the first of them is read.

Shards are safetensors, or files of `torch.save`, of which nothing but tensors is read. Their names of weights are
compared with each other and with the index before anything is made of them: a checkpoint that contradicts itself is an
error, never a merge in which the last shard wins.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tunesmith.core.errors import DataError, MissingInputError, Problem

__all__ = ["Entry", "Weights", "open_weights"]

_KINDS = (
    ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json"),
)
_NUMBERED = re.compile(r".*-(\d{5})-of-(\d{5})\.\w+")


@dataclass(frozen=True, slots=True)
class Entry:
    """One weight: the shard that holds it, its shape and type of numbers."""

    shard: Path
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * int(self.dtype.itemsize)


@dataclass(frozen=True, slots=True)
class Weights:
    """`entries` by name, shard by shard."""

    folder: Path
    entries: Mapping[str, Entry]

    @property
    def size(self) -> int:
        """Bytes of all weights."""
        return sum(entry.size for entry in self.entries.values())

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        """(name, tensor), one shard after the other; a shard is let go of before the next is opened."""
        for shard in dict.fromkeys(entry.shard for entry in self.entries.values()):
            names = [name for name, entry in self.entries.items() if entry.shard == shard]
            yield from _read(shard, names)

    def read(self, name: str) -> Tensor:
        """One weight by itself."""
        ((_, tensor),) = _read(self.entries[name].shard, [name])
        return tensor


def open_weights(folder: Path) -> Weights:
    """What the shards of a folder hold, with safetensors before `.bin` where it has both.

    Raises MissingInputError where there are no weights or a shard is missing, DataError where shards contradict each
    other or their index, are damaged, or hold something that is no tensor: with the file and the name.
    """
    for single, pattern, index_name in _KINDS:
        index = folder / index_name
        if index.is_file():
            return Weights(folder, _joined(folder, _weight_map(index), index_name))
        shards = [folder / single] if (folder / single).is_file() else sorted(folder.glob(pattern))
        if shards:
            _refuse_gaps(folder, {shard.name for shard in shards})
            return Weights(folder, _joined(folder, {shard.name: None for shard in shards}, None))
    what, fix = "the folder holds no weights", "name a folder with *.safetensors or pytorch_model*.bin"
    raise MissingInputError(Problem("E-CONVERT-001", what, str(folder), _held(folder), fix))


def _held(folder: Path) -> str:
    names = sorted(item.name for item in folder.iterdir())[:6] if folder.is_dir() else []
    return f"it holds {', '.join(names)}" if names else "it is empty, or no folder"


def _weight_map(index: Path) -> dict[str, set[str] | None]:
    """Which names each shard should hold, by its file name."""
    try:
        document = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=_without_doubles)
        given = document["weight_map"]
        if not given or not all(isinstance(shard, str) for shard in given.values()):
            raise ValueError("weight_map does not name the shard of each weight")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        fix = "get the file again, or delete it: without an index the shards speak for themselves"
        what = "the index of the shards cannot be read"
        raise DataError(Problem("E-CONVERT-004", what, str(index), str(error), fix)) from error
    found: dict[str, set[str] | None] = {}
    for name, shard in given.items():
        if Path(shard).name != shard:  # a path out of the folder
            fix = "get the model from its source again"
            raise DataError(
                Problem("E-CONVERT-004", "the index names a file of another folder", str(index), shard, fix)
            )
        names = found.setdefault(shard, set())
        assert names is not None
        names.add(name)
    return dict(sorted(found.items()))


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Python's own reader takes the last of two values with one name."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands there twice")
    return found


def _joined(folder: Path, shards: Mapping[str, set[str] | None], index: str | None) -> dict[str, Entry]:
    """All entries of all shards; raises with everything that is wrong."""
    if missing := [name for name in shards if not (folder / name).is_file()]:
        _raise_missing(folder, missing)
    if index is not None:
        _refuse_gaps(folder, set(shards))
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []
    for shard, wanted in shards.items():
        found = _contents(folder / shard)
        problems += _against_index(folder / shard, set(found), wanted, index)
        for name, entry in found.items():
            if name in entries:
                problems.append(_twice(name, entries[name].shard, entry.shard))
            entries.setdefault(name, entry)
    if problems:
        raise DataError(problems)
    return entries


def _raise_missing(folder: Path, names: list[str]) -> None:
    fix = "get the whole model again"
    what = "a shard of the weights is missing"
    raise MissingInputError([Problem("E-CONVERT-002", what, str(folder / name), fix=fix) for name in names])


def _refuse_gaps(folder: Path, present: set[str]) -> None:
    """Names such as model-00002-of-00003.safetensors tell how many there must be."""
    for name in sorted(present):
        if (match := _NUMBERED.fullmatch(name)) is None:
            continue
        total = match[2]
        head, tail = name[: match.start(1)], name[match.end(1) :]
        wanted = [f"{head}{number:05}{tail}" for number in range(1, int(total) + 1)]
        if missing := [one for one in wanted if one not in present]:
            _raise_missing(folder, missing)


def _against_index(shard: Path, found: set[str], wanted: set[str] | None, index: str | None) -> list[Problem]:
    if wanted is None:
        return []
    fix = "get the model again; index and shards are of two versions"
    lacking = [(name, f"{index} says that this shard holds a weight, and it does not") for name in wanted - found]
    beyond = [(name, f"this shard holds a weight that {index} does not place there") for name in found - wanted]
    return [Problem("E-CONVERT-004", what, str(shard), name, fix) for name, what in sorted(lacking + beyond)]


def _twice(name: str, first: Path, second: Path) -> Problem:
    what = "two shards hold a weight of the same name"
    fix = "delete the shard that does not belong here, or get the model again"
    return Problem("E-CONVERT-003", what, f"{first} and {second.name}", name, fix)


def _contents(shard: Path) -> dict[str, Entry]:
    """Names, shapes and types; the numbers stay on the disk."""
    if shard.suffix == ".safetensors":
        return _contents_of_safetensors(shard)
    values = _load_pickled(shard)
    wrong = [(name, value) for name, value in values.items() if not isinstance(value, Tensor)]
    if wrong:
        fix = "convert the file of weights alone: a training state holds more than a model"
        what = "an entry of the weights is not a tensor"
        kinds = [(name, type(value).__name__) for name, value in wrong]
        raise DataError([Problem("E-CONVERT-005", what, str(shard), f"{name}: {kind}", fix) for name, kind in kinds])
    return {name: Entry(shard, tuple(value.shape), value.dtype) for name, value in values.items()}


def _contents_of_safetensors(shard: Path) -> dict[str, Entry]:
    try:
        with safe_open(shard, framework="pt") as file:
            # A slice of no rows has the type of all; a single number has no rows and is read.
            found = {}
            for name in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(name)
                shape = tuple(part.get_shape())
                sample = part[:0] if shape else file.get_tensor(name)
                found[name] = Entry(shard, shape, sample.dtype)
            return found
    except (SafetensorError, OSError) as error:
        raise _damaged(shard, error) from error


def _load_pickled(shard: Path) -> dict[str, Any]:
    """A file of `torch.save`, mapped where its format allows it. Whatever is not a tensor or plain data is refused."""
    try:
        try:
            values = torch.load(shard, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            values = torch.load(shard, map_location="cpu", weights_only=True)  # as torch before 1.6 wrote them
    except Exception as error:
        if type(error).__name__ == "UnpicklingError":
            what = "the file is a pickle that holds more than tensors; it was not read"
            fix = "get the model as safetensors: reading such a file can run any program"
            raise DataError(Problem("E-CONVERT-006", what, str(shard), fix=fix)) from error
        if isinstance(error, RuntimeError | OSError | EOFError | ValueError):
            raise _damaged(shard, error) from error
        raise
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        what, fix = "the file holds no weights by name", "name a folder with the weights of a model"
        raise DataError(Problem("E-CONVERT-005", what, str(shard), type(values).__name__, fix))
    return values


def _damaged(shard: Path, error: Exception) -> DataError:
    fix = "get the file again; one that was cut off is smaller than its source"
    return DataError(Problem("E-CONVERT-006", "a file of weights is damaged", str(shard), str(error), fix))


def _read(shard: Path, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    if shard.suffix == ".safetensors":
        with safe_open(shard, framework="pt") as file:
            for name in names:
                yield name, file.get_tensor(name)
        return
    values = _load_pickled(shard)
    for name in names:
        yield name, values.pop(name)
