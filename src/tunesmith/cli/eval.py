"""`tunesmith eval`: ask a model the questions of a benchmark."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.cli.output import print_json

EPILOG = """\b
Examples:
  tunesmith eval --model_name_or_path Qwen/Qwen3-0.6B --task mmlu_test
  tunesmith eval run.yaml task=cmmlu_test lang=zh task_dir=data/cmmlu
  tunesmith eval run.yaml task=ceval_validation n_shot=0 save_dir=results
  tunesmith eval run.yaml task=lm_eval:arc_easy,hellaswag
\b
docs/evaluation.md tells where questions come from, and what figures mean.
"""

app = make_app(no_args_is_help=False)


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG] [KEY=VALUE ...]")
def evaluate(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """Ask a model the questions of a benchmark, and count the right answers.

    A training config stands for what its training saved in output_dir. Results
    go to save_dir, a new folder: figures, and a line for each question.
    """
    config = load(context.args, "eval")

    from tunesmith.api import evaluate_model
    from tunesmith.core import log

    log.setup()
    evaluation = evaluate_model(config)
    if as_json:
        print_json(evaluation.metrics)
        return
    for line in evaluation.table:
        print(line)
    if config.evaluate.save_dir:
        print(f"saved: {config.evaluate.save_dir}")
