"""The training arguments of transformers, read from a generated list, so that transformers need not be imported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith.config.fields import Mark
from tunesmith.config.optimizer_facts import OUR_OPTIMS

__all__ = ["LIST", "Argument", "arguments"]

LIST = Path(__file__).with_name("hf_training_arguments.json")


@dataclass(frozen=True, slots=True)
class Argument:
    """One training argument: plain type names (bool, int, float, str, list, dict, object), default and mark."""

    name: str
    types: tuple[str, ...]
    nullable: bool
    default: Any
    choices: tuple[str, ...]
    mark: Mark


_FSDP = "sharded training (FSDP)"
_SUMS = "evaluation adds up sums and keeps no predictions"

_LATER = {
    "deepspeed": "DeepSpeed",
    "fsdp": _FSDP,
    "fsdp_config": _FSDP,
    "parallelism_config": "parallelism beyond data",
    "dataloader_multiprocessing_context": "choosing how processes of the data loader start",
    "generation_num_beams": "beam search",
    "generation_config": "a generation config of its own (see `temperature`, `top_p`, `max_new_tokens`)",
    "generation_max_length": "a length of its own for predictions (see `max_new_tokens`)",
}
_NEVER = {
    "liger_kernel_config": "`enable_liger_kernel: true` takes all kernels but the loss: leave the key out",
    "label_names": "labels are made from the chat's structure: leave the key out",
    "accelerator_config": "rows are dealt to the processes by a sampler of our own: leave the key out",
    "optim_target_modules": "`galore_target` and `apollo_target` name the modules: leave the key out",
}
_IGNORED = {
    "average_tokens_across_devices": "the loss is always divided by the tokens of all devices",
    "remove_unused_columns": "batches hold only what the model needs",
    "logging_nan_inf_filter": "a loss that is not finite stops the run and is never filtered",
    "prediction_loss_only": _SUMS,
    "include_for_metrics": _SUMS,
    "batch_eval_metrics": _SUMS,
    "eval_do_concat_batches": _SUMS,
    "eval_use_gather_object": _SUMS,
    "eval_accumulation_steps": _SUMS,
    "dataloader_in_order": "batches always come in order",
    "disable_tqdm": "runs have a progress display of their own",
    "include_num_input_tokens_seen": "tokens are always counted",
    "local_rank": "the launcher tells each process its number",
    "auto_find_batch_size": "a batch that memory does not hold is always split",
    "enable_jit_checkpoint": "a run that is asked to stop always saves a checkpoint",
    "use_cache": "training keeps no cache, and the model's own value is saved",
    "length_column_name": "lengths are known without a column",
    "sortish_sampler": "use `train_sampling_strategy: group_by_length`",
}
# What the trainer does anyway, where that is not transformers' default: no reason for a warning.
QUIET = {"remove_unused_columns": False, "logging_nan_inf_filter": False, "auto_find_batch_size": True}
_SECRET = {"hub_token"}
_LATER_VALUES = {"train_sampling_strategy": ("batch_rebalance",), "debug": ("tpu_metrics_debug",)}
_LEAST: dict[str, float] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "weight_decay": 0,
    "adam_epsilon": 0,
    "max_grad_norm": 0,
    "warmup_steps": 0,
    "logging_steps": 0,
    "eval_steps": 0,
    "save_steps": 0,
    "save_total_limit": 1,
    "eval_delay": 0,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": 1,
    "torch_empty_cache_steps": 1,
    "seed": 0,
    "data_seed": 0,
    "ddp_timeout": 1,
}
_ABOVE: dict[str, float] = {"num_train_epochs": 0, "neftune_noise_alpha": 0}
_SHARES = {"adam_beta1", "adam_beta2", "label_smoothing_factor"}  # from 0, below 1
# Wider than transformers' own annotation: `true` resumes from the newest checkpoint.
_TYPES = {"resume_from_checkpoint": ("bool", "str")}
_MORE_CHOICES = {"optim": OUR_OPTIMS}  # besides those of transformers
_CHOICES = {"include_num_input_tokens_seen": ("all", "non_padding", "no")}


SPECIAL = {
    *_LATER,
    *_NEVER,
    *_IGNORED,
    *QUIET,
    *_SECRET,
    *_LATER_VALUES,
    *_LEAST,
    *_ABOVE,
    *_SHARES,
    *_TYPES,
    *_CHOICES,
}


@cache
def arguments() -> dict[str, Argument]:
    """All training arguments by name, in transformers' order."""
    found = {}
    for entry in json.loads(LIST.read_text(encoding="utf-8")):
        name = entry["name"]
        choices = _CHOICES.get(name) or (*entry.get("choices", ()), *_MORE_CHOICES.get(name, ()))
        types = _TYPES.get(name) or tuple(entry["types"])
        found[name] = Argument(name, types, entry["nullable"], entry["default"], choices, _mark(name))
    return found


def _mark(name: str) -> Mark:
    if name in _LATER:
        return Mark("later", _LATER[name])
    if name in _NEVER:
        return Mark("never", _NEVER[name])
    if name in _IGNORED:
        return Mark("ignored", _IGNORED[name])
    if name in _SHARES:
        return Mark("works", least=0, below=1)
    later = _LATER_VALUES.get(name, ())
    return Mark("works", later_values=later, least=_LEAST.get(name), above=_ABOVE.get(name), secret=name in _SECRET)
