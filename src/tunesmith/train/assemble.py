"""RunConfig and RunPlan -> the Trainer of a run: collator, callbacks, limits of memory, what is saved and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.log import get_logger, is_main_process

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainingArguments

    from tunesmith.checkpoints.reserve import Reserve
    from tunesmith.config import RunConfig, RunPlan
    from tunesmith.data import Datasets
    from tunesmith.objectives import Objective
    from tunesmith.render import Renderer
    from tunesmith.train.saving import SavingSettings
    from tunesmith.train.trainer import Trainer
    from tunesmith.train.uploads import Uploads

__all__ = ["build_trainer"]


def build_trainer(
    config: RunConfig,
    plan: RunPlan,
    arguments: Seq2SeqTrainingArguments,
    objective: Objective,
    model: Any,
    tokenizer: Any,
    renderer: Renderer,
    datasets: Datasets,
    position: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    uploads: Uploads | None,
    left_out: frozenset[int],
    *,
    on_steps: Callable[[int, int], None],
    on_event: Callable[..., None],
) -> Trainer:
    """The Trainer of a run, with what is around it. `on_steps` and `on_event` are told how far it is, and what happens.

    Raises StorageError where the disk has no room to hold for checkpoints.
    """
    from tunesmith.data.collate import FlatCollator, PaddingCollator
    from tunesmith.methods import METHODS
    from tunesmith.models.rope import context_of
    from tunesmith.models.tokenizer import pad_id_of
    from tunesmith.train.callbacks import make_callbacks
    from tunesmith.train.control import ControlSettings
    from tunesmith.train.generations import generations_of
    from tunesmith.train.memory import read_limits
    from tunesmith.train.nonfinite import NonFiniteSettings, read_left_out
    from tunesmith.train.optimizers.make import optimizer_for
    from tunesmith.train.step_memory import MemorySettings
    from tunesmith.train.trainer import Trainer

    longest = min(plan.cutoff_len, context_of(model.config) or plan.cutoff_len)
    evaluation, pad_id, reads = datasets.eval, pad_id_of(tokenizer), {"read_media": datasets.read_media}
    collate: Any = FlatCollator(pad_id, shares=plan.shares, **reads)
    if plan.batches == "padded":  # a row for each pack: attention with a mask costs the square of a row
        collate = FlatCollator(pad_id, one_row=False, **reads) if plan.packing else PaddingCollator(pad_id, **reads)
    return Trainer(
        model=model,
        args=arguments,
        objective=objective,
        collate=collate,
        train_dataset=datasets.train,
        eval_dataset=next(iter(evaluation.values())) if len(evaluation) == 1 else evaluation or None,
        tokenizer=tokenizer,
        callbacks=[
            *make_callbacks(config, plan, on_steps),
            *METHODS.get(plan.finetuning_type)(config.method).callbacks(model),
        ],
        order=plan.order,
        position=position,
        memory=MemorySettings(read_limits(plan.resume), config.train.memory_probe, longest),
        control=ControlSettings(plan.resume, resumes=_resumes(config)),
        nonfinite=NonFiniteSettings(config.train.on_nonfinite, left_out | read_left_out(plan.resume)),
        optimizer=optimizer_for(config),
        peak_flops=_peak_flops(config, plan),
        saving=_saving(config, plan, facts, uploads, sees=renderer.media is not None),
        generations=generations_of(config, plan, renderer),
        on_event=on_event,
    )


def _saving(
    config: RunConfig, plan: RunPlan, facts: Mapping[str, Any], uploads: Uploads | None, *, sees: bool
) -> SavingSettings:
    from tunesmith.models.processor_files import copy_processor
    from tunesmith.train.saving import SavingSettings

    train = config.train
    if train.async_save and plan.world_size > 1:
        get_logger().warning("async_save is without effect: %d processes save together", plan.world_size)
    return SavingSettings(
        reserve=_reserve(config, plan),
        limit=train.value("save_total_limit"),
        only_model=bool(train.value("save_only_model")),
        background=train.async_save and plan.world_size == 1,
        goes_on=train.on_disk_full == "continue",
        facts=facts,
        on_committed=None if uploads is None else uploads.checkpoint,
        beside=partial(copy_processor, config.model) if sees else None,
    )


def _reserve(config: RunConfig, plan: RunPlan) -> Reserve | None:
    """Held from here on. Raises StorageError where the disk has no such room."""
    from tunesmith.checkpoints.reserve import Reserve
    from tunesmith.train.saving import naming_the_disk

    if not is_main_process():
        return None
    folder = Path(plan.output_dir)
    reserve = Reserve(folder, round(config.train.disk_reserve_gb * 1e9))
    with naming_the_disk(folder):
        reserve.hold()
    return reserve


def _resumes(config: RunConfig) -> bool:
    """Whether the same command goes on from the newest checkpoint."""
    wanted = str(config.train.value("resume_from_checkpoint")).lower()
    return wanted in ("true", "auto") or (wanted == "none" and not config.train.overwrite_output_dir)


def _peak_flops(config: RunConfig, plan: RunPlan) -> float | None:
    """FLOP/s of a device at most: as the config says, or else its maker."""
    from tunesmith.models.peaks import peak_flops

    if config.train.peak_tflops is not None:
        return config.train.peak_tflops * 1e12
    return peak_flops(plan.device, plan.autocast or plan.dtype)
