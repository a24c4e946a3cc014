"""RunConfig and RunPlan -> transformers' TrainingArguments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.config.optimizer_facts import OPTIMIZERS, optimizer_of, steps_in_backward
from tunesmith.core import env
from tunesmith.core.errors import ConfigError, MachineError, Problem

if TYPE_CHECKING:
    from transformers import Seq2SeqTrainingArguments

    from tunesmith.config import RunConfig, RunPlan

__all__ = ["training_arguments"]


def training_arguments(config: RunConfig, plan: RunPlan) -> Seq2SeqTrainingArguments:
    """What the user asked for, under what the Trainer relies on. Raises ConfigError with transformers' own words
    where it refuses a combination, MachineError where a package to report to is missing."""
    from accelerate.utils import TorchDynamoPlugin
    from transformers import Seq2SeqTrainingArguments

    try:
        arguments = Seq2SeqTrainingArguments(**{**config.train.hf, **_relied_on(config, plan)})
        if arguments.torch_compile:  # checked much later otherwise
            TorchDynamoPlugin(backend=arguments.torch_compile_backend, mode=arguments.torch_compile_mode)
    except (ValueError, TypeError, ImportError) as error:  # TypeError: a key that this release does not have
        raise ConfigError(
            Problem(
                "E-TRAIN-002",
                "transformers refuses these training arguments",
                got=" ".join(str(error).split()),
                fix="change the key that the message names",
            )
        ) from error
    _check_reporters(list(arguments.report_to or ()))
    return arguments


def _watches(config: RunConfig) -> bool:
    hf = config.train.hf
    stops = bool(config.objective.early_stopping_steps) or hf.get("save_strategy") == "best"
    by_metric = hf.get("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy")
    return stops or by_metric or bool(hf.get("load_best_model_at_end"))


def _loss_to_watch(config: RunConfig) -> str:
    """A loss that counts least where the model is surely wrong tells nothing of which model is best."""
    objective = config.objective
    weighs = objective.stage == "sft" and (objective.use_dft_loss or objective.use_asft_loss or objective.use_eaft_loss)
    return "nll_loss" if weighs else "loss"


# Not in transformers' list of what is installed, though it may be.
_UNLISTED = {"azure_ml", "flyte"}


def _check_reporters(names: list[str]) -> None:
    from transformers.integrations import get_available_reporting_integrations

    installed = get_available_reporting_integrations()
    if missing := [name for name in names if name not in installed and name not in _UNLISTED]:
        raise MachineError(
            Problem(
                "E-TRAIN-011",
                f"report_to names {', '.join(missing)}, which is not installed",
                where="report_to",
                fix=f"pip install {' '.join(missing)}, or report_to: none",
            )
        )


def _relied_on(config: RunConfig, plan: RunPlan) -> dict[str, Any]:
    relied: dict[str, Any] = {
        "output_dir": plan.output_dir,
        "seed": plan.seed,
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,  # it hides a NaN in the log
        "push_to_hub": False,  # uploads are our own; see uploads.py
        "save_total_limit": None,  # checkpoints are rotated by checkpoints/store.py
        "auto_find_batch_size": False,  # it would begin the run anew, with smaller steps; see step_memory.py
        "disable_tqdm": True,  # our own progress display
        "use_cpu": plan.device == "cpu",
        "bf16": plan.autocast == "bfloat16",
        "fp16": plan.autocast == "float16",
    }
    hf = config.train.hf
    relied |= _for_the_optimizer(config)
    if config.train.logging_dir:
        env.set_default("TENSORBOARD_LOGGING_DIR", config.train.logging_dir)  # the only way that transformers has left
    if "report_to" not in hf:
        relied["report_to"] = "none"
    if _watches(config) and "metric_for_best_model" not in hf:
        relied["metric_for_best_model"] = _loss_to_watch(config)
    if plan.world_size == 1:
        relied["ddp_backend"] = None  # accelerate looks for the other processes where it is given
    if plan.world_size > 1 and "ddp_find_unused_parameters" not in hf:
        relied["ddp_find_unused_parameters"] = False
    return relied


def _for_the_optimizer(config: RunConfig) -> dict[str, Any]:
    """What transformers is told where the optimizer is our own (optimizers/make.py): a name that it knows."""
    value, facts, relied = config.train.value, optimizer_of(config), {}
    if OPTIMIZERS[str(value("optim"))].ours:
        relied["optim"] = "adamw_torch"
    if facts.ours:
        relied["optim_args"] = None
    if steps_in_backward(config) and "max_grad_norm" not in config.values:
        relied["max_grad_norm"] = 0.0  # there is no norm of all gradients to clip by
    if facts.averages and value("warmup_steps") and value("lr_scheduler_type") == "constant":
        relied["lr_scheduler_type"] = "constant_with_warmup"
    return relied
