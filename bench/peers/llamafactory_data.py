"""LlamaFactory's way from a file of Alpaca rows to token ids, timed; bench/data.py --peer runs it.

    PYTHON bench/peers/llamafactory_data.py ROWS.jsonl TOKENIZER TEMPLATE

PYTHON is the interpreter of an environment that has `llamafactory`; nothing of Tunesmith is imported. The data goes the
way it goes in a training there: arguments, tokenizer, template, `get_dataset`. One process prepares the rows, nothing
is cut, and every cache is new. Timed is `get_dataset` alone, without imports and tokenizer. The last line of the output
is JSON: seconds, rows, tokens.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

CUTOFF_LEN = 1_000_000  # more than any row has


def main() -> None:
    rows, tokenizer, template = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HF_DATASETS_CACHE"] = str(Path(folder) / "cache")  # read when `datasets` is imported
        found = prepare(rows, tokenizer, template, Path(folder))
    print()
    print(json.dumps(found))


def prepare(rows: Path, tokenizer: str, template: str, folder: Path) -> dict[str, float]:
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    columns = {"prompt": "instruction", "response": "output"}
    table = {"rows": {"file_name": str(rows), "formatting": "alpaca", "columns": columns}}
    (folder / "dataset_info.json").write_text(json.dumps(table))
    model, data, training, _finetuning, _generating = get_train_args(
        {
            "stage": "sft",
            "do_train": True,
            "model_name_or_path": tokenizer,
            "template": template,
            "dataset": "rows",
            "dataset_dir": str(folder),
            "cutoff_len": CUTOFF_LEN,
            "preprocessing_num_workers": 1,
            "overwrite_cache": True,
            "output_dir": str(folder / "out"),
            "report_to": "none",
            "use_cpu": True,
        }
    )
    tools = load_tokenizer(model)
    made = get_template_and_fix_tokenizer(tools["tokenizer"], data)
    begin = time.perf_counter()
    train = get_dataset(made, model, data, training, stage="sft", **tools)["train_dataset"]
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "rows": len(train), "tokens": sum(len(ids) for ids in train["input_ids"])}


if __name__ == "__main__":
    main()
