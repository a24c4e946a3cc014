"""LlamaFactory's DPO on pairs that are tokens already, watched; bench/preference.py --peer llamafactory=PYTHON runs it.

    PYTHON bench/peers/llamafactory_dpo.py SETTINGS.json

PYTHON is the interpreter of an environment that has `llamafactory`; nothing of Tunesmith is imported. The run goes as
`llamafactory-cli train` runs it; only the pairs come from a `tokenized_path`, so that tokens and labels are those of
the other runs. The last line is JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from watch import Watch


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    watch = Watch()
    train(settings, watch)
    watch.print_report("llamafactory")


def train(settings: dict[str, Any], watch: Watch) -> None:
    from datasets import Dataset
    from llamafactory.train.tuner import run_exp

    pairs = [json.loads(line) for line in Path(settings["rows"]).read_text().splitlines()]
    data = Path(settings["output_dir"]) / "pairs"
    Dataset.from_list([_columns(pair) for pair in pairs]).save_to_disk(data)
    run_exp(
        {
            "stage": "dpo",
            "do_train": True,
            "model_name_or_path": settings["model"],
            "infer_dtype": "bfloat16" if settings["bf16"] else "float32",  # else the machine decides
            "bf16": settings["bf16"],
            "finetuning_type": "lora",
            "adapter_name_or_path": settings["adapter"],
            "pref_beta": settings["beta"],
            "tokenized_path": str(data),
            "dataset": "pairs",  # these two have to be there, and have nothing to do where rows are tokens
            "template": "empty",
            "disable_shuffling": True,
            "per_device_train_batch_size": settings["batch"],
            "max_steps": settings["steps"],
            "learning_rate": settings["learning_rate"],
            "lr_scheduler_type": "constant",
            "optim": "adamw_torch",
            "disable_gradient_checkpointing": not settings["gradient_checkpointing"],
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "use_cpu": True,
            "output_dir": str(Path(settings["output_dir"]) / "out"),
        },
        callbacks=[watch],
    )


def _columns(pair: dict[str, Any]) -> dict[str, Any]:
    """As LlamaFactory's collator of pairs wants them."""
    found: dict[str, Any] = {"images": None, "videos": None, "audios": None}
    for name in ("chosen", "rejected"):
        found |= {f"{name}_{key}": pair[name][key] for key in ("input_ids", "labels")}
        found[f"{name}_attention_mask"] = [1] * len(pair[name]["input_ids"])
    return found


if __name__ == "__main__":
    main()
