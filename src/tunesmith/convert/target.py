"""The folder that a conversion writes: made beside its place and renamed at the end, so it is whole or not there."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunesmith.core.disk import free_at, refusal, size_text
from tunesmith.core.errors import OutputError, Problem, StorageError
from tunesmith.core.files import fsync, write_json
from tunesmith.core.process import is_running

__all__ = ["copy_small_files", "new_folder", "write_shards"]

_DRAFT = re.compile(r"\.(.+)\.(\d+)\.converting")
_MARGIN = 64 * 2**20  # bytes for small files and for the file system itself
# What belongs to a tokenizer, and to generating: never weights, never code of a model.
_SMALL = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.tiktoken",
    "chat_template*",
    "tokenization_*.py",
    "generation_config.json",
)


@contextmanager
def new_folder(target: Path, needed: int) -> Iterator[Path]:
    """A folder to write into, which becomes `target` if all goes well and is deleted otherwise. `needed`: bytes.

    Raises OutputError where the target holds something or cannot be made, StorageError where the disk lacks the space,
    beforehand or while it is written.
    """
    target = target.expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        held = next((item.name for item in sorted(target.iterdir())), None) if target.is_dir() else "a file"
        what, fix = "the target already holds something, and nothing is overwritten", "name a new folder"
        raise OutputError(Problem("E-CONVERT-009", what, str(target), held, fix))
    draft = target.with_name(f".{target.name}.{os.getpid()}.converting")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove_drafts(target)
        _check_space(target, needed)
        draft.mkdir()
    except OSError as error:
        what, fix = "the target folder cannot be made", "name a folder that can be written"
        raise OutputError(Problem("E-CONVERT-009", what, str(target), error.strerror, fix)) from error
    try:
        yield draft
        for path in (*draft.rglob("*"), draft):
            fsync(path)
        os.replace(draft, target)  # over an empty folder too
        fsync(target.parent)
    except Exception as error:  # safetensors has errors of its own for what a disk says
        if (said := refusal(error)) is None:
            raise
        fix = "free some space, or name another target"
        raise StorageError(Problem("E-CONVERT-010", said, str(target), free_at(target), fix)) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _remove_drafts(target: Path) -> None:
    """Of conversions to this target whose processes are gone."""
    for path in target.parent.glob(f".{target.name}.*.converting"):
        match = _DRAFT.fullmatch(path.name)
        if match and match[1] == target.name and not is_running(int(match[2])):
            shutil.rmtree(path, ignore_errors=True)


def _check_space(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if free < needed + _MARGIN:
        got = f"{size_text(needed + _MARGIN)} needed, {size_text(free)} free"
        what, fix = "the disk has too little space for what is converted", "free some space, or name another target"
        raise StorageError(Problem("E-CONVERT-010", what, str(target), got, fix))


def write_shards(folder: Path, tensors: Iterable[tuple[str, Tensor]], max_shard_size: int) -> int:
    """Write tensors as safetensors of at most so many bytes (one that is larger has a shard of its own), with an index
    where there are several. At most one shard is in memory. Returns the bytes of all tensors."""
    drafts: list[tuple[Path, list[str]]] = []
    waiting: dict[str, Tensor] = {}
    size, total = 0, 0

    def write() -> None:
        file = folder / f"draft-{len(drafts)}"
        save_file({name: _alone(tensor) for name, tensor in waiting.items()}, file, metadata={"format": "pt"})
        drafts.append((file, list(waiting)))
        waiting.clear()

    for name, tensor in tensors:
        each = tensor.numel() * tensor.element_size()
        if waiting and size + each > max_shard_size:
            write()
            size = 0
        waiting[name] = tensor
        size, total = size + each, total + each
    if waiting:
        write()
    if len(drafts) == 1:
        drafts[0][0].rename(folder / "model.safetensors")
        return total
    weight_map: dict[str, str] = {}
    for number, (file, names) in enumerate(drafts, 1):
        final = f"model-{number:05}-of-{len(drafts):05}.safetensors"
        file.rename(folder / final)
        weight_map |= dict.fromkeys(names, final)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)
    return total


def _alone(tensor: Tensor) -> Tensor:
    """The tensor with memory of its own: a part of another one cannot be saved by itself."""
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)


def copy_small_files(source: Path, folder: Path) -> list[str]:
    """Copy the tokenizer and the settings of generation; returns the names."""
    names = sorted({path.name for pattern in _SMALL for path in source.glob(pattern) if path.is_file()})
    for name in names:
        shutil.copyfile(source / name, folder / name)
    return names
