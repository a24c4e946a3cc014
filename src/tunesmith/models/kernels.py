"""Which attention there is: by the key `flash_attn`, by what the machine has, and what each kernel needs.

`flash_attn`   padded batches        flat batches
disabled       eager                 none
sdpa           SDPA                  `varlen`: SDPA within each sequence
flex           SDPA                  `varlen_flex`: FlexAttention
fa2, fa3       flash-attention 2, 3  the same
auto           SDPA                  flash-attention 3 or 2 where that is installed and the device can, else `varlen`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.core.errors import MachineError, Problem, UsageError
from tunesmith.models.attention import FLEX, VARLEN
from tunesmith.models.load import settings_of

if TYPE_CHECKING:
    from tunesmith.config.model import ModelConfig

__all__ = ["FLAT_ATTENTION", "check_dropout", "check_kernel", "dropped", "installed_kernel"]

FLAT_ATTENTION = {
    "auto": VARLEN,
    "sdpa": VARLEN,
    "flex": FLEX,
    "fa2": "flash_attention_2",
    "fa3": "flash_attention_3",
}
"""`flash_attn` of the config -> `attn_implementation` for flat batches."""
_HALF = ("bfloat16", "float16")


class _Kernel(NamedTuple):
    """`is_installed`: whether the package is. `least`: of the device's compute capability. `half_only`: no float32.
    `drops`: whether it has dropout of attention. `best`: the capability for which `auto` takes it; None: any."""

    package: str
    is_installed: Callable[[], bool]
    least: tuple[int, int]
    half_only: bool
    drops: bool
    best: int | None = None


def _has_fa2() -> bool:
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def _has_fa3() -> bool:
    from transformers.utils import is_flash_attn_3_available

    return bool(is_flash_attn_3_available())


def _has_flex() -> bool:
    from torch.nn.attention import flex_attention

    return hasattr(flex_attention, "AuxRequest")


# In the order in which `auto` looks at those of packages.
_KERNELS = {
    "flash_attention_3": _Kernel("flash_attn_3", _has_fa3, (8, 0), half_only=True, drops=False, best=9),  # for Hopper
    "flash_attention_2": _Kernel("flash-attn", _has_fa2, (8, 0), half_only=True, drops=True),
    FLEX: _Kernel("torch 2.9 or later", _has_flex, (7, 0), half_only=False, drops=False),
}
_OF_PACKAGES = ("flash_attention_3", "flash_attention_2")


def installed_kernel(device: str, arithmetic: str) -> str | None:
    """A flash-attention that `auto` takes for flat batches on this device in this arithmetic (`float32` ...)."""
    for name in _OF_PACKAGES:
        kernel = _KERNELS[name]
        can = kernel.is_installed() and _lack(kernel, device, arithmetic) is None
        if can and kernel.best in (None, _capability(device)[0]):
            return name
    return None


def check_kernel(flash_attn: str, device: str, arithmetic: str) -> None:
    """Raises MachineError where the kernel that the config names is not installed, or cannot compute here so."""
    name = FLAT_ATTENTION.get(flash_attn, "")
    if name not in _KERNELS:
        return
    kernel, where, fix = _KERNELS[name], f"flash_attn: {flash_attn}", "flash_attn: auto takes what can be had"
    if lack := _lack(kernel, device, arithmetic):
        raise MachineError(Problem("E-TRAIN-051", "this attention cannot compute here", where, lack, fix))
    if not kernel.is_installed() and not (name in _OF_PACKAGES and _from_the_hub()):
        what, got = "the package of this attention is missing", f"no {kernel.package}"
        raise MachineError(Problem("E-TRAIN-052", what, where, got, f"install {kernel.package}, or {fix}"))


def check_dropout(config: ModelConfig) -> None:
    """Raises UsageError where the kernel that the config names would leave out the dropout of attention that
    config.json asks for, and what `settings_of` raises."""
    name = FLAT_ATTENTION.get(config.flash_attn, "")
    if name not in _KERNELS or _KERNELS[name].drops:
        return
    if found := dropped(name, settings_of(config)):
        what = "this attention has no dropout, and the model's config asks for some"
        fix = "flash_attn: auto, or the model's key at 0"
        raise UsageError(Problem("E-TRAIN-053", what, f"flash_attn: {config.flash_attn}", found, fix))


def dropped(attention: str, settings: Any) -> str | None:
    """`key value` of a dropout of attention in a model's config (of transformers) that the kernel would leave out."""
    if _KERNELS[attention].drops:
        return None
    values = settings.get_text_config().to_dict().items()
    asked = [(key, value) for key, value in values if "drop" in key and key.startswith("att") and value]
    return f"{asked[0][0]} {asked[0][1]}" if asked else None


def _lack(kernel: _Kernel, device: str, arithmetic: str) -> str | None:
    """What the device or the arithmetic lacks, in words."""
    if not device.startswith("cuda"):
        return f"it needs a CUDA GPU, and the device is {device}"
    if (found := _capability(device)) < kernel.least:
        least = ".".join(map(str, kernel.least))
        return f"it needs compute capability {least}, and this GPU has {'.'.join(map(str, found))}"
    if kernel.half_only and arithmetic not in _HALF:
        return f"it computes in half precision, and this run in {arithmetic} (bf16: true changes that)"
    return None


def _capability(device: str) -> tuple[int, int]:
    import torch

    return torch.cuda.get_device_capability(device)


def _from_the_hub() -> bool:
    """Whether transformers can get the kernel from the hub instead."""
    from transformers.utils import is_kernels_available

    return bool(is_kernels_available())
