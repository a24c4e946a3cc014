"""How a key is declared: one dataclass field with its state, its limits and its attribute docstring.

    lora_rank: int = works(8, least=1)
    \"\"\"Rank of the LoRA matrices.\"\"\"

Plain dataclasses, because importing pydantic costs more time than a whole `tunesmith config check` may take.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["REACHES", "Mark", "State", "ignored", "later", "mark_of", "never", "works"]

State: TypeAlias = Literal["works", "ignored", "later", "never"]

# Shows, for every key that works, that a value of the right type arrives in its section. Keys with a test of their
# effect name that one instead.
REACHES = "tests/unit/config/test_keys.py::test_a_working_key_reaches_its_section"

_MARK = "tunesmith"


@dataclass(frozen=True, slots=True)
class Mark:
    """What the loader and the documentation know about a key beyond its type and default."""

    state: State
    note: str = ""
    """works: empty. ignored: why it has no effect. later: what is missing. never: what to write instead."""
    tested: str = ""
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
    tested: str = REACHES,
    later: tuple[Any, ...] = (),
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
    secret: bool = False,
    empty: bool = False,
) -> Any:
    """A key with its effect. `later`: values that are refused for now; the others are limits of its number."""
    return _declare(default, Mark("works", "", tested, later, above, least, below, most, secret, empty))


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
