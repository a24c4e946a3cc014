"""What a run depends on besides its config, as plain facts: versions, machine, model, seeds."""

from __future__ import annotations

import hashlib
import json
import platform
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith._version import __version__
from tunesmith.core.machine import cpus, memory_gib, package_version, processor

if TYPE_CHECKING:
    from tunesmith.config import RunConfig, RunPlan

__all__ = ["config_digest", "hardware", "model_facts", "revision_of", "seeds", "versions"]

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "tokenizers",
    "numpy",
    "safetensors",
    "bitsandbytes",
    "torchao",
)
_GIB = 1 << 30


def versions() -> dict[str, str | None]:
    """Of what computes: this package, Python, and the libraries underneath (None: not installed)."""
    return {
        "tunesmith": __version__,
        "python": platform.python_version(),
        **{name: package_version(name) for name in _PACKAGES},
    }


def hardware(plan: RunPlan) -> dict[str, Any]:
    """The machine of the main process, and the device that it computes on."""
    facts: dict[str, Any] = {
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "processor": processor(),
        "cpus": cpus(),
        "memory_gib": memory_gib(),
        "device": plan.device,
        "processes": plan.world_size,
    }
    if plan.device.startswith("cuda"):
        import torch

        found = torch.cuda.get_device_properties(plan.device)
        facts |= {"device_name": found.name, "device_memory_gib": round(found.total_memory / _GIB, 1)}
        facts["cuda"] = torch.version.cuda
    return facts


def seeds(config: RunConfig) -> dict[str, Any]:
    """Of weights, dropout and data; `data_seed` is None where the order of rows follows `seed` too."""
    return {name: config.train.value(name) for name in ("seed", "data_seed")}


def config_digest(flat: Mapping[str, Any]) -> str:
    """SHA-256 in hex of a flat config without its secrets. The order of keys does not matter."""
    text = json.dumps(flat, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_facts(config: RunConfig) -> dict[str, Any]:
    """Name and revision of the model, and of the adapters that the run began with. See `revision_of`."""
    from tunesmith.models.locate import located

    model = located(config.model)
    asked, cache = model.model_revision, model.cache_dir
    facts: dict[str, Any] = {
        "name": config.model.model_name_or_path,
        "revision": revision_of(str(model.model_name_or_path), asked, cache),
    }
    if model.adapter_name_or_path:
        facts["adapters"] = [
            {"name": name, "revision": revision_of(_inner(name, model.adapter_folder), None, cache)}
            for name in model.adapter_name_or_path
        ]
    return facts


def _inner(name: str, folder: str | None) -> str:
    return name if folder is None else str(Path(name) / folder)


def revision_of(name: str, asked: str | None = None, cache_dir: str | None = None) -> str | None:
    """The commit of a repository as it lies in the hub's cache; of a folder `sha256:` and a digest of its configs and
    of the headers of its weights (names, shapes, types and sizes of all tensors). None where neither is there."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return f"sha256:{_digest_of_folder(folder)}"

    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "adapter_config.json"):
        found = try_to_load_from_cache(name, file, cache_dir=cache_dir, revision=asked)
        if isinstance(found, str):
            return Path(found).parent.name  # models--owner--name/snapshots/COMMIT/config.json
    return None


def _digest_of_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*config.json"), *folder.glob("*.safetensors")]):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(_header(file) if file.suffix == ".safetensors" else file.read_bytes())
    return digest.hexdigest()


def _header(file: Path) -> bytes:
    """The header of a safetensors file, which tells of all its tensors: a length of eight bytes, then JSON."""
    with file.open("rb") as handle:
        length = int.from_bytes(handle.read(8), "little")
        return handle.read(min(length, 100_000_000))
