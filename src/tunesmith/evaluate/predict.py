"""Write the model's own answer beside the expected one for every evaluation row.

A row is answered from its own seed, and each answer is kept when it is there (`evaluate/answers.py`): a prediction that
was interrupted goes on behind them, and its file is that of one that was not.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tunesmith._version import __version__
from tunesmith.core.files import write_atomically
from tunesmith.core.log import get_logger
from tunesmith.engines.base import Engine, Sampling
from tunesmith.engines.rows import ANSWERED, answer_of, media_of, request_of, seed_of
from tunesmith.evaluate.answers import FOLDER, Answers, claim, not_written
from tunesmith.metrics.texts import score_texts
from tunesmith.train.counting import Counting

if TYPE_CHECKING:
    from tunesmith.render import Renderer

__all__ = ["ONE", "PREDICTIONS", "Processes", "predict"]

PREDICTIONS = "generated_predictions.jsonl"


class Processes(Protocol):
    """Those that share the rows, as accelerate's Accelerator tells of them."""

    @property
    def process_index(self) -> int: ...

    @property
    def num_processes(self) -> int: ...

    def wait_for_everyone(self) -> None: ...

    def gather(self, tensor: Any, /) -> Any: ...

    @property
    def device(self) -> Any: ...


class _One:
    """A process by itself."""

    process_index, num_processes, device = 0, 1, "cpu"

    def wait_for_everyone(self) -> None:
        """There is nobody to wait for."""

    def gather(self, tensor: Any, /) -> Any:
        return tensor


ONE: Processes = _One()


def predict(
    engine: Engine, weights: Any, datasets: dict[str, Any], output_dir: Path, seed: int, processes: Processes = ONE
) -> dict[str, Any]:
    """Answer the last turn of every row and write {prompt, predict, label} lines. Returns counts, speed, and how close
    the answers are to the labels (`metrics.texts`; in the main process only), by names that begin with `predict_`.

    `weights`: a digest of what answers, or another plain value that tells it from others.

    The prompt is what precedes the last trained run of a row, so it is exactly what training saw. Of several ranks each
    answers every so-many-th row; the file is in the order of the rows. Rows that were answered before this call, for
    the same weights, rows and keys, count in all but the speed.
    """
    rank, ranks = processes.process_index, processes.num_processes
    sampling, renderer, tokenizer = Sampling.of(engine.defaults), engine.renderer, engine.tokenizer
    every = [(dataset, number) for dataset in datasets.values() for number in range(len(dataset))]
    if rank == 0:
        claim(output_dir, _asked(weights, renderer, every, replace(sampling, seed=seed)))
    processes.wait_for_everyone()
    tokens, begin = 0, time.perf_counter()
    with Answers(output_dir, rank) as answers, Counting("predicting", "rows") as count:
        processes.wait_for_everyone()  # all have read what was there before one writes
        left = [row for row in range(len(every)) if row not in answers.known]
        before = len(every) - len(left)
        if before:
            get_logger().info("predicting: %s of %s rows were answered before", f"{before:,}", f"{len(every):,}")
        own = left[rank::ranks]
        asked = (request_of(_row(*every[row]), renderer, replace(sampling, seed=seed_of(seed, row))) for row in own)
        for done, (number, reply) in enumerate(engine.run_all(asked), 1):
            answers.add(own[number], answer_of(tokenizer, renderer, _row(*every[own[number]]), reply, sampling))
            tokens += reply.end.completion_tokens if reply.end else 0
            count(min(before + done * ranks, len(every)), len(every))
    tokens = _sum(processes, tokens)
    answers.read()
    processes.wait_for_everyone()  # all have read before the folder goes
    seconds = time.perf_counter() - begin
    close: dict[str, Any] = {}
    if rank == 0:
        lines = [answers.known[row] for row in range(len(every))]
        _write(output_dir, lines)
        close = score_texts([line["predict"] for line in lines], [line["label"] for line in lines], seed)
    return {
        "predict_rows": len(every),
        **{f"predict_{name}": value for name, value in close.items()},
        "predict_tokens_per_second": round(tokens / seconds, 2),
        "predict_runtime": round(seconds, 2),
    }


def _row(dataset: Any, number: int) -> dict[str, Any]:
    found: dict[str, Any] = dataset[number]
    return found


def _asked(weights: Any, renderer: Renderer, every: Iterable[tuple[Any, int]], sampling: Sampling) -> dict[str, Any]:
    """Everything that an answer depends on, as plain values."""
    rows = hashlib.blake2b(digest_size=20)
    for dataset, number in every:
        row = dataset[number]
        for name in ("input_ids", "trained"):
            values = np.ascontiguousarray(row[name], dtype=np.int64)
            rows.update(len(values).to_bytes(8, "little") + values.tobytes())
        for one in media_of(row):
            digest = one.medium.facts.digest if one.medium.facts else ""
            rows.update(json.dumps([one.medium.kind, digest, int(one.start), int(one.end)]).encode())
    return {
        "weights": weights,
        "rows": rows.hexdigest(),
        "sampling": json.loads(json.dumps(asdict(sampling))),
        "template": json.loads(json.dumps(renderer.fingerprint())),
        "versions": {"tunesmith": __version__, **{name: version(name) for name in ("torch", "transformers")}},
    }


def _sum(processes: Processes, value: int) -> int:
    """The sum over all ranks, which wait for each other here."""
    import torch

    own = torch.tensor([value], dtype=torch.int64, device=processes.device)
    return int(processes.gather(own).sum())


def _write(folder: Path, answers: Iterable[Mapping[str, Any]]) -> None:
    lines = (json.dumps({key: answer[key] for key in ANSWERED}, ensure_ascii=False) + "\n" for answer in answers)
    try:
        write_atomically(folder / PREDICTIONS, "".join(lines))
    except OSError as error:
        raise not_written(folder / PREDICTIONS, error) from error
    shutil.rmtree(folder / FOLDER)
