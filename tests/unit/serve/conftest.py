"""A scripted engine behind a real server, and clients for it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openai
import pytest

from tests.serving import ScriptedEngine, serving
from tunesmith.serve.service import Service


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        assert set(self.json) == {"error"}
        assert set(found) == {"message", "type", "param", "code"}
        return found


class Site:
    """A server that runs, and what can be asked of it."""

    def __init__(self, url: str, service: Service, engine: Any, stack: ExitStack) -> None:
        self.url, self.service, self.engine, self._stack = url, service, engine, stack
        self.host: str = urlsplit(url).netloc

    def client(self, key: str = "no key is needed", **more: Any) -> openai.OpenAI:
        made = openai.OpenAI(base_url=f"{self.url}/v1", api_key=key, **{"max_retries": 0, **more})
        return self._stack.enter_context(made)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """One request on a connection of its own. `body`: JSON, or bytes as they are."""
        connection = http.client.HTTPConnection(self.host, timeout=20)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        given = {"Content-Type": "application/json"} if data is not None else {}
        try:
            connection.request(method, path, data, {**given, **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read().decode())
        finally:
            connection.close()

    def chat(self, text: str = "hello", headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        body = {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}
        return self.ask("POST", "/v1/chat/completions", body, headers)


@pytest.fixture
def site(tiny_model: Path) -> Iterator[Callable[..., Site]]:
    """Makes a server: `site(script, **settings)`; `context` and `pause` are the engine's."""
    with ExitStack() as stack:

        def make(script: Any = None, **settings: Any) -> Site:
            of_engine = {name: settings.pop(name) for name in ("context", "pause") if name in settings}
            engine = ScriptedEngine(tiny_model, *([script] if script else []), **of_engine)
            url, service = stack.enter_context(serving(engine, **settings))
            return Site(url, service, engine, stack)

        yield make


@pytest.fixture(scope="session")
def reward_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a reward model of transformers, with an output layer that tells texts apart."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("reward")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    model.score.weight.data.normal_()
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def reward_site(reward_folder: Path) -> Iterator[Callable[..., Site]]:
    """A server of a reward model: `reward_site(max_batch_requests=4, ...)`; other settings as those of `site`."""
    from tunesmith.config import load_config
    from tunesmith.engines.rewards import RewardEngine

    with ExitStack() as stack:

        def make(**settings: Any) -> Site:
            names = ("max_batch_requests", "max_queued_requests", "prefill_chunk_tokens")
            of_engine = {name: settings.pop(name) for name in names if name in settings}
            keys = {"model_name_or_path": str(reward_folder), "use_cpu": True, **of_engine}
            engine = RewardEngine.from_config(load_config(keys, verb="api"))
            url, service = stack.enter_context(serving(engine, **settings))
            return Site(url, service, engine, stack)

        yield make
