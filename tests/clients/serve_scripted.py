"""A server around the engine that says what was written down, for `make test-schemathesis`; runs until it is ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.serving import ScriptedEngine, say
from tunesmith.serve.auth import read_keys
from tunesmith.serve.server import Server, bind, greeting
from tunesmith.serve.service import Service
from tunesmith.serve.settings import Settings

KEY = "a-key-for-the-tests-of-clients"


def main() -> None:
    model = Path(__file__).parents[1] / "assets" / "tiny-llama"
    settings = Settings(port=0, model_name="tiny", keys=read_keys(KEY, "tests")[0])
    service = Service(ScriptedEngine(model, say("so ", "it ", "is")), settings)
    with bind(settings) as sock:
        print(greeting(service, sock.getsockname()[1]), flush=True)
        asyncio.run(Server(service).serve([sock]))


if __name__ == "__main__":
    main()
