"""`tunesmith runs verify`: is a run still what its record says?"""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.output import print_json
from tunesmith.core.errors import DataError, Problem

if TYPE_CHECKING:
    from tunesmith.runs.verify import Check

__all__ = ["verify"]

_WIDTH = 80
_SHOWN = {"same": "ok", "differs": "DIFFERS", "missing": "MISSING", "unknown": "unknown", "told": "note"}


def verify(
    run: Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="Folder, id or name.")],
    as_json: Annotated[bool, typer.Option("--json", help="For scripts: every check.")] = False,
) -> None:
    """Verify a run: derive again what its record says.

    Files of checkpoints and results, whether weights are finite, data, template,
    model and config. Exit code 65 where something differs. Other versions of
    libraries are told only.
    """
    from tunesmith.runs.find import find
    from tunesmith.runs.verify import BAD
    from tunesmith.runs.verify import verify as checks_of

    (row,) = find([run])
    checks: list[Check] = []
    same: Counter[str] = Counter()
    for check in checks_of(row):
        checks.append(check)
        same[check.part] += check.outcome == "same"
        if check.outcome != "same" and not as_json:
            _print(check)
    bad = [check for check in checks if check.outcome in BAD]
    if as_json:
        print_json({"id": row.id, "ok": not bad, "checks": [asdict(check) for check in checks]})
    else:
        for part, number in same.items():
            total = sum(check.part == part for check in checks)
            if number:
                print(f"{_SHOWN['same']:<8} {part:<11} {number} of {total}" if number < total else _whole(part, number))
    if bad:
        what = f"{len(bad)} of {len(checks)} checks of the run {row.id} do not hold"
        names = ", ".join(check.what for check in bad[:3])
        raise DataError(Problem("E-RUN-020", what, row.output_dir, names, "tunesmith explain E-RUN-020 says what next"))


def _whole(part: str, number: int) -> str:
    return f"{_SHOWN['same']:<8} {part:<11} " + (f"all {number}" if number > 1 else "1")


def _print(check: Check) -> None:
    text = f"{_SHOWN[check.outcome]:<8} {check.part:<11} {check.what}" + (f": {check.detail}" if check.detail else "")
    print("\n".join(textwrap.wrap(text, _WIDTH, subsequent_indent=" " * 21)), flush=True)
