"""How long the quick verbs take to start, against an interpreter that does nothing.

    python bench/startup.py [--runs 11] [--json]

Each command runs in a process of its own, in turn with the others so that a busy moment of the machine hits all;
the median counts. The limit is 0.3 s, and 0.5 s for the catalog of models, which is read whole. Exit code 1 if a
command is slower.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT = 0.3  # seconds, median
LIMITS = {"tunesmith models list": 0.5}
CONFIG = """\
model_name_or_path: some/model
dataset: rows.jsonl
stage: sft
do_train: true
finetuning_type: lora
lora_target: all
output_dir: out
learning_rate: 1.0e-4
num_train_epochs: 3.0
"""
BASELINE = "python -c pass"


def commands(config: Path) -> dict[str, list[str]]:
    tunesmith = [sys.executable, "-m", "tunesmith"]
    return {
        BASELINE: [sys.executable, "-c", "pass"],
        "tunesmith --help": [*tunesmith, "--help"],
        "tunesmith version": [*tunesmith, "version"],
        "tunesmith config check": [*tunesmith, "config", "check", str(config)],
        "tunesmith explain E-CLI-001": [*tunesmith, "explain", "E-CLI-001"],
        "tunesmith train --help": [*tunesmith, "train", "--help"],
        "tunesmith models list": [*tunesmith, "models", "list"],
    }


def measure(runs: int) -> dict[str, list[float]]:
    """Seconds of each run of each command, after one run that fills the caches."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "run.yaml"
        config.write_text(CONFIG, encoding="utf-8")
        chosen = commands(config)
        seconds: dict[str, list[float]] = {name: [] for name in chosen}
        for number in range(runs + 1):
            for name, command in chosen.items():
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if number > 0:
                    seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    medians = {name: statistics.median(values) for name, values in measure(options.runs).items()}
    base = medians[BASELINE]
    rows = [
        {"command": name, "seconds": round(value, 4), "ratio": round(value / base, 1), "ok": value < limit}
        for name, value in medians.items()
        for limit in [LIMITS.get(name, LIMIT)]
    ]
    if options.as_json:
        print(json.dumps({"runs": options.runs, "limit_seconds": LIMIT, "commands": rows}, indent=2))
    else:
        print(f"{'command':<30} {'median':>9} {'ratio':>7}")
        for row in rows:
            mark = "" if row["ok"] else "  SLOW"
            print(f"{row['command']:<30} {row['seconds'] * 1000:>6.0f} ms {row['ratio']:>6}x{mark}")
    return 0 if all(row["ok"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
