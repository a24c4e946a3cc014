"""Optimizers that are our own: small implementations of published algorithms, one file and one line each.

`config/optimizer_facts.py` says what goes with which, and what other packages have.
"""

from __future__ import annotations

from typing import Any

from tunesmith.core.registry import Registry

__all__ = ["OPTIMIZERS"]

_HERE = "tunesmith.train.optimizers"

OPTIMIZERS: Registry[Any] = Registry("optimizer", code="E-OPTIM-001")
"""Name -> function from an `Ask` to a torch.optim.Optimizer."""
OPTIMIZERS.add("galore", f"{_HERE}.galore:make")
OPTIMIZERS.add("apollo", f"{_HERE}.apollo:make")
OPTIMIZERS.add("badam", f"{_HERE}.badam:layer")
OPTIMIZERS.add("badam_ratio", f"{_HERE}.badam:ratio")
OPTIMIZERS.add("adam_mini", f"{_HERE}.adam_mini:make")
OPTIMIZERS.add("muon", f"{_HERE}.muon:make")
OPTIMIZERS.add("lion", f"{_HERE}.lion:make")
OPTIMIZERS.add("soap", f"{_HERE}.soap:make")
OPTIMIZERS.add("stable_adamw", f"{_HERE}.stable_adamw:make")
OPTIMIZERS.add("schedule_free_adamw", f"{_HERE}.schedule_free:adamw")
OPTIMIZERS.add("schedule_free_sgd", f"{_HERE}.schedule_free:sgd")
OPTIMIZERS.add("schedule_free_radam", f"{_HERE}.schedule_free:radam")
