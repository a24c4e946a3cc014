"""`tunesmith score`: what a reward model gives to the rows of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load, split
from tunesmith.cli.output import print_json
from tunesmith.core.signals import StopSignals

EPILOG = """\b
Examples:
  tunesmith score run.yaml eval_dataset=pairs.jsonl
  tunesmith score saves/rm eval_dataset=pairs.jsonl output_dir=scores
  tunesmith score merged stage=sft dataset=chats.jsonl output_dir=scores
\b
docs/scores.md tells what the files and figures mean.
"""

app = make_app(no_args_is_help=False)


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG|FOLDER] [KEY=VALUE ...]")
def score(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False
) -> None:
    """Give every row of a dataset the score that a reward model has for it.

    Rows are those of eval_dataset, or of dataset: pairs, with stage=sft chats, with
    stage=kto answers that were liked or not. scores.jsonl and score_results.json go
    to output_dir. A training config, or its output_dir, stands for what was saved.
    """
    with StopSignals():
        config = load(_of_folder(context.args), "score")

        from tunesmith.api import score as run
        from tunesmith.core import log
        from tunesmith.models.quiet import quiet_libraries

        log.setup()
        quiet_libraries()
        found = run(config)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        print(f"{name:20} {value:,.6g}")


def _of_folder(words: Sequence[str]) -> list[str]:
    """Words that begin with the folder of a model, or of a run, as words of keys: by the run's own config, if there is
    one. What is said besides wins."""
    source, keys = split(words)
    folder = Path(source or "").expanduser()
    adapter, model = folder / "adapter_config.json", folder / "config.json"
    if source is None or not (adapter.is_file() or model.is_file()):
        return list(words)
    config = folder / "run.yaml"
    named = [f"{'adapter_name_or_path' if adapter.is_file() else 'model_name_or_path'}={folder}"]
    if config.is_file():
        return [str(config), f"output_dir={folder}", *named, "train_from_scratch=false", *keys]
    if adapter.is_file():
        from tunesmith.core.files import read_json

        base = (read_json(adapter) or {}).get("base_model_name_or_path")
        named += [f"model_name_or_path={base}"] if base else []
    return [*named, *keys]
