"""`tunesmith init`: write a short commented config to start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.app import Verb, make_app
from tunesmith.core.errors import OutputError, Problem

TEXT = """\
# Fine-tune {model} on {data}.
#   tunesmith data preview {path}    see the rows as the model will see them
#   tunesmith train {path}           train
#   tunesmith chat {path}            talk with the result

### model: a folder or the name of a repository on the hub
model_name_or_path: {model}

### data: a file (its format is detected) or a name of dataset_info.json
dataset: {data}
cutoff_len: 2048                 # longest row in tokens; what is cut is counted and reported
val_size: 0.05                   # part of the rows held out for evaluation

### what is trained, and how
stage: sft                       # learn the answers; pt: plain text
do_train: true
finetuning_type: lora            # small matrices beside frozen weights; or full, freeze
lora_rank: 8
lora_target: all

### training
per_device_train_batch_size: 2
gradient_accumulation_steps: 8   # rows per step: 2 x 8 on each device
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1

### output
output_dir: {output_dir}
logging_steps: 10
save_steps: 500
eval_strategy: epoch
"""

EPILOG = """\b
Example:
  tunesmith init --model Qwen/Qwen3-0.6B --data rows.jsonl --output run.yaml
"""

app = make_app()


@app.command(cls=Verb, epilog=EPILOG)
def init(
    model: Annotated[str, typer.Option(metavar="M", help="Model: a folder or a name on the hub.")],
    data: Annotated[str, typer.Option(metavar="F", help="Dataset: a file or a registered name.")],
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where to write.")] = Path("run.yaml"),
) -> None:
    """Write a short commented config for LoRA fine-tuning, and check it. Never overwrites."""
    text = TEXT.format(
        model=_scalar(model), data=_scalar(data), path=output, output_dir=_scalar(f"saves/{_short_name(model)}-lora")
    )
    _write_new(output, text)
    print(f"wrote {output}")

    from tunesmith.cli.config import check_and_report

    check_and_report([str(output)])
    print(f"next: tunesmith data preview {output}")


def _write_new(path: Path, text: str) -> None:
    if path.exists():
        fix = "name another file with --output, or remove this one"
        raise OutputError(Problem("E-CLI-005", "the file exists already", where=str(path), fix=fix))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        fix = "name another place with --output"
        problem = Problem("E-CLI-006", "the file cannot be written", str(path), error.strerror, fix)
        raise OutputError(problem) from error


def _scalar(text: str) -> str:
    """Text as a YAML value: plain where that is safe, else quoted (JSON strings are YAML strings)."""
    import yaml

    plain = yaml.safe_load(text) if text.strip() == text and not set(text) & set("#:\n\"'{}[]") else None
    return text if plain == text else json.dumps(text, ensure_ascii=False)


def _short_name(model: str) -> str:
    return Path(model.rstrip("/")).name or "model"
