"""Whether a quantizer can be had here: asked before any weight is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.core.errors import MachineError, Problem
from tunesmith.core.machine import package_version

if TYPE_CHECKING:
    from tunesmith.config.quantizer_facts import QuantizerFacts

__all__ = ["check_available"]


def check_available(facts: QuantizerFacts, device: str, where: str) -> None:
    """Raises MachineError where a package is missing or too old, or where the device cannot run it."""
    if lack := _lack_of_packages(facts):
        what = f"a package for {facts.name} is missing"
        needed = " ".join(f'"{name}>={least}"' for name, least in facts.packages)
        fix = f'pip install "tunesmith[{facts.extra}]"' if facts.extra else f"pip install {needed}"
        raise MachineError(Problem("E-QUANT-004", what, where, lack, fix))
    if lack := _lack_of_device(facts, device):
        what = f"this device does not run {facts.name}"
        fix = "quantization_bit: 8, with quantization_method bnb, hqq or torchao, runs on every device"
        raise MachineError(Problem("E-QUANT-005", what, where, lack, fix))


def _lack_of_packages(facts: QuantizerFacts) -> str | None:
    from packaging.version import Version

    for name, least in facts.packages:
        found = package_version(name)
        if found is None:
            return f"{name} is not installed"
        if Version(found) < Version(least):
            return f"{name} {found}, and {least} is the least"
    return None


def _lack_of_device(facts: QuantizerFacts, device: str) -> str | None:
    kind = device.split(":")[0]
    if facts.devices and kind not in facts.devices:
        return f"it needs {' or '.join(facts.devices)}, and the device is {device}"
    if facts.capability is None or kind != "cuda":
        return None
    import torch

    if (found := torch.cuda.get_device_capability(device)) < facts.capability:
        least, has = (".".join(map(str, one)) for one in (facts.capability, found))
        return f"it needs compute capability {least}, and this GPU has {has}"
    return None
