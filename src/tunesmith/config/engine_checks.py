"""Rules about engines: what each of them needs, and cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem

__all__ = ["ENGINE_CHECKS", "sends_messages"]

ENGINE_CHECKS: list[Check] = []
_rule = rules_into(ENGINE_CHECKS)
_TALKS = ("chat", "api", "predict", "eval")


def sends_messages(config: RunConfig) -> bool:
    """Whether another server gets the chat as it is, so that no model is needed here."""
    engine = config.engine
    return config.verb in _TALKS and engine.infer_backend == "remote" and engine.remote_prompts == "messages"


@_rule(_TALKS, "infer_backend", "remote_url")
def _remote_has_an_address(config: RunConfig) -> Iterator[Problem]:
    if config.engine.infer_backend != "remote":
        return
    fix = "remote_url: http://127.0.0.1:8000/v1"
    url = config.engine.remote_url
    if not url:
        yield Problem("E-CONFIG-020", '"remote_url" is missing', config.place("infer_backend"), fix=fix)
        return
    place = config.place("remote_url")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        yield Problem("E-CONFIG-004", '"remote_url" is no http or https address', place, url, fix)
    elif "@" in parts.netloc or parts.query or parts.fragment:
        what = '"remote_url" has more than scheme, host, port and path'
        fix = "leave the rest out; a key goes into the variable REMOTE_API_KEY"
        yield Problem("E-CONFIG-004", what, place, fix=fix)


@_rule(_TALKS, "infer_backend", "adapter_name_or_path")
def _remote_has_its_own_adapters(config: RunConfig) -> Iterator[Problem]:
    if config.engine.infer_backend == "remote" and config.model.adapter_name_or_path:
        what = '"adapter_name_or_path" is for weights here, and "infer_backend: remote" asks another server'
        yield contradiction(config, "adapter_name_or_path", what, "load it at that server, and name it as remote_model")


@_rule(("api", "predict", "eval"), "infer_backend", "remote_prompts")
def _prompts_are_made_here(config: RunConfig) -> Iterator[Problem]:
    if sends_messages(config):
        what = "prompts are made here, as for training, so the server has to take token ids"
        yield contradiction(config, "infer_backend", what, "remote_prompts: ids")
