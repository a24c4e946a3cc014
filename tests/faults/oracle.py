"""What "=" means: two runs ended with the same bits, in weights, in states and in the curve. Times may differ.

And what a reader may find at any moment: whole checkpoints, and outside of the staging folder no part of a file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

__all__ = ["checkpoints", "differences", "state_of", "step_of", "visible_damage"]

CURVE = {"current_steps", "step", "epoch", "loss", "grad_norm", "lr", "learning_rate", "tokens"}
CURVE |= {"bad_media", "kl", "entropy", "accuracy", "margin"}  # and what has a slash in its name, like rewards/chosen
TIMES = ("_runtime", "_per_second", "seconds", "best_model_checkpoint")
UNLIKE = {"manifest.json", "README.md"}
"""Files of a checkpoint that tell of the process that wrote it."""


def differences(found: Path, wanted: Path, without: Collection[str] = ()) -> list[str]:
    """Names of what is not the same in two output folders; keys of JSON in `without` may differ."""
    one, other = (_less(state_of(folder), without) for folder in (found, wanted))
    names = sorted(one.keys() | other.keys())
    return [_told(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def _less(value: Any, without: Collection[str]) -> Any:
    if isinstance(value, dict):
        return {key: _less(part, without) for key, part in value.items() if key not in without}
    return [_less(part, without) for part in value] if isinstance(value, list) else value


def _told(name: str, found: Any, wanted: Any) -> str:
    if name == "log":
        lines = range(max(len(found or ()), len(wanted or ())))
        pairs = [(_item(found, line), _item(wanted, line)) for line in lines]
        return "log: " + "; ".join(f"{one} is not {other}" for one, other in pairs if one != other)[:600]
    return f"{name}: {'not there' if found is None else 'not expected' if wanted is None else 'differs'}"


def _item(lines: list[Any] | None, index: int) -> Any:
    return lines[index] if lines and index < len(lines) else None


def state_of(output_dir: Path) -> dict[str, Any]:
    """Everything that has to be the same, by name: tensors as digests, the curve as lines."""
    found: dict[str, Any] = {"log": list(_curve(output_dir / "trainer_log.jsonl"))}
    for file in sorted(output_dir.glob("*.safetensors")):
        found |= {f"{file.name} {name}": bits for name, bits in _tensors(file)}
    for folder in checkpoints(output_dir)[-1:]:
        for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in UNLIKE):
            found |= dict(_parts(f"{folder.name}/{file.relative_to(folder)}", file))
    return found


def _parts(name: str, file: Path) -> Iterator[tuple[str, Any]]:
    if file.suffix == ".safetensors":
        yield from ((f"{name} {tensor}", bits) for tensor, bits in _tensors(file))
    elif file.suffix == ".json":
        yield name, _timeless(json.loads(file.read_text(encoding="utf-8")))
    else:
        yield name, hashlib.sha256(file.read_bytes()).hexdigest()


def _tensors(file: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(name, (type, shape, digest of the bytes)) of each tensor, read without any library."""
    with file.open("rb") as handle:
        header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        data = handle.read()
    for name, entry in sorted(header.items()):
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            yield name, (entry["dtype"], tuple(entry["shape"]), hashlib.sha256(data[first:last]).hexdigest())


def _timeless(value: Any) -> Any:
    """Without what tells of clocks and folders."""
    if isinstance(value, dict):
        return {
            key: [_event(one) for one in part] if key == "log_history" else _timeless(part)
            for key, part in value.items()
            if not key.endswith(TIMES)
        }
    return [_timeless(part) for part in value] if isinstance(value, list) else value


def _event(entry: dict[str, Any]) -> dict[str, Any]:
    metric = [key for key in entry if (key.startswith("eval_") or "/" in key) and not key.endswith(TIMES)]
    return {key: entry[key] for key in entry if key in CURVE or key in metric}


def _curve(file: Path) -> Iterator[dict[str, Any]]:
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        yield _event(json.loads(line))


def checkpoints(output_dir: Path) -> list[Path]:
    """Folders `checkpoint-N`, oldest first."""
    found = [path for path in output_dir.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]
    return sorted(found, key=step_of)


def step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("checkpoint-"))


def visible_damage(output_dir: Path) -> list[str]:
    """What a reader of the folder, at this moment, would take for whole and is not."""
    return [*_torn_checkpoints(output_dir), *_torn_files(output_dir)]


def _torn_checkpoints(output_dir: Path) -> Iterator[str]:
    """By the reader of the package, and by the manifest, read here once more."""
    from tunesmith.checkpoints.store import verify

    for folder in checkpoints(output_dir):
        if wrong := verify(folder):
            yield f"{folder.name}: {wrong}"
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"manifest.json"}
        if there != manifest["files"].keys():
            yield f"{folder.name}: not the files of the manifest: {sorted(there ^ manifest['files'].keys())}"
        for name in there & manifest["files"].keys():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != manifest["files"][name]["sha256"]:
                yield f"{folder.name}/{name}: other bytes than the manifest says"


def _torn_files(output_dir: Path) -> Iterator[str]:
    """Files beside the checkpoints. Drafts have names with a dot; of a log the last line may be cut off."""
    for file in output_dir.iterdir() if output_dir.exists() else ():
        if file.name.startswith(".") or not file.is_file():
            continue
        try:
            if file.suffix == ".safetensors":
                list(_tensors(file))
                _check_length(file)
            elif file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".jsonl":
                for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
                    assert not line.endswith("\n") or json.loads(line) is not None
        except (ValueError, KeyError, AssertionError) as error:
            yield f"{file.name}: {error}"


def _check_length(file: Path) -> None:
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        header = json.loads(handle.read(length))
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    assert file.stat().st_size == 8 + length + max(ends), "cut off"
