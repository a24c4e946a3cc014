"""Rows with pictures take no memory each: a picture is read when its batch is put together, and then forgotten."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.seeing import coloured, seeing_model

pytestmark = pytest.mark.slow

FEW, MANY = 4_000, 10_000  # what an allocator keeps for blocks of rows grows until a few thousand are through
CHILD = """
import sys
from pathlib import Path
from tunesmith.config import load_config
from tunesmith.data import build_datasets
from tunesmith.data.collate import PaddingCollator
from tunesmith.models.renderer import renderer_of
from tunesmith.models.tokenizer import load_tokenizer

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

model, rows, out = sys.argv[1:]
keys = {"model_name_or_path": model, "dataset": rows, "output_dir": out, "stage": "sft", "preprocessing_num_workers": 0}
config = load_config(keys, {}, verb="train")
renderer = renderer_of(config, load_tokenizer(config.model))
found = build_datasets(config.data, renderer, stage="sft", seed=1)
collate = PaddingCollator(0, read_media=found.read_media)
for number in range(len(found.train)):
    found.train[number]
for first in range(0, 800, 8):
    collate([found.train[number] for number in range(first, first + 8)])
print(len(found.train), anonymous())
"""


def test_memory_does_not_grow_with_the_number_of_rows(stories: Path, tmp_path: Path) -> None:
    model = seeing_model(tmp_path / "model", stories)
    for number in range(4):
        coloured(["red", "green", "blue", "black"][number], number).save(tmp_path / f"{number}.png")
    used = {}
    for count in (FEW, MANY):
        rows = tmp_path / f"{count}.jsonl"
        with rows.open("w") as file:
            for number in range(count):
                said = [
                    {"role": "user", "content": f"<image>{number}. The color is"},
                    {"role": "assistant", "content": " red"},
                ]
                file.write(json.dumps({"messages": said, "images": [f"{number % 4}.png"]}) + "\n")
        command = [sys.executable, "-c", CHILD, str(model), str(rows), str(tmp_path / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        number, megabytes = done.stdout.split()[-2:]
        assert int(number) == count
        used[count] = float(megabytes)
    # 32 x 32 pixels as a tensor are 12 kB: 6,000 pictures would be 72 MB.
    assert used[MANY] - used[FEW] < 15, used
