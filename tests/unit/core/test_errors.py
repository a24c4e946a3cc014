"""The exit code that follows from an error."""

from __future__ import annotations

import pickle

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


def test_an_error_arrives_whole_from_another_process() -> None:
    problems = [Problem("E-DATA-001", "x", "a.json:2", got="y", fix="z"), Problem("E-DATA-002", "w")]
    found = pickle.loads(pickle.dumps(DataError(problems)))  # noqa: S301 - made here
    assert type(found) is DataError
    assert found.problems == tuple(problems)
