"""ms-swift's fine-tuning of rows that are tokens already, watched; bench/sft.py --peer ms-swift=PYTHON runs it.

    PYTHON bench/peers/swift_sft.py SETTINGS.json

PYTHON is the interpreter of an environment that has `ms-swift`; nothing of Tunesmith is imported. The run goes as
`swift sft` runs it (its padding-free batches ask for flash attention, so rows are padded). Only the rows do not come
through its template, so that tokens and labels are those of the other runs. The last line is JSON.
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
    watch.print_report("ms-swift")


def train(settings: dict[str, Any], watch: Watch) -> None:
    from swift.arguments import SftArguments
    from swift.callbacks import callbacks_map
    from swift.pipelines import SwiftSft

    rows = [json.loads(line) for line in Path(settings["rows"]).read_text().splitlines()]

    class FromTokens(SwiftSft):  # type: ignore[misc]
        def _prepare_dataset(self) -> list[Any]:
            return [[{**row, "length": len(row["input_ids"])} for row in rows], None]

    callbacks_map["watch"] = lambda *_: watch
    adapter = {"adapters": [settings["adapter"]]} if settings["adapter"] else {}
    arguments = SftArguments(
        model=settings["model"],
        model_type="qwen2",
        template="qwen2_5",
        torch_dtype="bfloat16" if settings["bf16"] else "float32",
        bf16=settings["bf16"],
        tuner_type="lora" if adapter else "full",
        **adapter,
        dataset=[settings["rows"]],  # has to be there
        load_args=False,
        train_dataloader_shuffle=False,
        per_device_train_batch_size=settings["batch"],
        gradient_accumulation_steps=1,
        max_steps=settings["steps"],
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        weight_decay=0.0,
        adam_beta2=0.999,
        optim="adamw_torch",
        gradient_checkpointing=settings["gradient_checkpointing"],
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        callbacks=["watch"],
        output_dir=settings["output_dir"],
    )
    FromTokens(arguments).main()


if __name__ == "__main__":
    main()
