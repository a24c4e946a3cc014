"""`tunesmith export`: merge an adapter into its base model and save an ordinary model folder."""

from __future__ import annotations

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load

EPILOG = """\b
Examples:
  tunesmith export run.yaml export_dir=merged
  tunesmith export --model_name_or_path BASE --adapter_name_or_path out \\
      --export_dir merged --export_size 5
"""

app = make_app(no_args_is_help=False)


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG] [KEY=VALUE ...]")
def export(context: typer.Context) -> None:
    """Merge the adapter into its base; save safetensors, tokenizer and a Modelfile.

    They go to export_dir; `ollama create NAME -f Modelfile` there serves them.

    A training config stands for the adapter that its training saved in output_dir.
    export_size is the largest size of one file in GB.
    """
    config = load(context.args, "export")

    from tunesmith.api import export_model
    from tunesmith.core import log

    log.setup()
    print(f"saved: {export_model(config)}")
