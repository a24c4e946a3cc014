"""Lazy tables from a name to the object that does the work.

A registry holds import paths, not objects, so that listing what exists costs nothing:

    OBJECTIVES = Registry("stage", code="E-TRAIN-001")
    OBJECTIVES.add("sft", "tunesmith.objectives.sft:SupervisedFineTuning")
    OBJECTIVES.get("sft")        # imports tunesmith.objectives.sft now
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any, Generic, TypeVar

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.suggest import did_you_mean

__all__ = ["Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """A closed set of names of one kind. `code` is the error code of an unknown name."""

    def __init__(self, kind: str, code: str) -> None:
        self.kind = kind
        self._code = code
        self._paths: dict[str, str] = {}

    def add(self, name: str, path: str) -> None:
        """Register `name` as `package.module:attribute`. A name can be added once."""
        assert name not in self._paths, f"{self.kind} {name!r} is registered twice"
        assert path.count(":") == 1, f"{path!r} is not of the form module:attribute"
        self._paths[name] = path

    def get(self, name: str) -> T:
        """Import and return what `name` stands for. Raises UsageError with suggestions if it is unknown."""
        if name not in self._paths:
            hint = did_you_mean(name, self._paths)
            fix = hint or "one of: " + ", ".join(self._paths)
            raise UsageError(Problem(self._code, f'unknown {self.kind} "{name}"', fix=fix))
        module, attribute = self._paths[name].split(":")
        found: Any = getattr(import_module(module), attribute)
        return found  # type: ignore[no-any-return]  # the table is untyped by nature; tests import every entry

    def names(self) -> tuple[str, ...]:
        return tuple(self._paths)

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)
