"""Datasets to loaders of micro-batches: which rows a rank gets does not depend on how a step is split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.core.errors import TunesmithError
from tunesmith.core.signals import ignore_in_worker
from tunesmith.data.streaming.samples import SampleStream
from tunesmith.train.sampler import BlankableDataset, EpochDataLoader, RankBatchSampler
from tunesmith.train.stream_batches import StreamBatches, StreamLoader

if TYPE_CHECKING:
    from transformers import TrainingArguments

__all__ = ["arrived", "evaluation_loader", "stream_loader", "training_loader"]

Collate = Callable[[list[Any]], Any]


class _Telling:
    """In a loader's process what the user can mend is handed over in the place of a batch: torch would make a
    RuntimeError of it, with the text of a traceback."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, samples: list[Any]) -> Any:
        try:
            return self._collate(samples)
        except TunesmithError as error:
            if torch.utils.data.get_worker_info() is None:
                raise
            return error


def arrived(batch: Any) -> Any:
    """A batch of a loader. Raises what collating it raised in a loader's process."""
    if isinstance(batch, TunesmithError):
        raise batch
    return batch


def _sampling(args: TrainingArguments, order: str) -> dict[str, Any]:
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return {"order": order, "seed": args.data_seed if args.data_seed is not None else args.seed, "step_rows": rows}


def training_loader(dataset: Any, args: TrainingArguments, collate: Collate, order: str) -> EpochDataLoader:
    size = args.per_device_train_batch_size
    return _loader(dataset, args, collate, size, drop_last=args.dataloader_drop_last, **_sampling(args, order))


def evaluation_loader(dataset: Any, args: TrainingArguments, collate: Collate) -> EpochDataLoader:
    return _loader(dataset, args, collate, args.per_device_eval_batch_size)


def stream_loader(
    stream: SampleStream, args: TrainingArguments, collate: Collate, order: str, position: Mapping[str, Any] | None
) -> tuple[StreamLoader, StreamBatches]:
    """The loader, and the batches in it, which know the place in the stream."""
    passed = 0 if position is None else position["step"] * args.gradient_accumulation_steps
    batches = StreamBatches(
        stream,
        collate,
        batch_size=args.per_device_train_batch_size,
        total=args.max_steps * args.gradient_accumulation_steps,
        rank=args.process_index,
        world_size=args.world_size,
        position=position,
        passed=passed,
        keep=args.gradient_accumulation_steps,
        **_sampling(args, order),
    )
    return StreamLoader(batches, pin_memory=_pins(args)), batches


def _loader(
    dataset: Any, args: TrainingArguments, collate: Collate, batch_size: int, **sampling: Any
) -> EpochDataLoader:
    sampler = RankBatchSampler(
        dataset.lengths, batch_size, rank=args.process_index, world_size=args.world_size, **sampling
    )
    return EpochDataLoader(
        BlankableDataset(dataset),  # type: ignore[arg-type]
        batch_sampler=sampler,  # type: ignore[arg-type]
        collate_fn=_Telling(collate),
        num_workers=args.dataloader_num_workers,
        worker_init_fn=ignore_in_worker if args.dataloader_num_workers else None,
        pin_memory=_pins(args),
        prefetch_factor=args.dataloader_prefetch_factor,
        persistent_workers=args.dataloader_persistent_workers,
        generator=torch.Generator(),  # seeds of workers; the global generator stays untouched
    )


def _pins(args: TrainingArguments) -> bool:
    return bool(args.dataloader_pin_memory and args.device.type == "cuda")
