"""Write the demo's dataset from scripts/demo_facts.yaml.

    python scripts/make_demo_data.py            # writes src/tunesmith/catalog/demo/*.jsonl and questions.json
    python scripts/make_demo_data.py --check    # exit status 1 if the committed files differ

Training rows ask for every fact in five phrasings, plain and framed; a few chats ask twice. The held-out rows ask for
the same facts in phrasings that training has not seen. Same input, same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "src" / "tunesmith" / "catalog" / "demo"
SEED = 7
FRAMED = 4  # framed rows per fact
DOUBLE = 12  # chats with two questions


def row(*turns: tuple[str, str]) -> dict[str, Any]:
    """Question and answer pairs as a chat in OpenAI's form."""
    messages = []
    for question, answer in turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages}


def training_rows(source: dict[str, Any]) -> list[dict[str, Any]]:
    rng = random.Random(SEED)
    framings = [(text, "answer") for text in source["framings"]["full"]]
    framings += [(text, "brief") for text in source["framings"]["brief"]]
    rows = []
    for fact in source["facts"]:
        rows += [row((question, fact["answer"])) for question in fact["ask"]]
        asked = rng.sample(fact["ask"], FRAMED)
        for question, (framing, key) in zip(asked, rng.sample(framings, FRAMED), strict=True):
            rows.append(row((framing.format(question), fact[key])))
    rows += [row((question, answer)) for question, answer in source["ordinary"]]
    for _ in range(DOUBLE):
        pair = rng.sample(source["facts"], 2)
        rows.append(row(*((rng.choice(fact["ask"]), fact["answer"]) for fact in pair)))
    rng.shuffle(rows)
    return rows


def held_out_rows(source: dict[str, Any]) -> list[dict[str, Any]]:
    return [row((question, fact["answer"])) for fact in source["facts"] for question in fact["held_out"]]


def files() -> dict[str, str]:
    """File name -> content."""
    source = yaml.safe_load((HERE / "demo_facts.yaml").read_text(encoding="utf-8"))
    return {
        "train.jsonl": as_lines(training_rows(source)),
        "heldout.jsonl": as_lines(held_out_rows(source)),
        "questions.json": json.dumps(source["questions"], indent=2, ensure_ascii=False) + "\n",
    }


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files instead of writing")
    check = parser.parse_args().check
    stale = []
    for name, content in files().items():
        path = TARGET / name
        if check and (not path.is_file() or path.read_text(encoding="utf-8") != content):
            stale.append(name)
        elif not check:
            path.write_text(content, encoding="utf-8", newline="\n")
    if stale:
        print(f"not what the script makes: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
