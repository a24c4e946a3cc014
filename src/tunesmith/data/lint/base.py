"""What checks are made of: a row as they see it, what they find, and the two kinds of check."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from tunesmith.core.types import NOWHERE, Chat, Encoded, Example, Feedback, Message, Origin, Preference, Prompt, Text
from tunesmith.data.lint.texts import all_texts, shown

if TYPE_CHECKING:
    from tunesmith.data.lint.columns import Columns
    from tunesmith.render.control import ControlTokens

__all__ = [
    "PLACES",
    "SEVERITIES",
    "Context",
    "Finding",
    "Hit",
    "LintRow",
    "Place",
    "RowCheck",
    "SetCheck",
    "Severity",
    "Tally",
]

PLACES = 5
"""Places that a finding names."""

Severity: TypeAlias = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Context:
    """What checks may know of the run. `cutoff_len` None: nothing is cut. `control` None: no tokenizer is there."""

    stage: str
    cutoff_len: int | None = None
    control: ControlTokens | None = None
    on_too_long: str = "truncate"


class LintRow:
    """One usable row. `sequences`: its training sequences, uncut; None where no tokenizer is there."""

    def __init__(self, example: Example, number: int, dataset: int, sequences: Sequence[Encoded] | None = None) -> None:
        self.example, self.number, self.dataset, self.sequences = example, number, dataset, sequences

    @cached_property
    def prompt(self) -> tuple[Message, ...]:
        """What is given: for a chat all before the last answer."""
        match self.example:
            case Text():
                return ()
            case Chat(messages):
                return tuple(messages[:-1] if messages and messages[-1].role == "assistant" else messages)
            case Preference(prompt) | Feedback(prompt) | Prompt(prompt):
                return tuple(prompt)

    @cached_property
    def answers(self) -> tuple[tuple[Message, ...], ...]:
        """What is learned from: the last answer of a chat, both of a pair, none of a prompt or a text."""
        match self.example:
            case Chat(messages):
                return (tuple(messages[-1:]),) if messages and messages[-1].role == "assistant" else ()
            case Preference(_, chosen, rejected):
                return tuple(chosen), tuple(rejected)
            case Feedback(_, answer):
                return (tuple(answer),)
            case _:
                return ()

    @cached_property
    def question(self) -> str:
        """The last thing a user said."""
        return next((shown(message) for message in reversed(self.prompt) if message.role == "user"), "")

    @cached_property
    def answer(self) -> str:
        """The text of the (first, for a pair: better) answer; a text is its own."""
        if isinstance(self.example, Text):
            return self.example.text
        return "\n".join(message.content for message in self.answers[0]) if self.answers else ""

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """Every string of the row that a model may read."""
        return tuple(all_texts(self.example))


class Hit(NamedTuple):
    """A fault in a row: the text that shows it (redacted), and which kind of fault it is, where there are several."""

    excerpt: str
    kind: str = ""


@dataclass(slots=True)
class Place:
    """A row of a finding, by its number among all rows (-1: no example was made of it). `origin` and a missing
    `excerpt` are filled in at the end."""

    row: int
    excerpt: str = ""
    origin: Origin = NOWHERE
    note: str = ""


@dataclass(slots=True)
class Finding:
    """`count` of `total` things show the fault. `kinds`: how often each kind of it, the commonest first."""

    code: str
    severity: Severity
    what: str
    count: int
    total: int
    fix: str
    places: list[Place] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)
    unit: str = "rows"
    leak: bool = False

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class RowCheck:
    """A fault that one row shows. In fewer than `note_below` of the rows it is only a note."""

    code: str
    severity: Severity
    what: str
    fix: str
    find: Callable[[LintRow, Context], Iterable[Hit]]
    needs_tokens: bool = False
    note_below: float = 0.0


@dataclass(frozen=True, slots=True)
class SetCheck:
    """A fault that only all rows together show: a function over their columns of numbers."""

    name: str
    find: Callable[[Columns, Context], Iterator[Finding]]
    needs_tokens: bool = False


class Tally:
    """Counts the rows in which one row check found something, with the first places."""

    def __init__(self, check: RowCheck) -> None:
        self.check = check
        self.rows = 0
        self.kinds: Counter[str] = Counter()
        self.places: list[Place] = []

    def add(self, row: LintRow, context: Context) -> None:
        hits = list(self.check.find(row, context))
        if not hits:
            return
        self.rows += 1
        self.kinds.update(hit.kind for hit in hits if hit.kind)
        if len(self.places) < PLACES:
            self.places.append(Place(row.number, hits[0].excerpt))

    def finding(self, total: int) -> Finding | None:
        if not self.rows:
            return None
        check = self.check
        severity = "note" if self.rows < check.note_below * total else check.severity
        kinds = dict(self.kinds.most_common())
        return Finding(check.code, severity, check.what, self.rows, total, check.fix, self.places, kinds)
