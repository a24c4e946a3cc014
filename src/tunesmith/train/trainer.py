"""The one Trainer: transformers' loop around our objectives, batches, sums and evaluation.

What is overridden, and why:
    get_train_dataloader   rows of a step do not depend on ranks or micro-batches (sampler.py, stream_batches.py)
    get_batch_samples      counts the units of a whole optimizer step, over micro-batches and ranks; what stops a stream
                           loses no step; before the first step, does the largest micro-batch fit?
    training_step          in parts that memory has room for (step_memory.py); timed, as are _prepare_inputs and
                           _save_checkpoint (throughput.py)
    floating_point_ops     transformers counts 6 for each weight and position; get_batch_samples counts what is needed
    _save_rng_state        the place in a stream, and what memory had room for, are saved with the states of chance
    compute_loss           sum over units, divided once by those units
    _get_grad_norm         a norm that is not finite stops the run before the optimizer steps; with steps in backward
                           the norm is that of the gradients used there
    create_optimizer       a missing package or a contradiction is an error with a fix; steps in the backward pass
    evaluation_loop        sums over true rows; transformers averages batch means and repeats rows on several ranks
    evaluate               a metric to watch that no evaluation has is an error, not a late KeyError or a silence
    _build_accelerator_args  torch.compile makes graphs for any length, not one for each
    _track_num_input_tokens, log  tokens without padding are counted in get_batch_samples; throughput.py tells the speed
    _save                  no pickled training_args.bin
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PrinterCallback
from transformers.trainer_utils import EvalLoopOutput

from tunesmith.core.errors import DivergedError, MachineError, Problem, TunesmithError, UsageError
from tunesmith.core.log import get_logger
from tunesmith.data.streaming.samples import SampleStream
from tunesmith.models.attention import Bounds
from tunesmith.models.chat_template import make_savable, save_beside_adapter
from tunesmith.train.optimizer_in_backward import StepInBackward
from tunesmith.train.sampler import BlankableDataset, EpochDataLoader, RankBatchSampler, is_blank
from tunesmith.train.step_memory import MemorySettings, StepMemory
from tunesmith.train.stream_batches import StreamBatches, StreamLoader
from tunesmith.train.throughput import Throughput

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.utils.data import DataLoader
    from transformers import TrainerCallback, TrainingArguments

    from tunesmith.objectives import LossOutput, Objective

__all__ = ["Trainer"]


class Trainer(transformers.Trainer):
    """`objective` decides the loss; the datasets are TokenDatasets (`.lengths`, rows of arrays), the one for training
    also a SampleStream. `position`: where the stream goes on. `memory`: what it does for steps to fit.
    `peak_flops`: of one device, None where unknown. `optimizer_in_bwd`: the optimizer steps in the backward pass
    (optimizer_in_backward.py)."""

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
        optimizer_in_bwd: bool = False,
        peak_flops: float | None = None,
    ) -> None:
        self.throughput = Throughput(peak=peak_flops, processes=args.world_size)
        use_cache = model.config.use_cache
        super().__init__(
            model=model,
            args=args,
            data_collator=collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=tokenizer,
            callbacks=[self.throughput, *(callbacks or ())],
        )
        assert self.args.n_gpu <= 1, "one process per device"
        model.config.use_cache = use_cache  # training passes its own; the config is saved as it was
        self.remove_callback(PrinterCallback)
        self.objective = objective
        self.order = order
        self._position = position
        self._stream_batches: StreamBatches | None = None
        self.loss_is_scaled_for_ga = True  # compute_loss divides by the units of the whole step
        self.model_accepts_loss_kwargs = True  # what older releases ask instead
        self.optimizer_in_bwd = optimizer_in_bwd
        self._in_backward: StepInBackward | None = None
        self.memory = StepMemory(self, memory or MemorySettings())
        self._sampler: RankBatchSampler | None = None  # of the training rows, unless they are a stream
        self._evaluated: tuple[int, dict[str, float] | None] = (-1, None)

    @property
    def tokens_in_this_session(self) -> int:
        """Tokens trained on since `train()` was called, all ranks together, padding left out."""
        return int(self.state.num_input_tokens_seen - self._initial_num_input_tokens_seen)

    # ---- rows to micro-batches ----

    def get_train_dataloader(self) -> DataLoader[Any]:
        args = self.args
        rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        seed = args.data_seed if args.data_seed is not None else args.seed
        sampling = {"order": self.order, "seed": seed, "step_rows": rows}
        if isinstance(self.train_dataset, SampleStream):
            return self._stream_loader(self.train_dataset, **sampling)
        size = args.per_device_train_batch_size
        loader = self._loader(self.train_dataset, size, drop_last=args.dataloader_drop_last, **sampling)
        self._sampler = loader.batch_sampler  # type: ignore[assignment]
        return loader

    def _stream_loader(self, stream: SampleStream, **sampling: Any) -> DataLoader[Any]:
        args = self.args
        passed = 0 if self._position is None else self._position["step"] * args.gradient_accumulation_steps
        self._stream_batches = StreamBatches(
            stream,
            self.data_collator,
            batch_size=args.per_device_train_batch_size,
            total=args.max_steps * args.gradient_accumulation_steps,
            rank=args.process_index,
            world_size=args.world_size,
            position=self._position,
            passed=passed,
            **sampling,
        )
        return StreamLoader(self._stream_batches, pin_memory=args.dataloader_pin_memory and args.device.type == "cuda")

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        return self._loader(
            self.eval_dataset if eval_dataset is None else eval_dataset, self.args.per_device_eval_batch_size
        )

    def _loader(self, dataset: Any, batch_size: int, **sampling: Any) -> DataLoader[Any]:
        args = self.args
        sampler = RankBatchSampler(
            dataset.lengths, batch_size, rank=args.process_index, world_size=args.world_size, **sampling
        )
        return EpochDataLoader(
            BlankableDataset(dataset),  # type: ignore[arg-type]
            batch_sampler=sampler,  # type: ignore[arg-type]
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory and args.device.type == "cuda",
            prefetch_factor=args.dataloader_prefetch_factor,
            persistent_workers=args.dataloader_persistent_workers,
            generator=torch.Generator(),  # seeds of workers; the global generator stays untouched
        )

    def _build_accelerator_args(self, **settings: Any) -> dict[str, Any]:
        found: dict[str, Any] = super()._build_accelerator_args(**settings)
        if self.args.torch_compile:
            found["dynamo_plugin"].dynamic = True
        return found

    # ---- sums and units ----

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """The micro-batches of one optimizer step, and the units in them over all ranks."""
        with self.throughput.waiting():
            batches = self._next_batches(epoch_iterator, num_batches)
        with self.throughput.paused():
            self.memory.probe_once(self._sampler, super().training_step)
        units = sum(self.objective.count_units(batch) for batch in batches)
        work = self.throughput.work_of(self.model, [batch for batch in batches if not is_blank(batch)])
        self.current_flos += work.flops
        units, new, *counts = self._over_ranks([units, self.memory.is_new(batches), *work]).sum(0).tolist()
        self.throughput.add(counts)
        self.state.num_input_tokens_seen += int(counts[0])  # saved with the state, so a resumed run counts on
        self.memory.begin(new=bool(new))
        kind = torch.float64 if device.type != "mps" else torch.float32
        return batches, torch.tensor(units if units > 0 else 1.0, dtype=kind, device=device)

    def _over_ranks(self, numbers: list[float]) -> np.ndarray:
        """[N] numbers of this process -> [ranks, N]. One process asks no device."""
        if self.args.world_size == 1:
            return np.asarray([numbers])
        device = self.args.device
        kind = torch.float64 if device.type != "mps" else torch.float32
        return np.asarray(self.accelerator.gather(torch.tensor([numbers], dtype=kind, device=device)).tolist())

    def _next_batches(self, iterator: Iterator[Any], number: int) -> list[Any]:
        """Where a stream comes to rows that stop the run, what was trained so far is saved first."""
        stream = self._stream_batches
        before = None if stream is None else stream.at
        try:
            return [batch for _, batch in zip(range(number), iterator, strict=False)]
        except TunesmithError:
            if stream is not None and before is not None:
                stream.at = before  # batches of the step that is not made were not trained on
                self._save_checkpoint(self.model_wrapped, trial=None)
                where = f"checkpoint-{self.state.global_step}"
                get_logger().warning("saved %s: once the rows are mended, the same command goes on there", where)
            raise

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        with self.throughput.computing():
            return self.memory.step(model, inputs, num_items_in_batch, super().training_step)

    def _prepare_inputs(self, inputs: Any) -> Any:
        with self.throughput.waiting():
            return super()._prepare_inputs(inputs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        """Loss sum over the units of the step. DDP averages gradients over ranks: hence the factor."""
        assert not return_outputs, "evaluation has its own loop"
        output = self._computed(model, inputs)
        return output.loss_sum * self.args.world_size / num_items_in_batch

    def _computed(self, model: Any, inputs: Any) -> LossOutput:
        if self.args.torch_compile and "bounds" in inputs:
            inputs = {**inputs, "bounds": Bounds(inputs["bounds"])}
        try:
            return self.objective.compute(model, inputs)
        except ValueError as error:
            if "DebugUnderflowOverflow" not in str(error):  # of `debug: underflow_overflow`
                raise
            raise DivergedError(
                Problem(
                    "E-TRAIN-012",
                    "a module computed inf or nan",
                    where=f"step {self.state.global_step + 1}; the lines above show the modules up to that one",
                    fix="look at the module's inputs and weights; lower learning_rate, or use bf16 instead of fp16",
                )
            ) from error

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if self._in_backward is not None:
            norm = self._in_backward.take_norm()
        else:
            norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if self._scaler_can_give_way():
            return norm
        if not torch.isfinite(torch.as_tensor(norm)).all():
            raise DivergedError(self._diverged(float(norm)))
        return norm

    def _diverged(self, norm: float) -> Problem:
        """Weights that were never finite are another matter than a learning rate that is too high."""
        step = self.state.global_step + 1
        if self._in_backward is not None:
            what, got = "the gradient is not finite: training has diverged", f"gradient norm {norm}"
            where = f"step {step}; optimizer_in_bwd has changed weights by it: the last checkpoint is what is whole"
            return Problem("E-TRAIN-003", what, where, got, "lower learning_rate, add warmup_steps")
        parameters = self.model.named_parameters()
        broken = next((name for name, weight in parameters if not torch.isfinite(weight).all()), None)
        if step == 1 and broken is not None:
            what = "the model came with weights that are not finite"
            return Problem("E-TRAIN-015", what, f"weight {broken}", fix="get the model again, or use an earlier one")
        return Problem(
            "E-TRAIN-003",
            "the gradient is not finite: training has diverged",
            where=f"step {step}; the weights are still those of the step before",
            got=f"gradient norm {norm}",
            fix="lower learning_rate, add warmup_steps, or use bf16 instead of fp16",
        )

    def _scaler_can_give_way(self) -> bool:
        """fp16 scales the loss up to keep small gradients. Where that overflows, the scaler leaves the step out and
        halves its factor: no divergence until there is nothing left to halve."""
        scaler = getattr(self.accelerator, "scaler", None)
        return scaler is not None and scaler.get_scale() > 1

    def create_optimizer(self, *arguments: Any) -> Any:
        try:
            optimizer = super().create_optimizer(*arguments)
        except (ImportError, ValueError, TypeError, NotImplementedError) as error:
            missing = isinstance(error, ImportError)
            kind = MachineError if missing else UsageError
            raise kind(
                Problem(
                    "E-TRAIN-010" if missing else "E-TRAIN-002",
                    "the optimizer cannot be made",
                    where=f"optim: {getattr(self.args.optim, 'value', self.args.optim)}",
                    got=str(error),
                    fix="install the package, or leave optim out" if missing else "change the key that is named",
                )
            ) from error
        if self.optimizer_in_bwd and self._in_backward is None:
            self._in_backward = StepInBackward(optimizer)
        return optimizer

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
        model = self.prepare_evaluation()
        if (dtype := self._evaluation_dtype()) and not self.is_in_train:
            model = model.to(dtype)
        model.eval()
        self.callback_handler.eval_dataloader = dataloader
        names: list[str] = []

        def run(batch: Any) -> Tensor:
            with self.compute_loss_context_manager():
                output = self._computed(model, self._prepare_inputs(batch))
            found = {"loss": output.loss_sum, "units": output.units, "count": output.count, **output.metrics}
            names[:] = sorted(found)
            return torch.stack([found[name].double().cpu() for name in names])

        sums: Any = 0
        for batch in dataloader:
            sums = sums + self.memory.evaluate(batch, run)
            self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        totals = self.accelerator.reduce(sums.to(self.args.device))
        total = dict(zip(names, totals.tolist(), strict=True))
        loss, units, count = (total.pop(name) for name in ("loss", "units", "count"))
        means = {"loss": loss / (units or 1), **{name: value / (count or 1) for name, value in total.items()}}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        metrics[f"{metric_key_prefix}_{self.objective.unit}"] = count
        rows = len(dataloader.dataset)  # type: ignore[arg-type]
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=rows)

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        with self.throughput.paused():
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        self._evaluated = (self.state.global_step, metrics)
        if eval_dataset is None and self.is_in_train:
            self._check_watched_metric(metrics)
        return metrics

    def _check_watched_metric(self, metrics: dict[str, float]) -> None:
        watched = self.args.metric_for_best_model
        if watched and f"eval_{watched.removeprefix('eval_')}" not in metrics:
            names = [name.removeprefix("eval_") for name in metrics if name.endswith(("loss", "accuracy"))]
            raise UsageError(
                Problem(
                    "E-TRAIN-013",
                    "the metric to watch is none of the evaluation's",
                    where="metric_for_best_model",
                    got=watched,
                    fix=f"metric_for_best_model: {' or '.join(names)}",
                )
            )

    def _evaluation_dtype(self) -> torch.dtype | None:
        """What evaluation after training (never during it) converts the weights to."""
        return torch.float16 if self.args.fp16_full_eval else torch.bfloat16 if self.args.bf16_full_eval else None

    def last_evaluation(self) -> dict[str, float] | None:
        """Metrics of the weights as they are now, if they were evaluated already."""
        step, metrics = self._evaluated
        unchanged = step == self.state.global_step and not self.args.load_best_model_at_end
        return metrics if unchanged and self._evaluation_dtype() is None else None

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
        if not math.isfinite(logs.get("grad_norm", 0.0)):  # a step that the scaler of fp16 left out
            del logs["grad_norm"]
        super().log(logs, start_time)

    def _save_checkpoint(self, *arguments: Any, **keywords: Any) -> None:
        with self.throughput.paused():
            super()._save_checkpoint(*arguments, **keywords)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.is_world_process_zero():
            self.memory.save(Path(output_dir))
        if self._stream_batches is not None and self.is_world_process_zero():
            self._stream_batches.save(Path(output_dir), self.state.global_step)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not self.args.should_save:
            return
        folder = output_dir or self.args.output_dir
        model = self.accelerator.unwrap_model(self.model)
        make_savable(model)
        model.save_pretrained(folder, state_dict=state_dict)
        save_beside_adapter(model, folder)
        if self.processing_class is not None:
            self.processing_class.save_pretrained(folder)
