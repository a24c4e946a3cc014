"""TRL's SFTTrainer on rows that are tokens already, watched; bench/sft.py and gpu.py --peer trl=PYTHON run it.

    PYTHON bench/peers/trl_sft.py SETTINGS.json

PYTHON is the interpreter of an environment that has `trl` and `peft`; nothing of Tunesmith is imported. What SETTINGS
do not name is SFTTrainer's default: padding to the longest row of a batch. With `padding_free` a batch is one row, and
the attention of transformers sees from its positions where a sequence begins. Rows are not cut. The last line is JSON.
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
    watch.print_report("trl")


def train(settings: dict[str, Any], watch: Watch) -> None:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [json.loads(line) for line in Path(settings["rows"]).read_text().splitlines()]
    half = settings["bf16"] and settings["adapter"]  # frozen weights may be in bfloat16, trained ones stay in float32
    dtype = torch.bfloat16 if half else torch.float32
    model = AutoModelForCausalLM.from_pretrained(settings["model"], dtype=dtype)
    if settings["adapter"]:
        model = PeftModel.from_pretrained(model, settings["adapter"], is_trainable=True)
    arguments = SFTConfig(
        padding_free=settings["padding_free"],
        max_length=None,
        output_dir=settings["output_dir"],
        per_device_train_batch_size=settings["batch"],
        train_sampling_strategy="sequential",
        max_steps=settings["steps"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        optim="adamw_torch",
        bf16=settings["bf16"],
        gradient_checkpointing=settings["gradient_checkpointing"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=settings["device"] == "cpu",
    )
    SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        callbacks=[watch],
    ).train()


if __name__ == "__main__":
    main()
