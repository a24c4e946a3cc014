"""POST /v1/completions: texts that the model continues, outside any chat."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request as HttpRequest

from tunesmith.engines.base import End, Piece, Request, Token
from tunesmith.serve import responses
from tunesmith.serve.body import read_json
from tunesmith.serve.request import CompletionRequest, read_completion
from tunesmith.serve.running import Running
from tunesmith.serve.service import Service
from tunesmith.serve.streams import answer
from tunesmith.serve.tokens import completion_logprobs

__all__ = ["create"]


async def create(http: HttpRequest) -> Any:
    service: Service = http.scope["service"]
    wishes = read_completion(await read_json(http, service.limits))
    made = await asyncio.to_thread(_Completion, service, wishes, http.scope["client_name"])
    return await answer(http, made, _whole, _events)


class _Completion:
    """A request in the engine's terms: `n` replies to the first prompt, then those to the second, and so on."""

    def __init__(self, service: Service, wishes: CompletionRequest, client: str) -> None:
        self.service, self.wishes = service, wishes
        adapter = service.adapter(wishes.model)
        self.requests: list[Request] = []
        self.echoes: list[str] = []
        self.prompt_tokens = 0
        for index, prompt in enumerate(wishes.prompts):
            where = f"prompt[{index}]" if len(wishes.prompts) > 1 else "prompt"
            ids = service.plain_prompt(prompt, where)
            room = service.check_room(len(ids), wishes.max_tokens, where)
            self.prompt_tokens += len(ids)
            samplings = wishes.samplings(service.engine.defaults, room)
            self.requests += [Request(ids, sampling, adapter, client=client) for sampling in samplings]
            echo = (prompt if isinstance(prompt, str) else service.text_of(prompt)) if wishes.echo else ""
            self.echoes += [echo] * len(samplings)
        self.stamp = service.stamp("cmpl", wishes.model)

    def close(self) -> None:
        """Nothing is held for it."""


class _Choice:
    """One reply on its way."""

    def __init__(self, made: _Completion, index: int) -> None:
        self._texts, self._index = made.service.texts, index
        self._top = made.requests[index].sampling.logprobs
        self._waiting: list[Token] = []
        self._told = 0  # characters
        self._echo = made.echoes[index]
        self.end: End | None = None

    def take(self, piece: Piece) -> dict[str, Any] | None:
        """What is new of the choice; None where nothing is."""
        self._waiting += piece.tokens
        text, self._echo = self._echo + piece.text, ""
        self.end = piece.end
        if not text and not piece.end:
            return None
        logprobs = None
        if self._top is not None:
            logprobs = completion_logprobs(self._texts, self._waiting, self._top, self._told)
        self._told += len(text)
        self._waiting = []
        reason = piece.end.finish_reason if piece.end else None
        return {"index": self._index, "text": text, "logprobs": logprobs, "finish_reason": reason}


async def _whole(running: Running, made: _Completion) -> dict[str, Any]:
    found: list[list[Piece]] = [[] for _ in made.requests]
    try:
        await running.start()
        async for index, piece in running.pieces():
            found[index].append(piece)
    finally:
        running.close()
    choices, ends = [], []
    for index, pieces in enumerate(found):
        tokens = tuple(token for piece in pieces for token in piece.tokens)
        choice = _Choice(made, index)
        choices.append(choice.take(Piece("".join(piece.text for piece in pieces), tokens, pieces[-1].end)) or {})
        ends += [choice.end] if choice.end else []
    return responses.completion(made.stamp, choices, responses.usage(ends, made.prompt_tokens))


async def _events(running: Running, made: _Completion) -> AsyncIterator[str]:
    stamp, with_usage = made.stamp, made.wishes.include_usage
    choices = [_Choice(made, index) for index in range(len(made.requests))]
    async for index, piece in running.pieces():
        if told := choices[index].take(piece):
            part = responses.completion(stamp, [told], None)
            yield responses.event({**part, "usage": None} if with_usage else part)
    if with_usage:
        used = responses.usage([choice.end for choice in choices if choice.end], made.prompt_tokens)
        yield responses.event(responses.usage_chunk(stamp, "text_completion", used))
