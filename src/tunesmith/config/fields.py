"""How sections and keys are declared: one frozen dataclass per section, one field with its state per key.

    @section
    class MethodConfig:
        lora_rank: int = works(8, least=1)
        \"\"\"Rank of the LoRA matrices.\"\"\"

No pydantic here: importing it and building its models would double the time of `tunesmith config check`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar, dataclass_transform

__all__ = ["Mark", "State", "ignored", "later", "mark_of", "never", "section", "works"]

T = TypeVar("T")

State: TypeAlias = Literal["works", "ignored", "later", "never"]

_MARK = "tunesmith"


@dataclass(frozen=True, slots=True)
class Mark:
    """What the loader and the documentation know about a key beyond its type and default."""

    state: State
    note: str = ""
    """works: empty. ignored: why it has no effect. later: what is missing. never: what to write instead."""
    later_values: tuple[Any, ...] = ()
    """Values of a working key that do not work yet."""
    above: float | None = None
    least: float | None = None
    below: float | None = None
    most: float | None = None
    secret: bool = False
    empty: bool = False
    """An empty text is a value, not the same as leaving the key out."""


def works(
    default: Any,
    *,
    later: tuple[Any, ...] = (),
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    secret: bool = False,
    empty: bool = False,
) -> Any:
    """A key with its effect. `later`: values that are refused for now; the others are limits of its number."""
    return _declare(default, Mark("works", "", later, above, least, below, most, secret, empty))


def ignored(default: Any, because: str) -> Any:
    """A key that is accepted and changes nothing; a value other than the default earns a warning."""
    return _declare(default, Mark("ignored", because))


def later(default: Any, what: str = "", *, secret: bool = False) -> Any:
    """A key whose feature does not exist yet: anything other than its default is an error."""
    return _declare(default, Mark("later", what, secret=secret))


def never(default: Any, instead: str) -> Any:
    """A key refused for good, with what to use instead; its default is accepted."""
    return _declare(default, Mark("never", instead))


def _declare(default: Any, mark: Mark) -> Any:
    if isinstance(default, dict):
        factory: Callable[[], Any] = default.copy
        return field(default_factory=factory, metadata={_MARK: mark})
    return field(default=default, repr=not mark.secret, metadata={_MARK: mark})


def mark_of(metadata: Any) -> Mark | None:
    """The mark of a dataclass field's metadata; None for a field that is no key."""
    found: Mark | None = metadata.get(_MARK)
    return found


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def section(cls: type[T]) -> type[T]:
    """Make `cls` a frozen, keyword-only dataclass. The methods are shared by all sections, because those that
    `dataclass` writes and compiles for three hundred fields would double the time that the package takes to import."""
    made = dataclass(init=False, repr=False, eq=False, match_args=False, kw_only=True)(cls)
    for name, method in (
        ("__init__", _init),
        ("__repr__", _repr),
        ("__eq__", _eq),
        ("__hash__", None),
        ("__setattr__", _refuse),
        ("__delattr__", _refuse),
    ):
        setattr(made, name, method)
    return made


def _init(self: Any, **values: Any) -> None:
    for item in fields(self):
        if item.name in values:
            value = values.pop(item.name)
        else:
            value = item.default if item.default_factory is MISSING else item.default_factory()
        object.__setattr__(self, item.name, value)
    if values:
        raise TypeError(f"{type(self).__name__} has no field {', '.join(values)}")


def _repr(self: Any) -> str:
    shown = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.repr)
    return f"{type(self).__name__}({shown})"


def _eq(self: Any, other: object) -> bool:
    return vars(self) == vars(other) if type(other) is type(self) else NotImplemented


def _refuse(self: Any, name: str, *_: Any) -> NoReturn:
    raise FrozenInstanceError(f"cannot change {name}: configs are frozen")
