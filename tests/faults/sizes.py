"""How many of a row's cases run in which suite. The cases are fixed; which are in a smaller suite a seed draws."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

__all__ = ["shares", "sized"]


QUICK_KINDS = {"sft-lora", "pt-full"}
"""Kinds of runs in `make test`: each costs a run that is left alone, to compare with."""


def sized(cases: Sequence[Any], *, quick: int = 0, slow: int = 0) -> list[Any]:
    """Parameters of a test: `quick` cases run in `make test`, `slow` more in `make test-slow`, all in
    `make test-faults`. A case is a value or a tuple, that of the kind first."""
    order = list(range(len(cases)))
    random.Random(f"{len(cases)} cases").shuffle(order)
    cheap = [index for index in order if _flat(cases[index])[0] in QUICK_KINDS][:quick]
    others = [index for index in order if index not in cheap][:slow]
    marks = [
        [] if index in cheap else [pytest.mark.slow] if index in others else [pytest.mark.faults]
        for index in range(len(cases))
    ]
    pairs = zip(cases, marks, strict=True)
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=mark, id="-".join(map(str, _flat(case))))
        for case, mark in pairs
    ]


def _flat(case: Any) -> Sequence[Any]:
    return case if isinstance(case, tuple) else (case,)


def shares(found: Sequence[Any], part: int, of: int) -> list[Any]:
    """Part `part` of `of` of what is only known when the runs are there: every `of`-th, from `part` on."""
    return list(found[part::of])
