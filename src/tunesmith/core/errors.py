"""Everything that can go wrong for a reason the user can mend, as one small tree.

    TunesmithError
    |-- UsageError            2   a verb, a key, a value, or a combination of them
    |   `-- ConfigError       2   the same, found in a config file
    |-- DataError            65   rows, columns, templates that do not fit the data
    |-- MissingInputError    66   a file, folder, dataset or model that is not there
    |-- UnavailableError     69   a remote service that does not answer
    |-- OutputError          73   an output folder that cannot be created or must not be overwritten
    |-- StorageError         74   disk full, read error
    |-- PreemptedError       75   asked to stop; the run can be resumed
    |-- DivergedError        76   a loss or gradient that is not finite
    `-- MachineError         78   a package, driver or device that is missing or unfit

The number is the exit code of the process (BSD sysexits where one fits). An error carries one or more
`Problem`s, because all problems of a phase are reported at once. Our own mistakes are plain exceptions: they
travel, and the process ends with 70.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tunesmith.core.disk import refusal
from tunesmith.core.secrets import hide_in_addresses

__all__ = [
    "BUG",
    "INTERRUPTED",
    "ConfigError",
    "DataError",
    "DivergedError",
    "MachineError",
    "MissingInputError",
    "OutputError",
    "PreemptedError",
    "Problem",
    "StorageError",
    "TunesmithError",
    "UnavailableError",
    "UsageError",
    "exit_code_of",
]

BUG = 70
INTERRUPTED = 130
"""As shells count: 128 and the number of SIGINT."""

_GOT_WIDTH = 80


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: a code, what, where, what was got, and what to write instead."""

    code: str
    what: str
    where: str | None = None
    got: str | None = None
    fix: str | None = None

    def __post_init__(self) -> None:
        for name in ("what", "where", "got", "fix"):
            if isinstance(text := getattr(self, name), str) and "://" in text:
                object.__setattr__(self, name, hide_in_addresses(text))

    def __str__(self) -> str:
        lines = [f"error[{self.code}]: {self.what}"]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.got is not None:
            lines.append(f"  got:   {_on_one_line(self.got)}")
        if self.fix:
            lines.append(f"  fix:   {self.fix}")
        return "\n".join(lines)


def _on_one_line(text: str) -> str:
    """Input as it can be shown: short, and without line ends and what a terminal would obey."""
    text = " ".join(text[: 4 * _GOT_WIDTH].split())
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= _GOT_WIDTH else text[: _GOT_WIDTH - 3] + "..."


class TunesmithError(Exception):
    """Base of all errors that a user can mend. Holds at least one `Problem`."""

    exit_code = 1
    shown = 10  # problems printed before "... and N more"

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        assert self.problems, "an error without a problem"
        super().__init__(str(self))

    def __reduce__(self) -> tuple[type[TunesmithError], tuple[tuple[Problem, ...]]]:
        """So that one of another process arrives whole."""
        return type(self), (self.problems,)

    @property
    def code(self) -> str:
        """Code of the first problem."""
        return self.problems[0].code

    def __str__(self) -> str:
        blocks = [str(problem) for problem in self.problems[: self.shown]]
        if (more := len(self.problems) - self.shown) > 0:
            blocks.append(f"... and {more} more")
        codes = sorted({problem.code for problem in self.problems[: self.shown]})
        blocks.append("more:  " + ", ".join(f"tunesmith explain {code}" for code in codes))
        return "\n".join(blocks)


class UsageError(TunesmithError):
    exit_code = 2


class ConfigError(UsageError):
    pass


class DataError(TunesmithError):
    exit_code = 65


class MissingInputError(TunesmithError):
    exit_code = 66


class UnavailableError(TunesmithError):
    exit_code = 69


class OutputError(TunesmithError):
    exit_code = 73


class StorageError(TunesmithError):
    exit_code = 74


class PreemptedError(TunesmithError):
    exit_code = 75


class DivergedError(TunesmithError):
    exit_code = 76


class MachineError(TunesmithError):
    exit_code = 78


def exit_code_of(error: BaseException) -> int:
    """The exit code of a process that an error ends. One that stands for another brings it as `exit_code`."""
    if isinstance(code := getattr(error, "exit_code", None), int):
        return code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return StorageError.exit_code if isinstance(error, OSError) and refusal(error) else BUG
