"""`tunesmith train`: train, evaluate or predict as a config says."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.core.signals import StopAsked, StopSignals

EPILOG = """\b
Examples:
  tunesmith train run.yaml
  tunesmith train run.yaml learning_rate=1e-4 num_train_epochs=1
  tunesmith train --model_name_or_path Qwen/Qwen3-0.6B --dataset rows.jsonl \\
      --finetuning_type lora --output_dir out --do_train
\b
tunesmith config schema lists every key; tunesmith config show, what is set.
"""

app = make_app(no_args_is_help=False)


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG] [KEY=VALUE ...]")
def train(context: typer.Context) -> None:
    """Train as the config says.

    do_train, do_eval and do_predict choose what is done: train, evaluate on the
    held-out rows, write predictions for them.
    """
    with StopSignals():  # before anything that takes time is imported
        config = load(context.args, "train", show_warnings=False)  # the run itself reports them

        from tunesmith.core import log
        from tunesmith.train.run import train as run

        log.setup()
        try:
            result = run(config)
        except StopAsked:
            raise
        except KeyboardInterrupt:
            _say_what_is_kept(str(config.train.output_dir))
            raise
    if log.is_main_process():
        for line in result.summary_lines():
            print(line)


def _say_what_is_kept(output_dir: str) -> None:
    from tunesmith.checkpoints.store import committed

    found = committed(Path(output_dir))
    kept = f"{found[-1]} is kept: the same command goes on from it" if found else "no checkpoint was saved yet"
    print(kept, file=sys.stderr)
