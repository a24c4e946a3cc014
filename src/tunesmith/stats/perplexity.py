"""Perplexity of the rows of a dataset: how surprised a model is by the tokens that training would have it write.

    perplexity = exp(-sum of log p(token) / number of tokens), over the trained tokens of a row, and over those of all

Weights of turns and tokens do not count, but for 0, which is not trained. The interval is the bootstrap's over rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.files import write_atomically
from tunesmith.metrics.intervals import bootstrap
from tunesmith.stats.rows import make_renderer_of, refuse_streams, seed_of
from tunesmith.train.counting import Counting

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.data.dataset import TokenDataset
    from tunesmith.data.seen import MediaOfSequences

__all__ = ["Perplexity", "perplexity"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """Of all trained tokens together, with its 95 % interval (None: fewer than two rows); loss in nats a token."""

    perplexity: float
    low: float | None
    high: float | None
    loss: float
    rows: int
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def perplexity(config: RunConfig, file: Path | None = None) -> Perplexity:
    """Of `eval_dataset`, or of `dataset` where there is none, under the config's model and adapters.

    `file`: a line of JSON for each row, in the order of the rows: where it is from, its tokens, loss and perplexity.
    Raises UsageError in a stage whose rows are not texts to write.
    """
    from tunesmith.data.collate import FlatCollator, PaddingCollator
    from tunesmith.models.tokenizer import pad_id_of

    stage = config.objective.stage
    if stage not in ("pt", "sft"):
        what, fix = f"stage {stage} compares or answers: its rows have no perplexity", "stage=sft, or stage=pt"
        raise UsageError(Problem("E-STATS-008", what, config.place("stage"), fix=fix))
    refuse_streams(config)
    samples, read_media, tokenizer = _samples(config)
    model, flat, device = _model(config, tokenizer, media=read_media is not None)
    collate = (FlatCollator if flat else PaddingCollator)(pad_id_of(tokenizer), read_media=read_media)
    sums, counts = _score(model, samples, collate, device, config)
    if file is not None:
        _write(file, samples, sums, counts)
    trained = counts > 0
    total, tokens = float(sums.sum()), int(counts.sum())
    if not tokens:
        what, fix = "no token of these rows is trained, so none has a perplexity", "train_on_prompt=true, or other rows"
        raise UsageError(Problem("E-STATS-008", what, fix=fix))
    low = high = None
    if trained.sum() > 1:
        table = np.stack([sums, counts], axis=1)[trained]
        ends = bootstrap(table, lambda drawn: drawn[:, 0] / drawn[:, 1], seed=seed_of(config))
        low, high = (exp(end) for end in ends)
    return Perplexity(
        perplexity=exp(total / tokens),
        low=low,
        high=high,
        loss=total / tokens,
        rows=int(trained.sum()),
        tokens=tokens,
    )


def _samples(config: RunConfig) -> tuple[TokenDataset, MediaOfSequences | None, Any]:
    """Each sample of each row by itself, in order: cut to cutoff_len, neither mixed nor packed; what reads its media;
    and the tokenizer."""
    from tunesmith.data import build_datasets
    from tunesmith.data.dataset import TokenDataset

    renderer, tokenizer = make_renderer_of(config)
    data = config.data
    wanted = data.eval_dataset or data.dataset
    data = replace(data, dataset=(), eval_dataset=wanted, val_size=0.0, packing=False, neat_packing=False)
    data = replace(data, eval_on_each_dataset=False)
    with Counting("preparing", "rows") as count:
        stage, seed = config.objective.stage, seed_of(config)
        datasets = build_datasets(data, renderer, stage=stage, seed=seed, on_progress=count)
    (found,) = datasets.eval.values()
    assert isinstance(found, TokenDataset), "single sequences, as nothing is packed"
    return found, datasets.read_media, tokenizer


def _model(config: RunConfig, tokenizer: Any, *, media: bool) -> tuple[Any, bool, str]:
    """The model with its adapters, whether it reads flat batches, and its device."""
    from tunesmith.methods.base import Adapters
    from tunesmith.methods.merge import attach_adapter, merge_adapters
    from tunesmith.models.fast_path import plan_fast_path, prove
    from tunesmith.models.load import infer_dtype, load
    from tunesmith.models.machine import pick_device
    from tunesmith.models.quantization.plan import base_of

    device = pick_device(bool(config.train.hf.get("use_cpu")))
    dtype = infer_dtype(config.model, device)
    fast = plan_fast_path(config.model)
    loaded = load(
        config.model,
        tokenizer,
        dtype=dtype,
        attention=fast.at_load,
        device=device,
        quantization=base_of(config, device),
        media=media,
    )
    adapters = Adapters.of(config.model)
    model = merge_adapters(loaded.model, adapters.only(adapters.names[:-1]))
    fast = prove(model, loaded.family, fast, config.model)
    if adapters.names:
        model = attach_adapter(model, adapters.names[-1], adapters)
    return model.eval(), fast.flat, device


def _score(
    model: Any, samples: TokenDataset, collate: Callable[[list[Any]], dict[str, Any]], device: str, config: RunConfig
) -> tuple[Floats, Floats]:
    """(sum of -log p [N], trained tokens [N]) of each sample."""
    import torch

    from tunesmith.losses.token import CROSS_ENTROPY
    from tunesmith.objectives.inputs import model_inputs, on_device
    from tunesmith.objectives.sft import trained

    sums, counts = np.zeros(len(samples)), np.zeros(len(samples))
    done = 0
    with Counting("scoring", "rows") as count, torch.inference_mode():
        for numbers in _batches(samples, int(config.train.hf.get("per_device_eval_batch_size", 8))):
            batch = on_device(collate([_unweighted(samples[number]) for number in numbers]), device)
            asked = trained(batch)
            positions = asked["loss_positions"]
            assert positions is not None
            if len(positions):
                found = model(**model_inputs(batch), **asked, loss_kind=CROSS_ENTROPY)["log_probs"]
                place = _sequence_of(positions, batch)
                sums[numbers] = np.bincount(place, -found.double().cpu().numpy(), minlength=len(numbers))
                counts[numbers] = np.bincount(place, minlength=len(numbers))
            done += len(numbers)
            count(done, len(samples))
    return sums, counts


def _batches(samples: TokenDataset, most: int) -> Iterator[npt.NDArray[np.int64]]:
    """Numbers of samples of like lengths, the longest first: where memory does not hold them, it shows at once."""
    order = np.argsort(-samples.lengths, kind="stable")
    for begin in range(0, len(order), most):
        yield order[begin : begin + most]


def _unweighted(sample: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    weights = sample.get("weights")
    if weights is None:
        return sample
    kept = {name: column for name, column in sample.items() if name != "weights"}
    return {**kept, "trained": sample["trained"] & (weights > 0)}


def _sequence_of(positions: Any, batch: dict[str, Any]) -> npt.NDArray[np.int64]:
    """Which sequence of the batch each position [N, 2] (row, place) is of."""
    found = positions.cpu().numpy()
    if "bounds" not in batch:
        rows: npt.NDArray[np.int64] = found[:, 0]
        return rows
    ends: npt.NDArray[np.int64] = np.searchsorted(np.asarray(batch["bounds"]), found[:, 1] + 1, side="right") - 1
    return ends


def _write(file: Path, samples: TokenDataset, sums: Floats, counts: Floats) -> None:
    lines = []
    for number, (loss, tokens) in enumerate(zip(sums.tolist(), counts.tolist(), strict=True)):
        mean = loss / tokens if tokens else None
        line: dict[str, Any] = {"row": str(samples.origin(number)), "tokens": int(tokens), "loss": mean}
        line["perplexity"] = None
        if mean is not None:
            with suppress(OverflowError):  # JSON has no infinity
                line["perplexity"] = exp(mean)
        lines.append(json.dumps(line, ensure_ascii=False))
    write_atomically(file, "".join(f"{line}\n" for line in lines))
