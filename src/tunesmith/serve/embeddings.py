"""POST /v1/embeddings: the last hidden states of texts, as vectors of length 1."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from tunesmith.core.errors import TunesmithError
from tunesmith.serve.body import read_json
from tunesmith.serve.errors import as_api_error, invalid
from tunesmith.serve.fields import Body, Reader, choice, text
from tunesmith.serve.limits import LIMITS
from tunesmith.serve.request import IGNORED, read_texts
from tunesmith.serve.service import Service
from tunesmith.serve.streams import while_connected

__all__ = ["EMBEDDING", "create"]

_FIELDS: dict[str, Reader] = {
    "model": text(1, 256),
    "input": read_texts(LIMITS.inputs),
    "encoding_format": choice("float", "base64"),
    "pooling": choice("mean", "last"),
}
_REFUSED = {"dimensions": "the vectors have the size of the model's hidden states"}
EMBEDDING = Body(_FIELDS, ["model", "input"], IGNORED, _REFUSED)


async def create(http: HttpRequest) -> Any:
    service: Service = http.scope["service"]
    found = EMBEDDING.read(await read_json(http, service.limits))
    adapter = service.adapter(found["model"])
    work = asyncio.to_thread(_vectors, service, found, adapter)
    service.check_open()
    await service.slots.take()
    try:
        vectors, tokens = await while_connected(http, work)
    finally:
        service.slots.give_back()
    as_text = found.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if as_text else vector}
        for index, vector in enumerate(vectors)
    ]
    used = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "model": found["model"], "data": data, "usage": used})


def _vectors(service: Service, found: dict[str, Any], adapter: str | None) -> tuple[list[list[float]], int]:
    prompts = []
    for index, one in enumerate(found["input"]):
        where = f"input[{index}]" if len(found["input"]) > 1 else "input"
        prompts.append(service.plain_prompt(one, where))
        if service.engine.context is not None and len(prompts[-1]) > service.engine.context:
            context, size = service.engine.context, len(prompts[-1])
            message = f"this model's maximum context length is {context} tokens; this text has {size}"
            raise invalid(message, where, "context_length_exceeded")
    try:
        vectors = service.engine.embed(prompts, found.get("pooling", "mean"), adapter)
    except TunesmithError as error:
        raise as_api_error(error, "input") from None
    return [_normalized(vector) for vector in vectors], sum(map(len, prompts))


def _normalized(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(one * one for one in vector)) or 1.0
    return [one / length for one in vector]


def _packed(vector: list[float]) -> str:
    """Little-endian float32, as the official client reads it."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
