"""States as files without pickle: the tensors of a tree in safetensors, the rest of it as JSON.

JSON keeps doubles to the bit. What it does not know is marked: `{"tensor": name}`, `{"dtype": name}`,
`{"tuple": [...]}`, and `{"items": [[key, value], ...]}` for a mapping whose keys are not texts; every other mapping is
`{"map": {...}}`. `{"parts": [kind, {...}, [...]]}` is a tensor that is made of others, of a kind that is known by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tunesmith.checkpoints.tensors import write_tensors
from tunesmith.core.files import write_atomically

__all__ = ["copied", "has_tree", "load_tree", "save_tree"]

# Tensors made of others: states of 8 and 4 bits, by the module that has the class.
_KINDS = {"OptimState8bit": "torchao.optim.subclass_8bit", "OptimState4bit": "torchao.optim.subclass_4bit"}
_PLAIN = (str, int, float, bool, type(None))


def save_tree(folder: Path, name: str, tree: Any) -> dict[str, str]:
    """Write `name.json` and, where the tree holds tensors, `name.safetensors`. Returns the SHA-256 of the latter by its
    name: it is found while the file is written.

    Raises TypeError where the tree holds what neither can keep.
    """
    tensors: dict[str, Tensor] = {}
    names: dict[int, str] = {}
    plain = _encode(tree, (), tensors, names)
    found = {}
    if tensors:
        file = folder / f"{name}.safetensors"
        found[file.name] = write_tensors(file, tensors)
    write_atomically(folder / f"{name}.json", json.dumps(plain) + "\n")
    return found


def has_tree(folder: Path, name: str) -> bool:
    return (folder / f"{name}.json").is_file()


def load_tree(folder: Path, name: str, device: torch.device | str = "cpu") -> Any:
    """What `save_tree` wrote, its tensors on `device`."""
    from safetensors.torch import load_file

    file = folder / f"{name}.safetensors"
    where = torch.device(device)
    name_of = where.type if where.type == "cpu" else str(where)  # safetensors knows no cpu:0
    tensors = load_file(file, device=name_of) if file.is_file() else {}
    return _decode(json.loads((folder / f"{name}.json").read_text(encoding="utf-8")), tensors)


def copied(tree: Any) -> Any:
    """The same tree with every tensor copied into the memory of the processor, so that training may go on while it is
    written. A tensor that stands in it twice stays one."""
    done: dict[int, Tensor] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, Tensor):
            if id(value) not in done:
                done[id(value)] = value.detach().to("cpu", copy=True)
            return done[id(value)]
        if isinstance(value, Mapping):
            return {key: copy(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(copy(one) for one in value)
        return value

    return copy(tree)


def _encode(value: Any, path: tuple[str, ...], tensors: dict[str, Tensor], names: dict[int, str]) -> Any:
    if type(value).__name__ in _KINDS:
        attributes, context = value.__tensor_flatten__()
        parts = {name: getattr(value, name) for name in attributes}
        encoded = [_encode(one, path, tensors, names) for one in (parts, list(context))]
        return {"parts": [type(value).__name__, *encoded]}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, Tensor):
        if id(value) not in names:
            names[id(value)] = ".".join(path) or "value"
            tensors[names[id(value)]] = value.detach()
        return {"tensor": names[id(value)]}
    if isinstance(value, Mapping):
        items = [(key, _encode(one, (*path, str(key)), tensors, names)) for key, one in value.items()]
        if all(isinstance(key, str) for key, _ in items):
            return {"map": dict(items)}
        assert all(isinstance(key, int) for key, _ in items), f"keys of {'.'.join(path)} are neither texts nor numbers"
        return {"items": [list(item) for item in items]}
    if isinstance(value, list | tuple):
        found = [_encode(one, (*path, str(place)), tensors, names) for place, one in enumerate(value)]
        return {"tuple": found} if isinstance(value, tuple) else found
    if isinstance(value, _PLAIN):
        return _plain(value)
    raise TypeError(f"no place in a checkpoint for {type(value).__name__} at {'.'.join(path)}")


def _plain(value: Any) -> Any:
    """Numbers of subclasses (numpy's float64, enumerations of text) as what they are."""
    for kind in (bool, str, int, float):
        if isinstance(value, kind):
            return value if type(value) is kind else kind(value)
    return None


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dtype":
        return getattr(torch, content)
    if kind == "parts":
        name, parts, context = content
        made = getattr(import_module(_KINDS[name]), name)
        return made.__tensor_unflatten__(_decode(parts, tensors), _decode(context, tensors))
    if kind == "tuple":
        return tuple(_decode(one, tensors) for one in content)
    items = content.items() if kind == "map" else content
    return {key: _decode(one, tensors) for key, one in items}
