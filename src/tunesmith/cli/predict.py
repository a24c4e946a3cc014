"""`tunesmith predict`: a model's answers to the rows of a dataset."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.output import print_json
from tunesmith.core.signals import StopSignals

EPILOG = """\b
Examples:
  tunesmith predict run.yaml eval_dataset=test.jsonl
  tunesmith predict --model_name_or_path BASE --dataset test.jsonl \\
      --output_dir predictions --do_sample false
\b
docs/evaluation.md tells what figures mean.
"""

app = make_app(no_args_is_help=False)


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG] [KEY=VALUE ...]")
def predict(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """Answer every row of a dataset, and compare with what it expects.

    Rows are those of eval_dataset, or of dataset. generated_predictions.jsonl and
    predict_results.json go to output_dir. The same command goes on where one was
    interrupted. A training config stands for what its training saved.
    """
    with StopSignals():
        config = load(context.args, "predict")

        from tunesmith.api import predict as run
        from tunesmith.core import log

        log.setup()
        found = run(config)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        print(f"{name:32} {value:,.6g}" if isinstance(value, int | float) else f"{name:32} {value}")
