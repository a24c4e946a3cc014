"""Run the quick and the slow suite, print what each took, and end with one pytest summary line over both.

    make ci          # or: python scripts/ci.py

Both suites run even when the first fails; the exit status is non-zero if either does.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections import Counter

SUITES = ("test", "test-slow")
# The last line of `pytest -q`: "12 passed, 1 skipped in 3.45s (0:00:03)".
SUMMARY = re.compile(r"^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in ([\d.]+)s\b")


def run(target: str) -> tuple[int, float, Counter[str]]:
    """Run one make target with its output passed through: (exit status, seconds, pytest's counts)."""
    counts: Counter[str] = Counter()
    started = time.monotonic()
    with subprocess.Popen(
        ["make", "--no-print-directory", target],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",  # a test's output may hold anything
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if match := SUMMARY.match(line):
                counts = Counter({word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", match[1])})
    return process.returncode, time.monotonic() - started, counts


def main() -> int:
    started = time.monotonic()
    total: Counter[str] = Counter()
    lines, failed = [], False
    for target in SUITES:
        print(f"== make {target}", flush=True)
        status, seconds, counts = run(target)
        # A suite that ended before pytest ran (lint, a crash) has no counts, and must show as a failure below.
        if status and not counts["failed"] and not counts["error"] and not counts["errors"]:
            counts["errors"] += 1
        total += counts
        failed |= status != 0
        lines.append(f"{target:<10} {'ok' if status == 0 else f'FAILED (exit {status})':<18} {seconds:7.1f} s")
    print("\n".join(["", *lines]))
    order = ("failed", "passed", "skipped", "deselected", "xfailed", "xpassed", "error", "errors")
    words = ", ".join(f"{total[word]} {word}" for word in order if total[word] and word != "deselected")
    print(f"{words or 'no tests ran'} in {time.monotonic() - started:.2f}s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
