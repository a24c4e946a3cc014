"""The one Trainer: transformers' loop around our objectives, batches, sums and evaluation.

What is overridden, and why:
    get_train_dataloader   rows of a step do not depend on ranks or micro-batches (sampler.py, stream_batches.py)
    get_batch_samples      counts the units of a whole optimizer step, over micro-batches and ranks; rows that stop it
                           lose no step; does the largest micro-batch fit, before the first; is the run to stop, before
                           each (control.py)?
    training_step          in parts that memory has room for (step_memory.py); timed, as is _prepare_inputs
                           (throughput.py)
    floating_point_ops     transformers counts 6 for each weight and position; get_batch_samples counts what is needed
    compute_loss           sum over units, divided once by those units
    _get_grad_norm         what is not finite ends the run or the step before the optimizer (nonfinite.py); with steps
                           in backward the norm is that of the gradients used there
    _clip_grad_norm        not of a step that is left out
    create_optimizer, create_scheduler  ours; a missing package or a contradiction is an error with a fix
    evaluation_loop        sums over true rows; transformers averages batch means and repeats rows on several ranks
    evaluate               a metric to watch that no evaluation has is an error, not a late KeyError or a silence
    _build_accelerator_args  torch.compile makes graphs for any length, not one for each
    _track_num_input_tokens, log  tokens without padding are counted in get_batch_samples; throughput.py tells the speed
    _save_checkpoint       staged, hashed and committed (saving.py); states without pickle (states.py)
    _init_training_state   a run that is at its last step trains no further one
    _load_*                what is saved so; a checkpoint of transformers' own layout goes the way of transformers
    _save                  no pickled training_args.bin
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, astuple
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput

from tunesmith.checkpoints.states import has_tree, load_tree, save_tree
from tunesmith.core.files import write_json
from tunesmith.data.streaming.samples import SampleStream
from tunesmith.models.attention import Bounds
from tunesmith.models.chat_template import save_model
from tunesmith.train.callbacks.log_file import sync_log
from tunesmith.train.checkpoint import STATE
from tunesmith.train.control import ControlSettings, Stopping
from tunesmith.train.evaluation import evaluate_rows, full_eval_dtype
from tunesmith.train.generations import Generations, GenerationSettings
from tunesmith.train.loaders import arrived, evaluation_loader, stream_loader, training_loader
from tunesmith.train.nonfinite import NonFinite, NonFiniteSettings, assert_finite
from tunesmith.train.optimizer_in_backward import StepInBackward
from tunesmith.train.optimizers.schedule import making_schedule
from tunesmith.train.ranks import over_ranks
from tunesmith.train.refusals import making_optimizer, naming_overflow, unknown_metric, weights_fit
from tunesmith.train.resumed import Resumed
from tunesmith.train.sampler import RankBatchSampler, is_blank
from tunesmith.train.saving import Saver, SavingSettings, best_folder
from tunesmith.train.states import (
    callback_states,
    copied_where_trained,
    first_groups,
    load_optimizer,
    loss_to_tell,
    optimizer_trees,
    process_name,
    process_state,
    restore_process,
    show_average,
    size_to_save,
)
from tunesmith.train.step_memory import MemorySettings, StepMemory
from tunesmith.train.stream_batches import StreamBatches
from tunesmith.train.throughput import BadMedia, Throughput
from tunesmith.train.trackers import Trackers
from tunesmith.train.weights import take_weights
from tunesmith.train.whole_step import settle_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.data import DataLoader
    from transformers import TrainerCallback, TrainingArguments

    from tunesmith.objectives import LossOutput, Objective
    from tunesmith.train.optimizers.make import OptimizerSettings

__all__ = ["Trainer"]


class Trainer(transformers.Trainer):
    """`objective` decides the loss; the datasets are TokenDatasets (`.lengths`, rows of arrays), the one for training
    also a SampleStream. `position`: where the stream goes on. `memory`: what it does for steps to fit. `control`: how
    it is stopped. `nonfinite`: what becomes of steps that are not finite. `peak_flops`: of one device, None where
    unknown. `optimizer_in_bwd`: the optimizer steps in the backward pass (optimizer_in_backward.py). `generations`: how
    evaluations answer their rows, None where they do not (generations.py).
    `on_event(kind, **facts)`: hears what belongs into the record of the run."""

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        objective: Objective,
        collate: Callable[[list[Any]], dict[str, Tensor]],
        train_dataset: Any = None,
        eval_dataset: Any = None,
        tokenizer: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        order: str = "random",
        position: Mapping[str, Any] | None = None,
        memory: MemorySettings | None = None,
        control: ControlSettings | None = None,
        nonfinite: NonFiniteSettings | None = None,
        optimizer: OptimizerSettings | None = None,
        peak_flops: float | None = None,
        saving: SavingSettings | None = None,
        generations: GenerationSettings | None = None,
        on_event: Callable[..., None] | None = None,
    ) -> None:
        self.throughput = Throughput(peak=peak_flops, processes=args.world_size, objective=objective)
        use_cache = (text := model.config.get_text_config()).use_cache
        super().__init__(
            model=model,
            args=args,
            data_collator=collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=[self.throughput, Resumed(self._take_up), *(callbacks or ())],
        )
        assert self.args.n_gpu <= 1, "one process per device"
        text.use_cache = use_cache  # training passes its own; the config is saved as it was
        self.remove_callback(PrinterCallback)
        self.trackers = Trackers(self.callback_handler)
        self.objective, self.order = objective, order
        self._position = position
        self.stream_batches: StreamBatches | None = None
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the units of the whole step
        self.model_accepts_loss_kwargs = True  # what older releases ask instead
        self.optimizer_settings = optimizer
        self._in_backward: StepInBackward | None = None
        self.on_event = on_event
        self.memory = StepMemory(self, memory or MemorySettings())
        self.sampler: RankBatchSampler | None = None  # of the training rows, unless they are a stream
        self._evaluated: tuple[int, dict[str, float] | None] = (-1, None)
        self.saver = Saver(saving or SavingSettings(), self._over_ranks, main=args.should_save)
        self._first_groups: list[dict[str, Any]] = []
        self._seconds_before = 0.0
        self._checkpoint: Path | None = None
        self._whole_loss = False  # the sum of losses is that of all steps, not only of this session
        self.stopping = Stopping(self, control or ControlSettings(), self._over_ranks)
        self.add_callback(self.stopping)
        self.nonfinite = NonFinite(self, nonfinite or NonFiniteSettings(), self._over_ranks)
        self.generations = None if generations is None else Generations(self, generations)
        self._lost: Callable[[], None] = lambda: None

    @property
    def tokens_in_this_session(self) -> int:
        """Tokens trained on since `train()` was called, all ranks together, padding left out."""
        return int(self.state.num_input_tokens_seen - self._initial_num_input_tokens_seen)

    # ---- rows to micro-batches ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        if isinstance(self.train_dataset, SampleStream):
            made = stream_loader(self.train_dataset, self.args, self.data_collator, self.order, self._position)
            self.stream_batches = made[1]
            return made[0]
        rows = training_loader(self.train_dataset, self.args, self.data_collator, self.order)
        self.sampler = rows.batch_sampler  # type: ignore[assignment]
        return rows

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        return evaluation_loader(rows, self.args, self.data_collator)

    def _build_accelerator_args(self, **settings: Any) -> dict[str, Any]:
        found: dict[str, Any] = super()._build_accelerator_args(**settings)
        if self.args.torch_compile:
            found["dynamo_plugin"].dynamic = True
        return found

    # ---- sums and units ----

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The micro-batches of one optimizer step, and the units in them over all ranks; none where training ends."""
        kind = torch.float64 if device.type != "mps" else torch.float32
        if self.control.should_training_stop:  # the evaluation that was made again ended it
            return [], torch.ones((), dtype=kind, device=device)
        before = None if (stream := self.stream_batches) is None else stream.at
        with self.throughput.waiting():
            batches = self.stopping.fetch(lambda: [*map(arrived, islice(epoch_iterator, num_batches))])
        self.saver.look()
        with self.throughput.paused():
            self.throughput.sums.begin()
            self.memory.probe_once(self.sampler, super().training_step)
        batches = settle_step(self, batches)
        units = sum(self.objective.count_units(batch) for batch in batches)
        work = self.throughput.work_of(self.model, [batch for batch in batches if not is_blank(batch)])
        numbers = [units, self.memory.is_new(batches), *self.stopping.wanted(), *work]
        units, new, save, stop, *counts = self._over_ranks(numbers).sum(0).tolist()
        with nullcontext() if stream is None else stream.placed(before):
            self.stopping.before_step(save, stop)
        self._count(work.flops, counts, 0 if self.nonfinite.begin(batches) else 1)
        self.memory.begin(new=bool(new))
        return batches, torch.tensor(units if units > 0 else 1.0, dtype=kind, device=device)

    def _count(self, flops: float, counts: list[float], sign: int) -> None:
        """The work of a step; `sign` -1: what was counted is taken back, with what is logged of its loss."""
        self.current_flos += sign * flops
        self.throughput.add([sign * count for count in counts])
        self.state.num_input_tokens_seen += sign * int(counts[0])  # saved, so that a resumed run counts on
        before = self._tr_loss.clone()

        def take_back() -> None:
            if sign:
                self._count(flops, counts, -sign)
            self._tr_loss.copy_(before)

        self._lost = take_back

    def _leave_out(self) -> None:
        """The step that was begun trains nothing. It is no step for the mean of losses that is logged."""
        self._lost()
        self.model.zero_grad()
        self.accelerator.gradient_state._set_sync_gradients(False)  # accelerate's optimizer does nothing then
        self._globalstep_last_logged += 1
        self._initial_global_step += 1

    def output_of(self, model: Any, batch: Any, find: Callable[[Any, Any], Any] | None = None) -> Any:
        """The LossOutput of a batch, or what else is to be found in it, in the arithmetic of training."""
        with self.compute_loss_context_manager():
            return (find or self._computed)(model, self._prepare_inputs(batch))

    def _over_ranks(self, numbers: list[float]) -> np.ndarray:
        """[N] numbers of this process -> [ranks, N]."""
        return over_ranks(self.accelerator, numbers)

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        if self.nonfinite.leaves_out:
            return torch.zeros((), device=self.args.device)
        with self.throughput.computing():
            loss = self.memory.step(model, inputs, num_items_in_batch, super().training_step)
        self.nonfinite.note(loss)
        return loss

    def _prepare_inputs(self, inputs: Any) -> Any:
        with self.throughput.waiting():
            return super()._prepare_inputs(inputs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Loss sum over the units of the step. DDP averages gradients over ranks: hence the factor."""
        assert not return_outputs, "evaluation has its own loop"
        output = self.throughput.sums.add(self._computed(model, inputs))
        return output.loss_sum * self.args.world_size / num_items_in_batch

    def _computed(self, model: Any, inputs: Any) -> LossOutput:
        if self.args.torch_compile and "bounds" in inputs:
            inputs = {**inputs, "bounds": Bounds(inputs["bounds"])}
        with naming_overflow(self.state.global_step + 1):
            return self.objective.compute(model, inputs)

    def _clip_grad_norm(self, model: Any) -> Any:
        return None if self.nonfinite.leaves_out else super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if self.nonfinite.leaves_out:
            return self._leave_out()
        ours = self._in_backward
        norm = super()._get_grad_norm(model, grad_norm=grad_norm) if ours is None else ours.take_norm()
        if self._scaler_can_give_way():
            return norm
        if not self.nonfinite.judge(norm, in_backward=ours is not None):
            self.memory.train.take_back()
            return self._leave_out()
        return norm

    def _scaler_can_give_way(self) -> bool:
        """fp16 scales the loss up to keep small gradients. Where that overflows, the scaler leaves the step out and
        halves its factor: no divergence until there is nothing left to halve."""
        scaler = getattr(self.accelerator, "scaler", None)
        return scaler is not None and scaler.get_scale() > 1

    def create_optimizer(self, *arguments: Any) -> Any:
        settings = self.optimizer_settings
        with making_optimizer(self.args.optim):
            if settings is not None and self.optimizer is None:
                settings.give(self, arguments[0] if arguments else self.model)
            optimizer = super().create_optimizer(*arguments)
        if settings is not None and settings.in_backward and self._in_backward is None:
            self._in_backward = StepInBackward(optimizer)
        self._first_groups = first_groups(optimizer)
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        with making_schedule(self.args, num_training_steps):
            return super().create_scheduler(num_training_steps, optimizer)

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Counted in get_batch_samples, over all ranks and without padding."""

    def floating_point_ops(self, inputs: Any) -> int:
        """None of a micro-batch: those of the whole step are counted in get_batch_samples."""
        return 0

    # ---- evaluation ----

    @torch.no_grad()
    def evaluation_loop(
        self,
        dataloader: DataLoader[Any],
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Loss and metrics as sums over all true rows of all ranks, divided once by the units."""
        show_average(self.optimizer)
        self.callback_handler.eval_dataloader = dataloader
        metrics = evaluate_rows(self, dataloader, metric_key_prefix)
        rows = len(dataloader.dataset)  # type: ignore[arg-type]
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=rows)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        with self.throughput.paused():
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        self._evaluated = (self.state.global_step, metrics)
        wrong = unknown_metric(self.args.metric_for_best_model, metrics)
        if eval_dataset is None and self.is_in_train and wrong is not None:
            raise wrong
        return metrics

    def last_evaluation(self) -> dict[str, float] | None:
        """Metrics of the weights as they are now, if they were evaluated already."""
        step, metrics = self._evaluated
        unchanged = step == self.state.global_step and not self.args.load_best_model_at_end
        return metrics if unchanged and full_eval_dtype(self.args) is None else None

    def prepare_evaluation(self) -> Any:
        """The model with autocast as in training. Without a training run before, it has to be prepared, once."""
        model = self._wrap_model(self.model, training=False)
        if model is self.model and not self.accelerator._models:
            model = self.model_wrapped = self.accelerator.prepare_model(model, evaluation_mode=True)
        return model

    # ---- log and files ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs["tokens"] = self.state.num_input_tokens_seen
            logs |= self.throughput.event(self._over_ranks)
        elif "train_runtime" in logs:
            logs |= self.throughput.closing(self._over_ranks)
            if self._whole_loss:
                steps = max(self.state.global_step - self.nonfinite.steps_left_out, 1)
                logs["train_loss"] = self._total_loss_scalar / steps
        if not math.isfinite(logs.get("grad_norm", 0.0)):  # a step that the scaler of fp16 left out
            del logs["grad_norm"]
        super().log(logs, start_time)

    def _save_checkpoint(self, *_arguments: Any, **_keywords: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        show_average(self.optimizer)
        with self.throughput.paused(), self.memory.told_of_save():
            self.store_flos()
            before = self.state.best_model_checkpoint
            best = best_folder(self.state, Path(self.args.output_dir))
            self.state.best_model_checkpoint = before if best is None else str(best)
            if not self.saver.save(self, folder, self.state.global_step, best):
                self.state.best_model_checkpoint = before

    def save_here(self) -> str:
        """A checkpoint of the last step, committed. Returns its name."""
        self._save_checkpoint()
        self.saver.wait()
        self.control = self.callback_handler.on_save(self.args, self.state, self.control)
        return f"checkpoint-{self.state.global_step}"

    def write_small_states(self, folder: Path) -> None:
        rank = self.args.process_index
        if not self.saver.settings.only_model:
            told = float(self._tr_loss), self.throughput.sums.to_tell()
            save_tree(folder, process_name(rank), process_state(self.args.device, *told))
        if not self.is_world_process_zero():
            return
        sync_log(Path(self.args.output_dir))
        self.state.stateful_callbacks = callback_states([*self.callback_handler.callbacks, self.control])
        self.state.save_to_json(str(folder / STATE))
        if self.saver.settings.only_model:
            return
        step, evaluated = self._evaluated
        progress = {
            "seconds": self._seconds_before + self.throughput.totals().seconds,
            "logged": self._globalstep_last_logged,
            "loss": self._total_loss_scalar,
            "bad_media": astuple(self.throughput.bad_media),
            "evaluated": evaluated if step == self.state.global_step else None,
        }
        save_tree(folder, "progress", progress)
        for name, content in (self.stopping.states() | self.nonfinite.states()).items():
            write_json(folder / name, content)
        self.memory.save(folder)
        if self.stream_batches is not None:
            self.stream_batches.save(folder, self.state.global_step)

    def large_states(self) -> dict[str, Any]:
        return optimizer_trees(self.optimizer, self.lr_scheduler, self.accelerator.scaler, self._first_groups)

    def weights_to_save(self) -> dict[str, Tensor]:
        return copied_where_trained(self.accelerator.unwrap_model(self.model), self.optimizer)

    def write_weights(self, folder: Path, weights: Mapping[str, Any] | None = None) -> None:
        self.save_model(str(folder), _internal_call=True) if weights is None else self._save(str(folder), dict(weights))

    def bytes_to_save(self) -> int:
        return size_to_save(self.accelerator.unwrap_model(self.model), self.optimizer)

    def save_state(self) -> None:
        if self.is_world_process_zero():
            write_json(Path(self.args.output_dir) / STATE, asdict(self.state))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        self._checkpoint = Path(resume_from_checkpoint)
        with weights_fit(resume_from_checkpoint):
            if not take_weights(self.accelerator.unwrap_model(model or self.model), resume_from_checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        best = self.state.best_model_checkpoint
        if best is None or not take_weights(self.accelerator.unwrap_model(self.model), best):
            super()._load_best_model()

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or not has_tree(Path(checkpoint), "optimizer"):
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            parts = self.optimizer, self.lr_scheduler, self.accelerator.scaler
            load_optimizer(Path(checkpoint), *parts, self.args.device)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """With the optimizer, unless the checkpoint is of transformers' own layout."""
        if checkpoint is not None and not has_tree(Path(checkpoint), "optimizer"):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None or not has_tree(Path(checkpoint), "progress"):
            super()._load_rng_state(checkpoint)
        else:
            restore_process(Path(checkpoint), self.args.process_index, self.args.device)

    def _init_training_state(self, *arguments: Any, **keywords: Any) -> tuple[int, int]:
        epochs, batches = super()._init_training_state(*arguments, **keywords)
        # transformers would train a step beyond the last one before it looks
        return (sys.maxsize, 0) if self.state.global_step >= self.state.max_steps else (epochs, batches)

    def _take_up(self) -> None:
        """Sums of losses go on where they were: a log tells the mean of all steps since the one before."""
        if self._checkpoint is None or not has_tree(self._checkpoint, "progress"):
            return
        progress = load_tree(self._checkpoint, "progress")
        self._total_loss_scalar, self._globalstep_last_logged = progress["loss"], progress["logged"]
        self._seconds_before = progress["seconds"]
        self._whole_loss = True
        self.throughput.bad_media = BadMedia(*progress.get("bad_media", ()))
        if progress["evaluated"] is not None:
            self._evaluated = (self.state.global_step, progress["evaluated"])
        place = self._checkpoint, self.args.process_index, self.args.world_size
        self._tr_loss += loss_to_tell(*place)
        self.throughput.sums.take_up(*place)

    def evaluate_again(self, checkpoint: str, *, save: bool) -> Any:
        """The evaluation after the last step of the checkpoint, and what follows it. `save`: a checkpoint does."""
        self._load_rng_state(checkpoint)  # later otherwise; the checkpoint that is saved here has to hold it
        self.control.should_evaluate, self.control.should_save = True, save
        self._maybe_log_save_evaluate(self._tr_loss, None, self.model_wrapped, None, self.state.epoch, None, 0.0)
        return self.control

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        model = self.accelerator.unwrap_model(self.model)
        assert_finite(model)
        save_model(model, folder, state_dict)
        self.saver.put_beside(folder, self.processing_class)
