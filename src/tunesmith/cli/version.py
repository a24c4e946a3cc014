"""`tunesmith version`: the version of Tunesmith."""

from __future__ import annotations

from typing import Annotated

import typer

from tunesmith._version import __version__
from tunesmith.cli.app import Verb, make_app
from tunesmith.cli.output import print_json

app = make_app(no_args_is_help=False)


@app.command(cls=Verb)
def version(as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Print the version of Tunesmith; `tunesmith env` tells those of everything underneath."""
    if as_json:
        print_json({"tunesmith": __version__})
    else:
        print(f"tunesmith {__version__}")
