"""What bench/sft.py found: as a summary, on the terminal, as Markdown; and whether all ways computed the same.

A result is `found[case][way]`: medians over runs, and the runs themselves. The ways of a case stand in the order in
which they took turns, and the first is the one that the others are compared with.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

Ways = dict[str, dict[str, Any]]
Found = dict[str, Ways]

APART = {"losses": 1e-5, "norms": 1e-4}  # relative; float32 stays below, over some steps of Adam
# Where the mean is taken in the model's type, 1 / tokens is rounded to 8 bits, and the gradient with it: up to 4e-3.
APART_IN_BF16 = {"losses": 1e-3, "norms": 1e-2}
NAMES = {  # in a table; braces hold the version of a package
    "flat": "Tunesmith",
    "padded": "Tunesmith, padded",
    "packed": "Tunesmith, packed",
    "llamafactory": "LlamaFactory {llamafactory}, transformers {transformers}",
    "trl": "TRL {trl}, transformers {transformers}",
    "trl-padding-free": "TRL {trl}, padding-free",
    "ms-swift": "ms-swift {ms-swift}, transformers {transformers}",
}
BEGIN, END = "<!-- tables of bench/sft.py -->", "<!-- end of these tables -->"  # in a page
SAME = ("trained_parameters", "checkpointing", "threads")


def summarize(runs: dict[str, list[dict[str, Any]]], tokens: list[int]) -> Ways:
    """`tokens` of each step, without padding. The first step is not timed."""
    found = {way: _summary(results, tokens) for way, results in runs.items()}
    first = next(iter(found.values()))
    for one in list(found.values())[1:]:
        one["times_as_fast"] = round(first["seconds"] / one["seconds"], 3)
        one["share_of_growth"] = round(one["growth"] / first["growth"], 3)
        for name in ("losses", "norms"):
            pairs = list(zip(first[name], one[name], strict=True))
            one[f"{name}_apart"] = max(abs(here - there) / abs(there) for there, here in pairs)
    return found


def _summary(results: list[dict[str, Any]], tokens: list[int]) -> dict[str, Any]:
    seconds = [statistics.median(one["seconds"]) for one in results]
    return {
        "seconds": round(statistics.median(seconds), 3),
        "range": [round(min(seconds), 3), round(max(seconds), 3)],
        "tokens_per_second": round(statistics.mean(tokens[1:]) / statistics.median(seconds), 1),
        "growth": round(statistics.median(one["growth"] for one in results)),
        "losses": results[0]["losses"],
        "norms": results[0]["norms"],
        "tokens": tokens,
        "runs": results,
    }


def merge(files: list[Found]) -> Found:
    """Several files as one with all their runs."""
    merged: Found = {}
    for case in dict.fromkeys(case for file in files for case in file):
        parts = [file[case] for file in files if case in file]
        tokens = next(iter(parts[0].values()))["tokens"]
        assert all(one["tokens"] == tokens for ways in parts for one in ways.values()), f"{case}: not the same rows"
        names = dict.fromkeys(way for ways in parts for way in ways)
        runs = {way: [run for ways in parts if way in ways for run in ways[way]["runs"]] for way in names}
        merged[case] = summarize(runs, tokens)
    return merged


def complaints(found: Found) -> Iterator[str]:
    """Where a way computed something else than the first, by more than rounding explains."""
    for case, ways in found.items():
        limits = APART_IN_BF16 if case.endswith("-bf16") else APART
        first = next(iter(ways.values()))["runs"][0]
        for way, one in ways.items():
            for name in SAME:
                if any(run[name] != first[name] for run in one["runs"]):
                    yield f"{case}, {way}: {name} is not {first[name]}, as it is in the first way"
            for name, limit in limits.items():
                if one.get(f"{name}_apart", 0) > limit:
                    yield f"{case}, {way}: {name} are {one[f'{name}_apart']:.1e} apart from those of {next(iter(ways))}"


def show(case: str, ways: Ways) -> None:
    print(f"\n{case}")
    for way, one in ways.items():
        low, high = one["range"]
        line = f"  {way:<22}{one['seconds']:>8.3f} s a step ({low:.3f}-{high:.3f})"
        line += f"{one['tokens_per_second']:>9,.0f} tokens/s{one['growth']:>8,} MB grown"
        if "times_as_fast" in one:
            line += f"   {one['times_as_fast']}x as fast, {one['share_of_growth']}x the growth, "
            line += f"loss {one['losses_apart']:.1e}, gradient norm {one['norms_apart']:.1e}"
        print(line)
    for way, one in ways.items():
        print(f"  {way:<22}" + "  ".join(_steps(one)), flush=True)


def _steps(one: dict[str, Any]) -> list[str]:
    return [f"{loss:.5f} ({norm:.5f})" for loss, norm in zip(one["losses"], one["norms"], strict=True)]


def markdown(found: Found) -> str:
    """Two tables for each case: speed and memory, then loss and gradient norm of every step."""
    return "\n\n".join(table for case, ways in found.items() for table in (_speeds(case, ways), _values(ways)))


def replace_tables(page: str, tables: str) -> str:
    """`page` with these tables between its marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{tables}\n{END}{rest.split(END)[1]}"


def _speeds(case: str, ways: Ways) -> str:
    tokens = next(iter(ways.values()))["tokens"]
    reference = ways.get("flat", next(iter(ways.values())))
    what = f"{case}, {statistics.mean(tokens):,.0f} tokens a step"
    runs = len(reference["runs"])
    rows = [[what, f"seconds a step, {runs} run{'s' * (runs != 1)}", "tokens/s", "MB grown", "time", "MB"]]
    for way, one in ways.items():
        low, high = one["range"]
        times = f"{one['seconds'] / reference['seconds']:.2f}x", f"{one['growth'] / reference['growth']:.2f}x"
        speed = f"{one['seconds']:.2f} ({low:.2f}-{high:.2f})"
        rows.append([_name(way, one), speed, f"{one['tokens_per_second']:,.0f}", f"{one['growth']:,}", *times])
    return _table(rows)


def _values(ways: Ways) -> str:
    steps = len(next(iter(ways.values()))["losses"])
    head = ["loss (gradient norm)", *(f"step {number}" for number in range(1, steps + 1))]
    return _table([head, *([_name(way, one), *_steps(one)] for way, one in ways.items())])


def _name(way: str, one: dict[str, Any]) -> str:
    return NAMES[way].format(**one["runs"][0]["versions"])


def _table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
