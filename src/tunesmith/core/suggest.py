"""The nearest names of a closed set, for "did you mean"."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["did_you_mean", "nearest"]


def nearest(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Up to `most` names of `known` that look like `name`, best first (difflib ratio >= 0.6, case ignored)."""
    lowered: dict[str, str] = {}
    for item in known:
        lowered.setdefault(item.lower(), item)
    return [lowered[match] for match in get_close_matches(name.lower(), lowered, n=most, cutoff=0.6)]


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """`did you mean "a" or "b"?`, or None where nothing looks alike."""
    names = nearest(name, known)
    return "did you mean " + " or ".join(f'"{item}"' for item in names) + "?" if names else None
