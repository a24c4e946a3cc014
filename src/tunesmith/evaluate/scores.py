"""`tunesmith score`: the rewards that a reward model gives to the rows of a dataset.

A pair has two, of its chosen and its rejected answer; any other row one, that of its last reply.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.core import env
from tunesmith.core.errors import DataError, MachineError, Problem
from tunesmith.core.files import remove_drafts, write_atomically, write_json
from tunesmith.core.log import get_logger
from tunesmith.data.dataset import CHOSEN, DISLIKED, LIKED
from tunesmith.engines.rewards import RewardEngine
from tunesmith.metrics.intervals import wilson
from tunesmith.train.checkpoint import check_writable
from tunesmith.train.counting import Counting
from tunesmith.train.lock import hold
from tunesmith.train.saving import naming_the_disk

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.data.dataset import TokenDataset
    from tunesmith.data.prepared import Prepared

__all__ = ["RESULTS", "SCORES", "score_dataset", "summary"]

SCORES, RESULTS = "scores.jsonl", "score_results.json"
_AHEAD = 2
"""Requests that wait while one is read."""

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Rows:
    """`numbers` [R, 2] of pairs, or [R, 1]: the samples that each row has, in the order of the rows."""

    tokens: TokenDataset
    numbers: Ints

    @property
    def kinds(self) -> Ints:
        """[R] what the first sample of each row is."""
        kinds: Ints = np.asarray(self.tokens.kinds, dtype=np.int64)[self.numbers[:, 0]]
        return kinds


def score_dataset(config: RunConfig) -> dict[str, Any]:
    """Score every row of `eval_dataset`, or of `dataset` where there is none. Returns what score_results.json holds.

    Both files are whole or not there. Raises what the data and the model raise, DataError where no row is left,
    UsageError where another process works in the folder, MachineError in one of several processes.
    """
    if env.get_int("WORLD_SIZE") > 1:
        what, fix = "score runs in one process", "start it without a launcher"
        raise MachineError(Problem("E-EVAL-010", what, got=f"{env.get_int('WORLD_SIZE')} processes", fix=fix))
    folder = Path(str(config.train.output_dir)).expanduser()
    check_writable(folder)
    with naming_the_disk(folder), hold(folder):
        remove_drafts(folder)
        rows = _rows(config)
        with RewardEngine.from_config(config) as engine:
            began = time.perf_counter()
            scores = _scores(engine, rows)
            seconds = time.perf_counter() - began
        (folder / RESULTS).unlink(missing_ok=True)  # those of before are not about what is written next
        write_atomically(folder / SCORES, "".join(_lines(rows, scores)))
        tokens = int(rows.tokens.lengths[rows.numbers].sum())
        speed = {"tokens_per_second": round(tokens / seconds, 2), "runtime": round(seconds, 2)}
        found = {**summary(rows.kinds, scores), "tokens": tokens, **speed}
        write_json(folder / RESULTS, found)
    get_logger().info("written: %s", folder / SCORES)
    return found


def _rows(config: RunConfig) -> Rows:
    """Prepared before the weights are read, as most mistakes are in the data: each row by itself, in order, cut to
    cutoff_len as for training."""
    from tunesmith.data.length import raise_for_lost_rows
    from tunesmith.data.prepared import Pool, prepare_datasets
    from tunesmith.models.catalog import fallback_template
    from tunesmith.models.tokenizer import load_tokenizer
    from tunesmith.render import make_renderer

    data = config.data
    data = replace(data, dataset=(), eval_dataset=data.eval_dataset or data.dataset)
    template = replace(config.template, train_on_prompt=False, mask_history=False, train_turns="all")
    fallback = fallback_template(config.model.model_name_or_path)
    renderer = make_renderer(template, load_tokenizer(config.model), fallback=fallback)
    seed = int(config.train.value("seed"))
    with Counting("preparing", "rows") as count:
        prepared = prepare_datasets(data, renderer, stage=_stage(config), seed=seed, on_progress=count)
    raise_for_lost_rows([one.fit(data.cutoff_len, data.on_too_long) for one in prepared])
    for line in [*renderer.notices, *_told(prepared)]:
        get_logger().info(line)
    pool = Pool.of(prepared)
    examples = np.concatenate(pool.orders)
    first, behind = pool.first[examples], pool.first[examples + 1]
    first, behind = first[behind > first], behind[behind > first]
    if not len(first):
        where, fix = ", ".join(map(str, data.eval_dataset)), "tunesmith data check tells of each row"
        raise DataError(Problem("E-EVAL-011", "no row is left to score", where, fix=fix))
    pairs = pool.tokens.kinds[first[0]] == CHOSEN
    # Of a chat that its template writes anew for each turn, the last sample is all of it.
    return Rows(pool.tokens, np.stack([first, first + 1] if pairs else [behind - 1], axis=1))


def _stage(config: RunConfig) -> str:
    """Which kind of rows is read: pairs, where nobody says otherwise."""
    return config.objective.stage if "stage" in config.user_keys else "rm"


def _told(prepared: list[Prepared]) -> Iterator[str]:
    from tunesmith.data.report import DataReport

    for one in prepared:
        one.count()
        yield from one.notices
    yield from DataReport([one.report for one in prepared]).lines()


def _scores(engine: RewardEngine, rows: Rows) -> Floats:
    """[R, 1] or [R, 2]. Sequences of like lengths are read together, the longest first: where memory does not hold
    them, it shows at once."""
    numbers = np.unique(rows.numbers)
    order = numbers[np.argsort(-rows.tokens.lengths[numbers], kind="stable")]
    found = np.zeros(len(rows.tokens))
    flying: deque[tuple[Ints, Future[list[float]]]] = deque()
    done = 0
    with Counting("scoring", "sequences") as count:
        for begin in range(0, len(order), engine.at_once):
            own = order[begin : begin + engine.at_once]
            flying.append((own, engine.submit([rows.tokens[int(number)]["input_ids"].tolist() for number in own])))
            while len(flying) > (_AHEAD if begin + engine.at_once < len(order) else 0):
                own, rewards = flying.popleft()
                found[own] = rewards.result()
                done += len(own)
                count(done, len(order))
    return found[rows.numbers]


def _lines(rows: Rows, scores: Floats) -> Iterator[str]:
    """A line of JSON for each row, in order."""
    for numbers, kind, own in zip(rows.numbers, rows.kinds.tolist(), scores.tolist(), strict=True):
        line: dict[str, Any] = {"row": str(rows.tokens.origin(int(numbers[0])))}
        if len(own) == 2:
            line |= {"chosen": own[0], "rejected": own[1], "margin": own[0] - own[1]}
        else:
            line |= {"liked": kind == LIKED} if kind in (LIKED, DISLIKED) else {}
            line["score"] = own[0]
        yield json.dumps(line, ensure_ascii=False) + "\n"


def summary(kinds: Ints, scores: Floats) -> dict[str, Any]:
    """Figures of all rows; kinds [R], scores [R, 2] of pairs or [R, 1].

    The accuracy of pairs is the share whose chosen answer has the higher score (equal ones have not), with its 95 %
    interval. Of feedback it is the share of pairs of a liked answer and a disliked one, whatever their prompts, whose
    liked one has the higher score, equal ones counting half: the area under the ROC curve.
    """
    if scores.shape[1] == 2:
        chosen, rejected = scores.T
        right, count = int((chosen > rejected).sum()), len(scores)
        low, high = wilson(right, count)
        return {
            "rows": count,
            "accuracy": right / count,
            "accuracy_low": low,
            "accuracy_high": high,
            "equal": int((chosen == rejected).sum()),
            "margin": float((chosen - rejected).mean()),
            "chosen": float(chosen.mean()),
            "rejected": float(rejected.mean()),
        }
    values = scores[:, 0]
    found = {
        "rows": len(values),
        "score": float(values.mean()),
        "deviation": float(values.std()),
        "lowest": float(values.min()),
        "highest": float(values.max()),
    }
    liked, disliked = values[kinds == LIKED], values[kinds == DISLIKED]
    if len(liked) and len(disliked):
        found |= {"liked": float(liked.mean()), "disliked": float(disliked.mean()), "area": _area(liked, disliked)}
    return found


def _area(liked: Floats, disliked: Floats) -> float:
    """Mann-Whitney's U over the number of pairs."""
    ordered = np.sort(disliked)
    below, up_to = (np.searchsorted(ordered, liked, side=side).sum() for side in ("left", "right"))
    return float((below + up_to) / 2 / (len(liked) * len(disliked)))
