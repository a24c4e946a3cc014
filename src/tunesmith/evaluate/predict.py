"""Write the model's own answer beside the expected one for every evaluation row."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.engines.base import Sampling
from tunesmith.engines.hf import HFEngine
from tunesmith.train.counting import Counting

if TYPE_CHECKING:
    from tunesmith.config.generate import GenerateConfig
    from tunesmith.render import Renderer

__all__ = ["PREDICTIONS", "predict", "prompt_and_label"]

PREDICTIONS = "generated_predictions.jsonl"


def predict(
    model: Any,
    tokenizer: Any,
    renderer: Renderer,
    datasets: dict[str, Any],
    defaults: GenerateConfig,
    output_dir: Path,
    seed: int,
    accelerator: Any,
) -> dict[str, float]:
    """Answer the last turn of every row and write {prompt, predict, label} lines. Returns counts and speed.

    The prompt is what precedes the last trained run of a row, so it is exactly what training saw. Of several ranks each
    answers every so-many-th row; the file is in the order of the rows.
    """
    rank, ranks = accelerator.process_index, accelerator.num_processes
    engine = HFEngine(model, tokenizer, renderer, defaults)
    sampling = Sampling.of(defaults, seed=seed)
    every = [(dataset, number) for dataset in datasets.values() for number in range(len(dataset))]
    tokens = equal = 0
    begin = time.perf_counter()
    with _part(output_dir, rank, ranks).open("w", encoding="utf-8") as file, Counting("predicting", "rows") as count:
        for done, (dataset, number) in enumerate(every[rank::ranks], 1):
            prompt, label = prompt_and_label(dataset[number], renderer.stop_ids)
            ids = list(engine.generate_ids(prompt, sampling))
            answer = [token for token in ids if token not in renderer.stop_ids]
            line = {
                "prompt": tokenizer.decode(prompt, skip_special_tokens=False),
                "predict": engine.decode(answer, sampling),
                "label": engine.decode(label, sampling),
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count(min(done * ranks, len(every)), len(every))
            tokens, equal = tokens + len(ids), equal + (line["predict"] == line["label"])
    tokens, equal = _sums(accelerator, tokens, equal)
    if rank == 0 and ranks > 1:
        _join(output_dir, ranks, len(every))
    seconds = time.perf_counter() - begin
    return {
        "predict_rows": len(every),
        "predict_exact_match": equal / max(len(every), 1),
        "predict_tokens_per_second": round(tokens / seconds, 2),
        "predict_runtime": round(seconds, 2),
    }


def _part(folder: Path, rank: int, ranks: int) -> Path:
    return folder / (PREDICTIONS if ranks == 1 else f".{PREDICTIONS}.{rank}")


def _sums(accelerator: Any, *values: int) -> list[int]:
    """Sums over all ranks, which wait for each other here."""
    import torch

    own = torch.tensor([values], dtype=torch.int64, device=accelerator.device)
    return [int(value) for value in accelerator.gather(own).sum(dim=0)]


def _join(folder: Path, ranks: int, rows: int) -> None:
    parts = [_part(folder, rank, ranks).open(encoding="utf-8") for rank in range(ranks)]
    with (folder / PREDICTIONS).open("w", encoding="utf-8") as whole:
        whole.writelines(parts[row % ranks].readline() for row in range(rows))
    for part in parts:
        part.close()
        Path(part.name).unlink()


def prompt_and_label(row: dict[str, Any], stop_ids: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Ids before the last trained run of a row, and that run without its stop token."""
    trained = np.asarray(row["trained"], dtype=bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], trained, [False]]).astype(np.int8)))
    begin, end = int(edges[-2]), int(edges[-1])
    ids = [int(token) for token in row["input_ids"]]
    return ids[:begin], [token for token in ids[begin:end] if token not in stop_ids]
