"""How much memory preparing a large file takes: peak of the whole process tree, sampled.

    python bench/data_memory.py [--gigabytes 2] [--json FILE]

Writes a JSON Lines file of that size into a temporary folder (the same texts as bench/data.py, numbered so that no two
rows are alike), prepares it from a cold cache, and adds up the proportional set size (PSS) of the process and of those
that it started, twice a second. Needs about three times the size on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from pathlib import Path

from data import build, renderer_of, write_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TUNESMITH_DATA_CACHE"] = str(Path(folder) / "cache")
        file = large_file(Path(folder), options.gigabytes)
        renderer = renderer_of("qwen3")
        before = sum(memory())
        peak = Peak()
        begin = time.perf_counter()
        train = build(file, renderer).train
        seconds = time.perf_counter() - begin
        found = {
            "file_gigabytes": round(file.stat().st_size / 1e9, 2),
            "rows": len(train),
            "tokens": train.num_tokens,
            "seconds": round(seconds, 1),
            "rows_per_second": round(len(train) / seconds),
            "megabytes_before": round(before / 1e6),
            "peak_megabytes": round(peak.stop() / 1e6),
            "of_these_mapped_files": round(peak.mapped / 1e6),
        }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def large_file(folder: Path, gigabytes: float) -> Path:
    rows = [json.loads(line) for line in write_rows(folder, 4000)["alpaca"].open()]
    file = folder / "large.jsonl"
    written, number = 0, 0
    with file.open("w") as out:
        while written < gigabytes * 1e9:
            row = rows[number % len(rows)]
            line = json.dumps({"instruction": f"{number}. {row['instruction']}", "output": row["output"]}) + "\n"
            written += out.write(line)
            number += 1
    return file


def memory() -> tuple[int, int]:
    """Bytes of this process and of those below it, pages that are shared counted once: (their own, mapped files)."""
    own = mapped = 0
    for process in [os.getpid(), *_below(os.getpid())]:
        try:
            text = Path(f"/proc/{process}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it has ended
            continue
        sizes = {line.split()[0]: int(line.split()[1]) * 1024 for line in text.splitlines()[1:]}
        own += sizes["Pss:"] - sizes["Pss_File:"]
        mapped += sizes["Pss_File:"]
    return own, mapped


def _below(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        try:
            children = [int(child) for child in (task / "children").read_text().split()]
        except FileNotFoundError:
            continue
        for child in children:
            found += [child, *_below(child)]
    return found


class Peak:
    """The highest `memory` since it was made."""

    def __init__(self) -> None:
        self._highest, self._done = (0, 0), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self._highest = max(self._highest, memory(), key=sum)

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return sum(self._highest)

    @property
    def mapped(self) -> int:
        return self._highest[1]


if __name__ == "__main__":
    main()
