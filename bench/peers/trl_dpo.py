"""TRL's DPOTrainer on pairs that are tokens already, watched; bench/preference.py --peer trl=PYTHON runs it.

    PYTHON bench/peers/trl_dpo.py SETTINGS.json

PYTHON is the interpreter of an environment that has `trl` and `peft`; nothing of Tunesmith is imported. What SETTINGS
do not name is DPOTrainer's default; its reference is the model without the adapter. The last line is JSON.
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
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    class OfTokens(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_arguments: Any, **_keywords: Any) -> Any:
            return dataset

        def _get_train_sampler(self, *_arguments: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    pairs = [json.loads(line) for line in Path(settings["rows"]).read_text().splitlines()]
    model = AutoModelForCausalLM.from_pretrained(
        settings["model"], dtype=torch.bfloat16 if settings["bf16"] else torch.float32
    )
    model = PeftModel.from_pretrained(model, settings["adapter"], is_trainable=True)
    arguments = DPOConfig(
        beta=settings["beta"],
        max_length=None,
        output_dir=settings["output_dir"],
        per_device_train_batch_size=settings["batch"],
        max_steps=settings["steps"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        optim="adamw_torch",
        bf16=settings["bf16"],
        gradient_checkpointing=settings["gradient_checkpointing"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
    )
    OfTokens(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list([_ids(pair) for pair in pairs]),
        processing_class=AutoTokenizer.from_pretrained(settings["model"]),
        callbacks=[watch],
    ).train()


def _ids(pair: dict[str, Any]) -> dict[str, list[int]]:
    """The prompt is what comes before the first label; what follows the last one nobody sees."""
    found: dict[str, list[int]] = {}
    for name in ("chosen", "rejected"):
        labels = pair[name]["labels"]
        first = next(at for at, label in enumerate(labels) if label != -100)
        last = len(labels) - next(at for at, label in enumerate(reversed(labels)) if label != -100)
        found["prompt_ids"] = pair[name]["input_ids"][:first]
        found[f"{name}_ids"] = pair[name]["input_ids"][first:last]
    return found


if __name__ == "__main__":
    main()
