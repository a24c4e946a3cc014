"""LlamaFactory's fine-tuning of rows that are tokens already, watched; bench/sft.py --peer llamafactory=PYTHON runs it.

    PYTHON bench/peers/llamafactory_sft.py SETTINGS.json

PYTHON is the interpreter of an environment that has `llamafactory`; nothing of Tunesmith is imported. The run goes as
`llamafactory-cli train` runs it, padding to the longest row of a batch and with the logits of all positions. Only the
rows come from a `tokenized_path`, so that tokens and labels are those of the other runs. The last line is JSON.
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

    rows = [json.loads(line) for line in Path(settings["rows"]).read_text().splitlines()]
    data = Path(settings["output_dir"]) / "rows"
    Dataset.from_list([{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]).save_to_disk(data)
    adapter = {"adapter_name_or_path": settings["adapter"]} if settings["adapter"] else {}
    run_exp(
        {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": settings["model"],
            "infer_dtype": "bfloat16" if settings["bf16"] else "float32",  # else the machine decides
            "bf16": settings["bf16"],
            "finetuning_type": "lora" if adapter else "full",
            **adapter,
            "tokenized_path": str(data),
            "dataset": "rows",  # these two have to be there, and have nothing to do where rows are tokens
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


if __name__ == "__main__":
    main()
