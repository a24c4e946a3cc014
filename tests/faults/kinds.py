"""The kinds of runs that every fault is tried on. A new objective or method is one more row.

All runs are of the tiny Llama on the CPU, and draw random numbers (dropout, noise, shuffling), so that a resumed run
equals another only where all of its state came back. Steps, saves, evaluations and log lines have no common rhythm:
saves every third step fall into the middle of a logging interval of two.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

__all__ = ["KINDS", "OPTIMIZERS", "PREFERENCES", "SAVING", "SEEING", "STEPS", "keys_of", "make_model", "write_config"]

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "tests" / "assets"
STEPS, LAYERS = 20, 2

_ALL: dict[str, Any] = {
    "dataset_dir": str(ASSETS / "data"),
    "use_cpu": True,
    "do_train": True,
    "seed": 7,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 3,
    "weight_decay": 0.01,
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2,
    "max_steps": STEPS,
    "logging_steps": 2,
    "save_strategy": "steps",
    "save_steps": 3,
    "save_total_limit": 2,
    "val_size": 4,
    "eval_strategy": "steps",
    "eval_steps": 5,
    "per_device_eval_batch_size": 4,
    "preprocessing_num_workers": 0,
}
_LORA = {"finetuning_type": "lora", "lora_rank": 4, "lora_dropout": 0.1}
_FULL = {"finetuning_type": "full"}
_SFT = {"stage": "sft", "dataset": "known", "cutoff_len": 128}
_STORIES = {"stage": "pt", "dataset": "stories", "cutoff_len": 96, "packing": True}

KINDS: dict[str, dict[str, Any]] = {
    "sft-lora": {**_SFT, **_LORA},
    "sft-full": {**_SFT, **_FULL, "neftune_noise_alpha": 5.0},
    "sft-packed": {**_SFT, **_LORA, "packing": True, "cutoff_len": 96},
    "sft-stream": {**_SFT, **_LORA, "streaming": True, "buffer_size": 11, "packing": True, "cutoff_len": 64},
    "pt-lora": {**_STORIES, **_LORA},
    "pt-full": {**_STORIES, **_FULL},
}

SAVING = {**KINDS, "sft-background": {**KINDS["sft-full"], "async_save": True}}
"""Where it matters how a checkpoint is written: those, and one that is written in the background."""

_AVERAGE = {"optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "galore": {"use_galore": True, "galore_rank": 4, "galore_update_interval": 5},
    "apollo": {"use_apollo": True, "apollo_rank": 4, "apollo_update_interval": 5},
    "badam": {"use_badam": True, "badam_switch_mode": "random", "badam_switch_interval": 4, "async_save": True},
    "badam-share": {"use_badam": True, "badam_mode": "ratio", "badam_switch_interval": 4},
    "soap": {"optim": "soap", "optim_args": "precondition_frequency=4"},
    "schedule-free": _AVERAGE,
}
"""With states that have a rhythm of their own, which fits neither to saves nor to evaluations."""
OPTIMIZERS = {kind: {**KINDS["sft-full"], **keys} for kind, keys in OPTIMIZERS.items()}

_EXAMPLES = {"dataset_dir": str(ROOT / "examples" / "data"), "cutoff_len": 128}
_PAIRS = {"dataset": "pairs", **_EXAMPLES}
_LIKED = {"stage": "kto", "dataset": "feedback", **_EXAMPLES}
PREFERENCES: dict[str, dict[str, Any]] = {
    "dpo-lora": {"stage": "dpo", **_PAIRS, **_LORA},
    "dpo-full": {"stage": "dpo", **_PAIRS, **_FULL, "pref_loss": "ipo"},
    "dpo-told": {"stage": "dpo", **_PAIRS, **_FULL, "precompute_ref_log_probs": True},
    "dpo-step": {"stage": "dpo", **_PAIRS, **_LORA, "pref_loss": ["aot", "sft"]},
    "kto-lora": {**_LIKED, **_LORA},
    "kto-full": {**_LIKED, **_FULL, "kto_loss": "bco"},
    "rm-lora": {"stage": "rm", **_PAIRS, **_LORA},
    "rm-full": {"stage": "rm", **_PAIRS, **_FULL},
    "sft-near": {**_SFT, **_FULL, "use_asft_loss": True},
}
"""With a reference: the model without its adapter, and a frozen copy, which a resume has to make of the model as it
was before training, not of the checkpoint; and what such a copy said, from the data cache. With losses that look at a
whole step first. And reward models, whose output layer begins random."""

SEEING: dict[str, dict[str, Any]] = {
    "sft-seeing": {
        "stage": "sft",
        "cutoff_len": 128,
        **_FULL,
        "freeze_vision_tower": False,
        "freeze_multi_modal_projector": False,
    }
}
SEEING["sft-seeing-stream"] = {**SEEING["sft-seeing"], "streaming": True, "buffer_size": 11}
"""Of a model that sees, on rows with pictures; the test brings both."""


def keys_of(kind: str, model: Path, output_dir: Path, **changes: Any) -> dict[str, Any]:
    return {
        **_ALL,
        **{**SAVING, **OPTIMIZERS, **PREFERENCES, **SEEING}[kind],
        "model_name_or_path": str(model),
        "output_dir": str(output_dir),
        **changes,
    }


def write_config(path: Path, kind: str, model: Path, output_dir: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(keys_of(kind, model, output_dir, **changes), indent=1), encoding="utf-8")
    return path


def make_model(folder: Path) -> Path:
    """The tiny Llama with its first two layers only: a step takes milliseconds."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(ASSETS / "tiny-llama", folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": LAYERS}), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    above = tuple(f"model.layers.{layer}." for layer in range(LAYERS, config["num_hidden_layers"]))
    kept = {name: weight for name, weight in weights.items() if not name.startswith(above)}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder
