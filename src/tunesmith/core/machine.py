"""What this machine and this installation are, as plain facts. Nothing heavy is imported to find out."""

from __future__ import annotations

import os
import platform
from importlib import metadata

__all__ = ["cpus", "memory_gib", "package_version", "processor"]

_GIB = 1 << 30


def package_version(package: str) -> str | None:
    """The installed version; None where the package is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cpus() -> int:
    """Processors that this process may use, which in a container are fewer than the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float | None:
    """Main memory in GiB; None where the system does not tell."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB, 1)
    except (AttributeError, ValueError, OSError):
        return None


def processor() -> str:
    """The processor's name."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
