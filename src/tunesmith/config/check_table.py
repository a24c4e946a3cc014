"""What a rule across sections is, and how rules come into a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem

__all__ = ["Check", "Finder", "contradiction", "rules_into"]

Finder: TypeAlias = Callable[[RunConfig], Iterator[Problem]]


@dataclass(frozen=True, slots=True)
class Check:
    """A rule. It is left out when one of its keys is wrong by itself, so that one mistake is told once."""

    find: Finder
    keys: frozenset[str]
    verbs: tuple[str, ...]


def rules_into(table: list[Check]) -> Callable[..., Callable[[Finder], Finder]]:
    """A decorator `rule(verbs, *keys)` whose functions go into `table`."""

    def rule(verbs: tuple[str, ...], *keys: str) -> Callable[[Finder], Finder]:
        def register(find: Finder) -> Finder:
            table.append(Check(find, frozenset(keys), verbs))
            return find

        return register

    return rule


def contradiction(config: RunConfig, key: str, what: str, fix: str) -> Problem:
    return Problem("E-CONFIG-021", what, config.place(key), fix=fix)
