"""POST /tokenize and /detokenize: what a prompt is in tokens, and the other way round."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from tunesmith.serve.body import read_json
from tunesmith.serve.errors import missing, unsupported
from tunesmith.serve.fields import Body, Reader, boolean, integer, list_of, object_with, text
from tunesmith.serve.messages import read_messages, read_tools
from tunesmith.serve.service import Service

__all__ = ["DETOKENIZE", "TOKENIZE", "detokenize", "tokenize"]

_MOST = 2**20
_TOKENIZE: dict[str, Reader] = {
    "model": text(1, 256),
    "prompt": text(),
    "messages": read_messages,
    "tools": read_tools,
    "chat_template_kwargs": object_with({"enable_thinking": boolean}),
}
_DETOKENIZE: dict[str, Reader] = {"model": text(1, 256), "tokens": list_of(integer(0), _MOST)}
TOKENIZE, DETOKENIZE = Body(_TOKENIZE), Body(_DETOKENIZE, ["tokens"])


async def tokenize(http: Request) -> Any:
    """A text as /v1/completions takes it, or messages as /v1/chat/completions does."""
    service: Service = http.scope["service"]
    found = TOKENIZE.read(await read_json(http, service.limits))
    if ("prompt" in found) == ("messages" in found):
        raise missing("prompt") if "prompt" not in found else unsupported("either a prompt or messages", "prompt")
    threads = service.readers if "messages" in found and found["messages"].places else None
    tokens = await asyncio.get_running_loop().run_in_executor(threads, _tokens, service, found)
    return JSONResponse({"count": len(tokens), "max_model_len": service.made.context, "tokens": list(tokens)})


def _tokens(service: Service, found: dict[str, Any]) -> tuple[int, ...]:
    if "model" in found:
        service.adapter(found["model"])
    if "prompt" in found:
        return service.plain_prompt(found["prompt"], "prompt")
    renderer = service.renderer(found.get("chat_template_kwargs", {}).get("enable_thinking"))
    with closing(service.media()) as media:
        return tuple(service.chat_prompt(renderer, media.settled(found["messages"]), found.get("tools", [])).ids)


async def detokenize(http: Request) -> Any:
    service: Service = http.scope["service"]
    found = DETOKENIZE.read(await read_json(http, service.limits))
    if "model" in found:
        service.adapter(found["model"])
    ids = service.plain_prompt(found["tokens"], "tokens")
    return JSONResponse({"prompt": await asyncio.to_thread(service.text_of, ids)})
