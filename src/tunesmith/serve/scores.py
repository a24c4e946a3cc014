"""POST /v1/score/evaluation and /v1/rerank: what a reward model gives to texts, and to answers to a question.

The first has LlamaFactory's form, the second that of Jina and Cohere. Texts of several requests are read in one
forward (`engines.batching.rewards`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse

from tunesmith.core.errors import TunesmithError
from tunesmith.core.types import Message
from tunesmith.serve.body import read_json
from tunesmith.serve.errors import ApiError, as_api_error, invalid, server_error, unsupported
from tunesmith.serve.fields import Body, Reader, boolean, described, integer, list_of, object_with, schema_of, text
from tunesmith.serve.limits import LIMITS
from tunesmith.serve.messages import Messages, read_messages
from tunesmith.serve.request import IGNORED
from tunesmith.serve.service import Service
from tunesmith.serve.streams import while_connected

__all__ = ["EVALUATION", "RERANK", "evaluate", "rerank"]


@described(anyOf=[{"type": "string", "minLength": 1}, schema_of(read_messages)])
def _scored(value: Any, where: str) -> str | list[Message]:
    """A text as the model reads it, or the messages of a chat, the last one a reply."""
    if isinstance(value, str):
        return str(text(1)(value, where))
    messages: Messages = read_messages(value, where)
    if messages.places:
        raise unsupported(f"{messages.places[0]}: texts are scored", messages.places[0], "unsupported_content_type")
    if messages[-1].role != "assistant":
        message = f"{where} has to end with the assistant's message: that is what is scored"
        raise invalid(message, f"{where}[{len(messages) - 1}].role")
    return messages


_DOCUMENT = object_with({"text": text(1)}, ["text"])


@described(anyOf=[{"type": "string", "minLength": 1}, schema_of(_DOCUMENT)])
def _document(value: Any, where: str) -> str:
    return str(_DOCUMENT(value, where)["text"] if isinstance(value, dict) else text(1)(value, where))


_EVALUATION: dict[str, Reader] = {
    "model": text(1, 256),
    "messages": list_of(_scored, LIMITS.inputs, least=1),
    "max_length": integer(1),
}
_RERANK: dict[str, Reader] = {
    "model": text(1, 256),
    "query": text(1),
    "documents": list_of(_document, LIMITS.inputs, least=1),
    "top_n": integer(1),
    "return_documents": boolean,
}
EVALUATION = Body(_EVALUATION, ["model", "messages"], IGNORED)
RERANK = Body(_RERANK, ["model", "query", "documents"], IGNORED)


async def evaluate(http: HttpRequest) -> Any:
    """A score for each text. A text is read as it is, control tokens too: whoever sends one has rendered it."""
    service: Service = http.scope["service"]
    found = EVALUATION.read(await read_json(http, service.limits))
    service.adapter(found["model"])
    ids = await asyncio.to_thread(_encoded, service, found["messages"], "messages", found.get("max_length"))
    scores = await while_connected(http, _rewards(service, ids, "messages", http.scope["client_name"]))
    stamp = f"scoreval-{secrets.token_hex(12)}"
    return JSONResponse({"id": stamp, "object": "score.evaluation", "model": found["model"], "scores": scores})


async def rerank(http: HttpRequest) -> Any:
    """Documents in the order of their scores as replies to the query."""
    service: Service = http.scope["service"]
    found = RERANK.read(await read_json(http, service.limits))
    service.adapter(found["model"])
    query, documents = found["query"], found["documents"]
    chats = [[Message("user", query), Message("assistant", document)] for document in documents]
    ids = await asyncio.to_thread(_encoded, service, chats, "documents", None)
    scores = await while_connected(http, _rewards(service, ids, "documents", http.scope["client_name"]))
    best = sorted(range(len(scores)), key=lambda index: -scores[index])[: found.get("top_n")]
    results = [
        {
            "index": index,
            "relevance_score": scores[index],
            **({"document": {"text": documents[index]}} if found.get("return_documents") else {}),
        }
        for index in best
    ]
    tokens = sum(map(len, ids))
    used = {"prompt_tokens": tokens, "total_tokens": tokens}
    stamp = f"rerank-{secrets.token_hex(12)}"
    return JSONResponse({"id": stamp, "model": found["model"], "results": results, "usage": used})


def _encoded(
    service: Service, texts: Sequence[str | list[Message]], param: str, most: int | None
) -> list[Sequence[int]]:
    """Ids of each. `most`: what is longer is cut behind so many tokens. Raises ApiError (400) for what is too long, and
    for a chat that the template refuses."""
    engine, found = service.rewards, list[Sequence[int]]()
    for index, one in enumerate(texts):
        where = f"{param}[{index}]"
        try:
            ids = engine.encode_text(one) if isinstance(one, str) else engine.encode_chat(one)
        except TunesmithError as error:
            raise as_api_error(error, where) from None
        ids = ids if most is None else ids[:most]
        if not ids:
            raise invalid(f"{where} has no tokens", where)
        if engine.context is not None and len(ids) > engine.context:
            message = f"this model's maximum context length is {engine.context} tokens; this text has {len(ids)}"
            raise invalid(message, where, "context_length_exceeded")
        found.append(ids)
    return found


class _Asked:
    """What is asked of the engine, until it ends or the server does."""

    def __init__(self, future: Future[list[float]]) -> None:
        self.future, self.closed = future, False

    def close(self) -> None:
        self.closed = True
        self.future.cancel()


async def _rewards(service: Service, ids: Sequence[Sequence[int]], param: str, client: str) -> list[float]:
    """Raises ApiError where the engine does not take them or fails, and where it takes longer than it may. Whatever
    ends it takes what is left of it out of the engine's queue."""
    service.check_open()
    await service.slots.take()
    try:
        asked = _Asked(service.rewards.submit(ids, client))
        service.running.add(asked)
        try:
            async with asyncio.timeout(service.limits.generation_seconds):
                found = await asyncio.wrap_future(asked.future)
        except asyncio.CancelledError:
            if asked.closed:
                raise ApiError(503, "the server is being stopped", kind="server_error", code="stopping") from None
            raise
        except TimeoutError:
            raise server_error("the answer took longer than it may", 504, "timeout") from None
        finally:
            asked.close()
            service.running.discard(asked)
    except TunesmithError as error:
        raise as_api_error(error, param) from None
    finally:
        service.slots.give_back()
    service.metrics.count("prompt_tokens_total", sum(map(len, ids)))
    service.metrics.count("scores_total", len(ids))
    return found
