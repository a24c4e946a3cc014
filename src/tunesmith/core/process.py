"""Which process is it, and does it still run? Numbers of processes are used again; with the start time they are not."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["ProcessId", "is_running"]

_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process: its number, when it began (as the system counts, with the boot where that is known), its host."""

    pid: int
    started: str
    host: str

    @classmethod
    def of(cls, pid: int | None = None) -> ProcessId:
        """The process of this number on this machine, this one if none is named.

        Raises ProcessLookupError where there is none.
        """
        pid = os.getpid() if pid is None else pid
        if (started := _started(pid)) is None:
            raise ProcessLookupError(pid)
        return cls(pid, started, socket.gethostname())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProcessId:
        """What `to_dict` gave. Raises KeyError or ValueError where it is something else."""
        return cls(int(values["pid"]), str(values["started"]), str(values["host"]))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def is_here(self) -> bool:
        """Whether it belongs to this machine, so that it can be asked for."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it runs, on this machine. A process that has ended and waits for its parent does not run."""
        return self.is_here and _started(self.pid) == self.started

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def is_running(pid: int) -> bool:
    """Whether a process of this number runs on this machine; it may be another than the one that is meant."""
    return _started(pid) is not None


def _started(pid: int) -> str | None:
    """When a process began, as text that differs for each; None where there is none, or none that runs."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text("utf-8", errors="replace").rpartition(")")[2].split()
            boot = _BOOT.read_text("ascii").strip() if _BOOT.exists() else ""
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{boot}:{fields[19]}"  # field 22 of proc(5): ticks since the boot
    try:
        done = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
