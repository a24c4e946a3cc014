"""What a mixture of depths says of a text that it reads at once, as in training, and token by token, as in a reply.

    TUNESMITH_ASSETS=... python bench/mixture_of_depths.py
    python scripts/generate_surgery_doc.py

stories260K (5 layers, of which 2 choose an eighth of the tokens) learns tiny_shakespeare for 300 steps of 8 rows of 256
tokens, as it is and converted; 8 rows that were not trained are then read at once, and as all their beginnings. About
five minutes on a CPU. Results are written into bench/results/mixture_of_depths.json.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

import tunesmith
from tunesmith.config.model import ModelConfig
from tunesmith.models.load import load

RESULTS = Path(__file__).parent / "results" / "mixture_of_depths.json"
ASSETS = Path(os.environ["TUNESMITH_ASSETS"])
LENGTH, ROWS, HELD_OUT = 256, 8, 50_000
KINDS: dict[str, dict[str, Any]] = {
    "ordinary": {},
    "capacity 0.125": {"mixture_of_depths": "convert"},
    "capacity 0.5": {"mixture_of_depths": "convert", "mixture_of_depths_capacity": 0.5},
}


def main() -> None:
    text = (ASSETS / "data" / "pretrain" / "tiny_shakespeare.txt").read_text(encoding="utf-8")
    found = {}
    with TemporaryDirectory() as name:
        (Path(name) / "train.txt").write_text(text[:-HELD_OUT], encoding="utf-8")
        for kind, keys in KINDS.items():
            folder = train(Path(name), kind.replace(" ", "_"), keys)
            found[kind] = read(folder, text[-HELD_OUT:])
            print(kind, found[kind], flush=True)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def train(root: Path, name: str, keys: dict[str, Any]) -> Path:
    return tunesmith.train(
        {
            "stage": "pt",
            "model_name_or_path": str(ASSETS / "models" / "stories260K"),
            "dataset": str(root / "train.txt"),
            "output_dir": str(root / name),
            "finetuning_type": "full",
            "cutoff_len": LENGTH,
            "packing": True,
            "per_device_train_batch_size": 8,
            "max_steps": 300,
            "learning_rate": 2e-3,
            "lr_scheduler_type": "cosine",
            "save_strategy": "no",
            "disable_gradient_checkpointing": True,
            "use_cpu": True,
            **keys,
        }
    ).output_dir


@torch.no_grad()
def read(folder: Path, text: str) -> dict[str, float]:
    """Nats a token, read at once and from all beginnings, and how often both find the same token likeliest."""
    loaded = load(ModelConfig(model_name_or_path=str(folder)), dtype="float32")
    model = loaded.model.eval()
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"][: ROWS * LENGTH]
    lower = torch.ones(LENGTH, LENGTH, dtype=torch.long).tril()
    losses, same = {"at once": 0.0, "token by token": 0.0}, 0.0
    for row in torch.tensor(ids).view(ROWS, LENGTH):
        at_once = model(input_ids=row[None], use_cache=False).logits[0, :-1]
        beginnings = row.expand(LENGTH, LENGTH) * lower
        every = model(input_ids=beginnings, attention_mask=lower, use_cache=False).logits
        by_token = every[torch.arange(LENGTH - 1), torch.arange(LENGTH - 1)]
        for name, logits in (("at once", at_once), ("token by token", by_token)):
            losses[name] += float(torch.nn.functional.cross_entropy(logits, row[1:])) / ROWS
        same += float((at_once.argmax(-1) == by_token.argmax(-1)).float().mean()) / ROWS
    return {**{name: round(loss, 3) for name, loss in losses.items()}, "same token": round(same, 3)}


if __name__ == "__main__":
    main()
