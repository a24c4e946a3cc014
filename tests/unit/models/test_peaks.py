"""Peaks of GPUs: found by the names that drivers tell, and in the documentation as they are here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tunesmith.models.peaks import PEAKS, find_peak, peak_flops

DOCS = Path(__file__).resolve().parents[3] / "docs" / "logs.md"

NAMES = {
    "NVIDIA A100-SXM4-80GB": "A100, A800",
    "NVIDIA A100-PCIE-40GB": "A100, A800",
    "NVIDIA A100 80GB PCIe": "A100, A800",
    "NVIDIA A800-SXM4-80GB": "A100, A800",
    "NVIDIA H100 80GB HBM3": "H100 SXM",
    "NVIDIA H100 PCIe": "H100 PCIe",
    "NVIDIA H100 NVL": "H100 NVL",
    "NVIDIA H200": "H200",
    "NVIDIA H200 NVL": "H200 NVL",
    "NVIDIA GH200 480GB": "H200",
    "NVIDIA B200": "B200",
    "NVIDIA GB200": "GB200",
    "NVIDIA A10": "A10",
    "NVIDIA A10G": "A10G",
    "NVIDIA A30": "A30",
    "NVIDIA A40": "A40",
    "NVIDIA L4": "L4",
    "NVIDIA L40": "L40",
    "NVIDIA L40S": "L40S",
    "Tesla T4": "T4",
    "Tesla V100-SXM2-32GB": "V100 SXM2",
    "Tesla V100-PCIE-16GB": "V100 PCIe",
    "NVIDIA RTX A6000": "RTX A6000",
    "NVIDIA GeForce RTX 3090": "RTX 3090",
    "NVIDIA GeForce RTX 4090": "RTX 4090",
    "NVIDIA GeForce RTX 5090": "RTX 5090",
}


@pytest.mark.parametrize(("name", "label"), NAMES.items())
def test_a_gpu_is_known_by_the_name_that_its_driver_tells(name: str, label: str) -> None:
    peak = find_peak(name)
    assert peak is not None
    assert peak.label == label


def test_every_line_of_the_table_is_reached() -> None:
    assert {peak.label for peak in PEAKS} == set(NAMES.values())


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 3090 Ti", "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H20", ""])
def test_what_is_not_in_the_table_is_not_guessed(name: str) -> None:
    assert find_peak(name) is None


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_processors_have_no_peak(device: str) -> None:
    assert peak_flops(device, "float32") is None


@pytest.mark.parametrize(
    ("name", "arithmetic", "tf32", "expected"),
    [
        ("NVIDIA A100-SXM4-80GB", "bfloat16", False, 312e12),
        ("NVIDIA A100-SXM4-80GB", "float32", False, 19.5e12),
        ("NVIDIA A100-SXM4-80GB", "float32", True, 156e12),
        ("Tesla T4", "bfloat16", False, None),
        ("Tesla T4", "float32", True, 8.1e12),
        ("a card of tomorrow", "bfloat16", False, None),
    ],
)
def test_the_arithmetic_decides(
    monkeypatch: pytest.MonkeyPatch, name: str, arithmetic: str, tf32: bool, expected: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    monkeypatch.setattr("tunesmith.models.peaks._uses_tf32", lambda: tf32)
    assert peak_flops("cuda:0", arithmetic) == expected


def test_tf32_is_read_where_transformers_switches_it() -> None:
    from transformers.utils.import_utils import enable_tf32

    from tunesmith.models.peaks import _uses_tf32

    before = torch.backends.fp32_precision
    try:
        for wanted in (True, False):
            enable_tf32.__wrapped__(wanted)
            assert _uses_tf32() == wanted
    finally:
        torch.backends.fp32_precision = before


def test_the_page_shows_this_table() -> None:
    def written(value: float | None) -> str:
        return "-" if value is None else f"{value:,g}"

    text = DOCS.read_text(encoding="utf-8")
    lines = re.findall(r"^\| (?!GPU)(\S.*?) \|$", text.split("## Peaks")[1], re.MULTILINE)
    assert lines == [" | ".join([peak.label, *map(written, peak[2:6])]) for peak in PEAKS]
