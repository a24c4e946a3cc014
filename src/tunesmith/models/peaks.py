"""What GPUs can compute at most: dense matrix products in TFLOP/s, from the data sheets of their makers.

Data sheets often print twice as much, for weights of which every second one is zero. Where a card multiplies half
precision faster when it adds up in half precision (GeForce), the figure for adding up in float32 counts: so PyTorch
computes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["PEAKS", "Peak", "Source", "find_peak", "peak_flops"]


class Source(NamedTuple):
    """A document of the maker."""

    title: str
    url: str


class Peak(NamedTuple):
    """TFLOP/s by arithmetic; None where the card has no such arithmetic, or no document that could be checked says how
    much. `pattern` is looked for in the name that torch tells of a device."""

    label: str
    pattern: str
    bfloat16: float | None
    float16: float
    tf32: float | None
    float32: float | None
    source: Source


_SITE = "https://www.nvidia.com/en-us/data-center/"
_FILES = "https://www.nvidia.com/content/dam/en-zz/Solutions/"
_IMAGES = "https://images.nvidia.com/aem-dam/Solutions/"
_PRIMELINE = "https://www.primeline-solutions.com/media/categories/server/nach-gpu/nvidia-hgx-h200/"
_AWS = "https://d1.awsstatic.com/product-marketing/ec2/"

_GB200 = Source("NVIDIA GB200 NVL72: specifications, of 72 GPUs", _SITE + "gb200-nvl72/")
_B200 = Source("NVIDIA HGX B200 Datasheet", _PRIMELINE + "nvidia-blackwell-b200-datasheet.pdf")
_H200 = Source("NVIDIA H200 GPU: specifications", _SITE + "h200/")
_H100 = Source("NVIDIA H100 GPU: specifications", _SITE + "h100/")
_HOPPER = Source(
    "NVIDIA H100 Tensor Core GPU Datasheet", "https://resources.nvidia.com/en-us-gpu-resources/h100-datasheet-24306"
)
_A100 = Source(
    "NVIDIA A100 Tensor Core GPU Datasheet",
    _FILES + "Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf",
)
_A30 = Source("NVIDIA A30 Datasheet", _FILES + "data-center/products/a30-gpu/pdf/a30-datasheet.pdf")
_A40 = Source(
    "NVIDIA A40 Datasheet", "https://images.nvidia.cn/content/Solutions/data-center/a40/nvidia-a40-datasheet.pdf"
)
_A10G = Source("NVIDIA A10G Datasheet (AWS)", _AWS + "NVIDIA_AWS_A10G_DataSheet_FINAL_02_17_2022.pdf")
_A10 = Source("NVIDIA A10 Datasheet", _FILES + "Data-Center/a10/pdf/datasheet-new/nvidia-a10-datasheet.pdf")
_L40S = Source("NVIDIA L40S Datasheet", "https://resources.nvidia.com/en-us-l40s/l40s-datasheet-28413")
_L40 = Source("NVIDIA L40 GPU: specifications", _SITE + "l40/")
_L4 = Source("NVIDIA L4 Tensor Core GPU: specifications", _SITE + "l4/")
_V100 = Source(
    "NVIDIA V100 Tensor Core GPU Datasheet",
    "https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf",
)
_T4 = Source("NVIDIA T4 Tensor Core GPU Datasheet", _FILES + "Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf")
_GA102 = Source(
    "NVIDIA Ampere GA102 GPU Architecture, whitepaper v2.1",
    "https://www.nvidia.com/content/PDF/nvidia-ampere-ga-102-gpu-architecture-whitepaper-v2.1.pdf",
)
_ADA = Source(
    "NVIDIA Ada GPU Architecture, whitepaper v2.1",
    _IMAGES + "Data-Center/l4/nvidia-ada-gpu-architecture-whitepaper-v2.1.pdf",
)
_RTX50 = Source(
    "NVIDIA RTX Blackwell GPU Architecture, whitepaper",
    _IMAGES + "geforce/blackwell/nvidia-rtx-blackwell-gpu-architecture.pdf",
)

# The first pattern that is found counts, so variants of a card stand before the card. Figures with sparsity are halved.
PEAKS: tuple[Peak, ...] = (
    Peak("GB200", r"\bGB200\b", 2500, 2500, 1250, None, _GB200),  # of float32 its documents say 80 and 90
    Peak("B200", r"\bB200\b", 2250, 2250, 1100, 75, _B200),
    Peak("H200 NVL", r"\bH200 NVL\b", 835.5, 835.5, 417.5, 60, _H200),
    Peak("H200", r"\bG?H200\b", 989.5, 989.5, 494.5, 67, _H200),
    Peak("H100 PCIe", r"\bH100 PCIe\b", 756, 756, 378, 51, _HOPPER),
    Peak("H100 NVL", r"\bH100 NVL\b", 835.5, 835.5, 417.5, 60, _H100),
    Peak("H100 SXM", r"\bH100\b", 989.5, 989.5, 494.5, 67, _H100),
    Peak("A100, A800", r"\bA[18]00\b", 312, 312, 156, 19.5, _A100),
    Peak("A30", r"\bA30\b", 165, 165, None, None, _A30),
    Peak("A40", r"\bA40\b", 149.7, 149.7, 74.8, 37.4, _A40),
    Peak("A10G", r"\bA10G\b", 70, 70, None, 35, _A10G),
    Peak("A10", r"\bA10\b", 125, 125, 62.5, 31.2, _A10),
    Peak("L40S", r"\bL40S\b", 362, 362, 183, 91.6, _L40S),
    Peak("L40", r"\bL40\b", 181, 181, 90.5, 90.5, _L40),
    Peak("L4", r"\bL4\b", 121, 121, 60, 30.3, _L4),
    Peak("V100 PCIe", r"\bV100-PCIE", None, 112, None, 14, _V100),
    Peak("V100 SXM2", r"\bV100-SXM2", None, 125, None, 15.7, _V100),
    Peak("T4", r"\bT4\b", None, 65, None, 8.1, _T4),
    Peak("RTX A6000", r"\bRTX A6000\b", 154.8, 154.8, 77.4, 38.7, _GA102),
    Peak("RTX 3090", r"\bRTX 3090(?! Ti)\b", 71, 71, 35.6, 35.6, _GA102),
    Peak("RTX 4090", r"\bRTX 4090(?! D| Laptop)\b", 165.2, 165.2, 82.6, 82.6, _ADA),
    Peak("RTX 5090", r"\bRTX 5090(?! D| Laptop)\b", 209.5, 209.5, 104.8, 104.8, _RTX50),
)


def find_peak(name: str) -> Peak | None:
    """That of a device by the name that torch tells of it; None where it is not known."""
    return next((peak for peak in PEAKS if re.search(peak.pattern, name)), None)


def peak_flops(device: str, arithmetic: str) -> float | None:
    """FLOP/s of one device at most; None where it is not known (every processor, every GPU that is not in the table).

    arithmetic: float32, bfloat16 or float16: that of autocast, or else of the weights. float32 counts as TF32 where
    torch may use it.
    """
    import torch

    if not device.startswith("cuda"):
        return None
    peak = find_peak(torch.cuda.get_device_name(device))
    if peak is None:
        return None
    found = {"bfloat16": peak.bfloat16, "float16": peak.float16, "float32": peak.float32}[arithmetic]
    if arithmetic == "float32" and peak.bfloat16 is not None and _uses_tf32():  # cards with one have the other
        found = peak.tf32
    return None if found is None else found * 1e12


def _uses_tf32() -> bool:
    """Whether float32 products may round their inputs to TF32. Releases before 2.9 have the older switch only."""
    import torch

    setting = torch.backends.cuda.matmul
    if hasattr(torch.backends, "fp32_precision"):
        return bool(setting.fp32_precision == "tf32")
    return bool(setting.allow_tf32)
