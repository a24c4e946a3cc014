"""POST /v1/chat/completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from starlette.requests import Request as HttpRequest

from tunesmith.core.types import ToolCall
from tunesmith.engines.base import End, Piece, Request, Token
from tunesmith.render.replies import Delta
from tunesmith.serve import responses
from tunesmith.serve.body import read_json
from tunesmith.serve.errors import unsupported
from tunesmith.serve.grammar import Grammar, as_json
from tunesmith.serve.media import RequestMedia
from tunesmith.serve.request import ChatRequest, read_chat
from tunesmith.serve.running import Running
from tunesmith.serve.service import Service
from tunesmith.serve.streams import answer
from tunesmith.serve.tokens import chat_logprobs
from tunesmith.serve.tool_calls import JsonCalls, calls_grammar, form_of, strict_grammar

__all__ = ["create"]


class Reader(Protocol):
    """Takes a reply apart while it comes (`render.replies.ReplyReader`, `JsonCalls`)."""

    calls: tuple[ToolCall, ...]

    def push(self, text: str) -> Delta: ...

    def finish(self) -> Delta: ...


async def create(http: HttpRequest) -> Any:
    service: Service = http.scope["service"]
    wishes = read_chat(await read_json(http, service.limits))
    media = service.media()
    # Apart from the threads of others: an address may take its time.
    threads = service.readers if wishes.messages.places else None
    making = partial(_Chat, service, wishes, http.scope["client_name"], media)
    chat = await asyncio.get_running_loop().run_in_executor(threads, making)
    return await answer(http, chat, _whole, _events)


class _Chat:
    """A request in the engine's terms. Made in a thread: templates, tokenizers and grammars take their time. `close`
    when it is answered."""

    def __init__(self, service: Service, wishes: ChatRequest, client: str, media: RequestMedia) -> None:
        self.service, self.wishes, self.close = service, wishes, media.close
        try:
            self._make(client, media)
        except BaseException:
            media.close()
            raise

    def _make(self, client: str, media: RequestMedia) -> None:
        service, wishes = self.service, self.wishes
        self._renderer = service.renderer(wishes.thinking)
        adapter = service.adapter(wishes.model)
        prompt = service.chat_prompt(self._renderer, media.settled(wishes.messages), wishes.tools)
        self.prompt = tuple(prompt.ids)
        seen = tuple(replace(one, where=place) for one, place in zip(prompt.media, wishes.messages.places, strict=True))
        room = service.check_room(len(self.prompt), wishes.max_tokens, "messages")
        self._thinks_first = service.thinks_first(self.prompt)
        self._json_calls = False
        grammar = self._grammar()
        raw = self._marks_are_special()
        changes = {"skip_special_tokens": False} if raw else {}
        self.requests = [
            Request(
                self.prompt, sampling, adapter, service.grammars.constraint(grammar) if grammar else None, client, seen
            )
            for sampling in wishes.samplings(service.engine.defaults, room, **changes)
        ]
        self.stamp = service.stamp("chatcmpl", wishes.model)

    def reader(self) -> Reader:
        if self._json_calls:
            return JsonCalls()
        return self._renderer.reader(
            thinks_first=self._thinks_first, reads_calls=bool(self.wishes.tools), tools=self.wishes.tools
        )

    def _marks_are_special(self) -> bool:
        """Whether the text of a reply has to be had with its special tokens: where they tell thoughts or calls."""
        special = set(self.service.engine.tokenizer.all_special_tokens)
        marks = list(self._renderer.template.thinking)
        if self.wishes.tools:
            form = form_of(self._renderer)
            marks += [form.before, form.middle, form.between, form.behind]
        return any(token in mark for token in special for mark in marks)

    def _grammar(self) -> Grammar | None:
        wishes, grammars = self.wishes, self.service.grammars
        if not wishes.tools:
            answer = wishes.schema and f"start: {as_json(wishes.schema)}"
            return self._demanded(answer, "response_format") if answer else None
        form = form_of(self._renderer)
        if wishes.schema is not None:  # an answer in this form, or calls
            if not form.own:
                message = "with this model, response_format goes with no tools"
                raise unsupported(message, "response_format")
            calls = calls_grammar(grammars, self._renderer, form, wishes.tools, several=wishes.parallel)
            text = f"start: answer | calls\nanswer: {as_json(wishes.schema)}\n" + calls.replace("start:", "calls:", 1)
            return self._demanded(text, "response_format")
        if wishes.choice.mode == "required":
            self._json_calls = not form.own
            tools = [tool for tool in wishes.tools if wishes.choice.name in (None, tool["function"]["name"])]
            several = wishes.parallel and wishes.choice.name is None
            return self._demanded(calls_grammar(grammars, self._renderer, form, tools, several=several), "tools")
        if any(tool["function"].get("strict") for tool in wishes.tools):
            return strict_grammar(grammars, self._renderer, wishes.tools, several=wishes.parallel)
        return None

    def _demanded(self, text: str, param: str) -> Grammar:
        """The whole reply; behind the thought where the prompt has begun one."""
        if not self._thinks_first:
            return self.service.grammars.made(text, param)
        text = "start: /\\n*/ answered\n" + text.replace("start:", "answered:", 1)
        return self.service.grammars.made(text, param, trigger=self._renderer.template.thinking[1])


class _Choice:
    """One reply on its way: pieces of the engine in, what is new of the message out."""

    def __init__(self, chat: _Chat, index: int) -> None:
        self.chat, self.index = chat, index
        self._reader = chat.reader()
        self._waiting: list[Token] = []  # tokens whose text is held back
        self.content = self.reasoning = ""
        self.calls: list[dict[str, Any]] = []
        self.logprobs: list[dict[str, Any]] | None = [] if self._top is not None else None
        self.end: End | None = None

    @property
    def _top(self) -> int | None:
        top: int | None = self.chat.requests[self.index].sampling.logprobs
        return top

    def take(self, piece: Piece) -> tuple[Delta, list[dict[str, Any]] | None]:
        """What is new, and the log probabilities of the tokens that came since the last text."""
        delta = self._reader.push(piece.text) if piece.text else Delta()
        if piece.end:
            rest = self._reader.finish()
            delta = Delta(delta.reasoning + rest.reasoning, delta.content + rest.content)
            calls = self._reader.calls if self.chat.wishes.parallel else self._reader.calls[:1]
            self.calls, self.end = responses.tool_calls(calls), piece.end
        self.reasoning += delta.reasoning
        self.content += delta.content
        return delta, self._logprobs(piece, bool(any(delta) or piece.end))

    def _logprobs(self, piece: Piece, shown: bool) -> list[dict[str, Any]] | None:
        if self.logprobs is None or self._top is None:
            return None
        self._waiting += piece.tokens
        if not shown or not self._waiting:
            return None
        found = chat_logprobs(self.chat.service.texts, self._waiting, self._top)
        self.logprobs += found
        self._waiting = []
        return found

    @property
    def finish_reason(self) -> str:
        assert self.end is not None
        return "tool_calls" if self.calls and self.end.finish_reason == "stop" else self.end.finish_reason

    def whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": self.content if self.content or not self.calls else None,
            "refusal": None,
        }
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.calls
        told = None if self.logprobs is None else {"content": self.logprobs, "refusal": None}
        return {"index": self.index, "message": message, "logprobs": told, "finish_reason": self.finish_reason}


async def _whole(running: Running, chat: _Chat) -> dict[str, Any]:
    choices = [_Choice(chat, index) for index in range(len(chat.requests))]
    try:
        await running.start()
        async for index, piece in running.pieces():
            choices[index].take(piece)
    finally:
        running.close()
    used = responses.usage([choice.end for choice in choices if choice.end], len(chat.prompt))
    return responses.chat_completion(chat.stamp, [choice.whole() for choice in choices], used)


async def _events(running: Running, chat: _Chat) -> AsyncIterator[str]:
    stamp, with_usage = chat.stamp, chat.wishes.include_usage
    choices = [_Choice(chat, index) for index in range(len(chat.requests))]

    def chunk(index: int, delta: dict[str, Any], **more: Any) -> str:
        return responses.event(responses.chat_chunk(stamp, index, delta, with_usage=with_usage, **more))

    for choice in choices:
        yield chunk(choice.index, {"role": "assistant", "content": "", "refusal": None})
    async for index, piece in running.pieces():
        choice = choices[index]
        delta, logprobs = choice.take(piece)
        if delta.reasoning:
            yield chunk(index, {"reasoning_content": delta.reasoning})
        if delta.content or logprobs:
            yield chunk(index, {"content": delta.content}, logprobs=logprobs)
        if piece.end is None:
            continue
        for number, call in enumerate(choice.calls):
            named = {"name": call["function"]["name"], "arguments": ""}
            yield chunk(index, {"tool_calls": [{**call, "index": number, "function": named}]})
            arguments = {"arguments": call["function"]["arguments"]}
            yield chunk(index, {"tool_calls": [{"index": number, "function": arguments}]})
        yield chunk(index, {}, finish_reason=choice.finish_reason)
    if with_usage:
        used = responses.usage([choice.end for choice in choices if choice.end], len(chat.prompt))
        yield responses.event(responses.usage_chunk(stamp, "chat.completion.chunk", used))
