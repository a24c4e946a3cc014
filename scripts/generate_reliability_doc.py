"""Writes the fault matrix, with the counts of its last whole run, into docs/reliability.md.

make test-faults
python scripts/generate_reliability_doc.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "bench" / "results" / "faults.json"
BEGIN, END = "<!-- fault matrix: begin -->", "<!-- fault matrix: end -->"

ROWS: dict[str, tuple[str, str]] = {
    "R1": ("`kill -9` at a random time", "="),
    "R2": ("`kill -9` before every call of a save that changes the disk, and in the middle of each write", "="),
    "R3": ("`kill -9` every 3 to 7 steps until the run is done", "="),
    "R4": (
        "SIGTERM, SIGUSR1 in every phase, at random times, within a save, and while predictions are written",
        "exit 75 within the grace, no step lost, =",
    ),
    "R5": (
        "SIGINT once, twice; SIGHUP without a terminal",
        "saves and exit 75; leaves within 2 s; nothing; each time then =",
    ),
    "R6": (
        "ENOSPC, EIO, EDQUOT, EROFS from some call on",
        "exit 74, a message with the path and the room; no torn checkpoint; with space again, =",
    ),
    "R7": (
        "a file of the newest checkpoint is missing, empty, cut off, has one bit flipped, is of another step, is extra",
        "one warning names it; the checkpoint before is taken, =; without one before, exit 65",
    ),
    "R8": (
        "a loss or a gradient is not finite, on one rank or on all",
        "stop: exit 76, what is saved is finite; skip, rollback: as without that step, within a budget",
    ),
    "R9": (
        "out of memory in forward, backward, optimizer, evaluation, save",
        "the step is made again in parts, or the run ends with advice and a whole checkpoint",
    ),
    "R10": (
        "a row that cannot be used, in the middle of a run",
        "error: exit 65 names file and row, once mended =; skip: =",
    ),
    "R11": (
        "other numbers of loader processes, ranks and micro-batches on resume",
        "loaders: =; ranks and micro-batches: the same rows, the loss to 1e-5",
    ),
    "R12": (
        "resume after every step, within an evaluation, at the end, and with more steps than before",
        "=",
    ),
    "R13": (
        "a key changed before the resume",
        "exit 2 with what was and what is, or applied and recorded; never silent",
    ),
    "R14": ("a second process on the same folder", "exit 2 names the first; a lock of a killed one is taken over, ="),
    "R15": ("clocks that jump back and forth, and other time zones", "=, and the time that is left makes sense"),
    "R16": ("a tracker refuses, hangs, or cannot write", "the run is told once and does not wait"),
    "R17": ("one of two ranks is killed, in a step or in a save", "the job ends within 30 s and names it; then ="),
    "R18": ("the same run again, on a busy machine, in another folder, of another user", "="),
    "R19": (
        "the power goes: only what was synced is left, or some of the rest",
        "no checkpoint that was reported as saved is lost; then =",
    ),
    "R21": (
        "clients that leave in the middle of a stream of the API",
        "the model stops within a few steps; no slot stays taken; memory within 1 %",
    ),
    "R22": (
        "hundreds of checkpoints in one run; thousands of requests to the API",
        "descriptors and threads stay as many, memory within 1 % in a thousand",
    ),
    "R23": ("`kill -9` in the middle of a projection, a block or an average of an optimizer", "="),
    "R24": ("`kill -9` and SIGTERM in a run that learns from preferences or is compared with a reference", "="),
}
"""Row -> (what happens, what must hold). "=" is explained on the page."""


def table(found: dict[str, Any]) -> str:
    """The matrix as it was found on a day."""
    rows = [_row(name, *ROWS[name], found["rows"].get(name)) for name in ROWS]
    cases = sum(row["cases"] for row in found["rows"].values())
    return "\n".join(
        [
            f"{found['date']}: {found['tests']} of the {found['of']} tests, {cases:,} faults, in "
            f"{found['seconds'] / 60:.0f} minutes{_again(found)}.",
            "",
            "| | what happens | what must hold | kinds of runs | faults | failed |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def _again(found: dict[str, Any]) -> str:
    """Of a matrix in which tests failed at first."""
    return f"; {found['again']} tests failed then, and ran again once that was mended" if "again" in found else ""


def _row(name: str, what: str, holds: str, found: dict[str, Any] | None) -> str:
    if found is None:
        return f"| {name} | {what} | {holds} | | not run | |"
    kinds = len(found["kinds"]) or 1
    return f"| {name} | {what} | {holds} | {kinds} | {found['cases']:,} | {len(found['failed']) or 'none'} |"


def page(text: str, found: dict[str, Any]) -> str:
    """The page with the table of these results."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table(found)}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    TARGET.write_text(page(TARGET.read_text(encoding="utf-8"), found), encoding="utf-8")
    print(f"wrote {TARGET}")
