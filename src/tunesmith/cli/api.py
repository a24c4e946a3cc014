"""`tunesmith api` (also `serve`): answer requests in OpenAI's protocol."""

from __future__ import annotations

import sys

import typer

from tunesmith.cli.app import WORDS, Verb, make_app
from tunesmith.cli.arguments import load
from tunesmith.core.errors import MachineError, Problem

EPILOG = """\b
Examples:
  tunesmith api run.yaml
  API_PORT=9000 tunesmith api --model_name_or_path Qwen/Qwen3-0.6B
  API_HOST=0.0.0.0 API_KEY=... tunesmith api run.yaml adapter_dir=adapters
\b
Environment: API_HOST (127.0.0.1), API_PORT (8000), API_KEY, API_KEY_FILE,
API_MODEL_NAME, FASTAPI_ROOT_PATH, MAX_CONCURRENT. An address that others can
reach needs a key. docs/serving.md tells what requests may ask for.
"""

app = make_app(no_args_is_help=False)


@app.command(cls=Verb, context_settings=WORDS, epilog=EPILOG, options_metavar="[CONFIG] [KEY=VALUE ...]")
def api(context: typer.Context) -> None:
    """Serve a model, with its adapters, to OpenAI's clients. Alias: serve.

    A training config stands for what its training saved in output_dir. What a
    request leaves out (temperature, top_p, max_new_tokens ...) is the config's.
    """
    config = load(context.args, "api")

    from tunesmith.core import log

    log.setup()
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        fix = "pip install 'tunesmith[serve]'"
        raise MachineError(Problem("E-SERVE-008", f"the package {error.name} is missing", fix=fix)) from error

    from tunesmith.api import with_result
    from tunesmith.serve.server import serve

    serve(with_result(config), lambda line: print(line, file=sys.stderr, flush=True))
