"""The exit code that follows from an error."""

from __future__ import annotations

import pytest

from tunesmith.core.errors import DataError, PreemptedError, Problem, exit_code_of


class Standing(KeyboardInterrupt):
    exit_code = 75


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError(Problem("E-DATA-001", "x")), 65),
        (PreemptedError(Problem("E-DATA-001", "x")), 75),
        (KeyboardInterrupt(), 130),
        (Standing(), 75),
        (OSError(28, "no space"), 74),
        (OSError(122, "quota"), 74),
        (OSError(13, "permission"), 70),
        (ValueError("x"), 70),
    ],
)
def test_the_exit_code_of_an_error(error: BaseException, code: int) -> None:
    assert exit_code_of(error) == code
