"""Messages to another server, text back. Its template, its defaults and its tools' form are its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from tunesmith.core import env
from tunesmith.core.errors import MissingInputError, Problem
from tunesmith.core.log import get_logger
from tunesmith.core.types import Message
from tunesmith.engines.base import Sampling
from tunesmith.engines.chat import ChatEngine, Reply
from tunesmith.engines.remote.failures import KEY, no_protocol
from tunesmith.engines.remote.fields import CLOSING, OPENING, as_fields, as_messages, calls_of, written_calls
from tunesmith.engines.remote.http import Line, Server
from tunesmith.render.replies import parse_reply

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.engine import EngineConfig

__all__ = ["Remote", "RemoteChat", "connect", "models_of"]

_MARKS = (OPENING, CLOSING)
_PATH = "/chat/completions"


class Remote:
    """What `infer_backend: remote` means: `remote_prompts` chooses."""

    @classmethod
    def from_config(cls, config: RunConfig) -> ChatEngine:
        if config.engine.remote_prompts == "ids":
            from tunesmith.engines.remote.ids import RemoteEngine

            return RemoteEngine.from_config(config)
        return RemoteChat.from_config(config)


def connect(config: EngineConfig) -> Server:
    """The server that the config names, with the key of the environment."""
    key = env.get(KEY).strip()
    url = str(config.remote_url)
    if key and url.startswith("http:") and not _is_here(url):
        get_logger().warning("remote_url is plain http: %s goes over the network as it is", KEY)
    return Server(url, key=key, timeout=config.remote_timeout, retries=config.remote_retries)


def _is_here(url: str) -> bool:
    from urllib.parse import urlsplit

    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


def models_of(server: Server, wanted: str | None) -> tuple[str, list[dict[str, Any]]]:
    """(name of the model, all that the server lists). `wanted`: a name that is known already.

    Raises MissingInputError (E-ENGINE-024) where the server has several and none was named.
    """
    listed = server.get("/models").get("data")
    if not isinstance(listed, list) or not all(isinstance(one, dict) and "id" in one for one in listed):
        raise no_protocol(f"{server.url}/models", f"no list of models: {listed}")
    if wanted is not None:
        return wanted, listed
    # Servers that have adapters list them too, below the model that is their parent.
    names = [str(one["id"]) for one in listed if not one.get("parent")]
    if len(names) == 1:
        return names[0], listed
    what = f"the server has {len(names)} models" if names else "the server has no model"
    got = ", ".join(names) or None
    fix = f"remote_model: {names[0]}" if names else "load one there"
    raise MissingInputError(Problem("E-ENGINE-024", what, f"{server.url}/models", got, fix))


class RemoteChat(ChatEngine):
    """`defaults`: fields of `Sampling` that the config sets; the others are the server's to say."""

    def __init__(self, server: Server, model: str, defaults: Mapping[str, Any]) -> None:
        self._server, self._model, self._defaults = server, model, as_fields(defaults)
        self._lines: set[Line] = set()

    @classmethod
    def from_config(cls, config: RunConfig) -> RemoteChat:
        server = connect(config.engine)
        model = config.engine.remote_model or models_of(server, None)[0]
        names = {field.name for field in fields(Sampling)} & config.user_keys
        found = {name: getattr(config.generate, name) for name in names}
        if found.get("max_new_tokens") == 0:  # max_length counts then
            found.pop("max_new_tokens")
        elif "max_length" in found and config.generate.max_new_tokens:
            found.pop("max_length")
        return cls(server, model, found)

    def generate(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any) -> Reply:
        line = Line()
        self._lines.add(line)
        try:
            found = self._server.post(_PATH, self._body(messages, tools, sampling), line)
        finally:
            self._lines.discard(line)
        try:
            choice, usage = found["choices"][0], found.get("usage") or {}
            said = choice["message"]
            thought = said.get("reasoning_content") or said.get("reasoning") or None
            calls = calls_of(said.get("tool_calls") or ())
            text = _whole(thought or "", said.get("content") or "") + written_calls(calls)
            reason = "length" if choice.get("finish_reason") == "length" else "stop"
            counts = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise no_protocol(self._server.url + _PATH, f"{type(error).__name__}: {error}") from error
        message = Message("assistant", said.get("content") or "", reasoning=thought, tool_calls=calls)
        if not thought and not calls:  # a server that leaves taking apart to others
            message = self.parse(text)
        return Reply(message, text, "length" if reason == "length" else "stop", *counts)

    def stream(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any
    ) -> Generator[str, None, int | None]:
        body = {**self._body(messages, tools, sampling), "stream": True}
        line, writer = Line(), _Writer(self._server.url + _PATH)
        self._lines.add(line)
        try:
            for chunk in self._server.events(_PATH, body, line):
                if text := writer.take(chunk):
                    yield text
            if text := writer.finish():
                yield text
            return writer.tokens
        finally:
            self._lines.discard(line)
            line.cancel()

    def _body(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], sampling: dict[str, Any]
    ) -> dict[str, Any]:
        model = sampling.pop("adapter", None) or self._model  # servers name adapters as models
        found: dict[str, Any] = {"model": model, "messages": as_messages(messages)}
        if tools:
            found["tools"] = list(tools)
        return {**found, **self._defaults, **as_fields(sampling)}

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Message:
        return parse_reply(text, _MARKS, (), None, tools)

    @property
    def thought_marks(self) -> tuple[str, str]:
        return _MARKS

    def thinks_first(self, messages: Sequence[Message]) -> bool:
        return False  # the server tells thoughts apart, and they are marked here

    def close(self) -> None:
        for line in list(self._lines):
            line.cancel()


def _whole(thought: str, content: str) -> str:
    return f"{OPENING}\n{thought}\n{CLOSING}\n\n{content}" if thought else content


class _Writer:
    """The deltas of a stream as one text: a thought between its marks, then words, then calls."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._in_thought = False
        self._calls: dict[int, dict[str, Any]] = {}
        self.tokens: int | None = None
        """Of the reply, where the server tells it: nobody asks for it, as not all servers know how."""

    def take(self, chunk: Mapping[str, Any]) -> str:
        text = ""
        self.tokens = (chunk.get("usage") or {}).get("completion_tokens", self.tokens)
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if thought := delta.get("reasoning_content") or delta.get("reasoning"):
                text += thought if self._in_thought else f"{OPENING}\n{thought}"
                self._in_thought = True
            if content := delta.get("content"):
                text += self._end_thought() + content
            for part in delta.get("tool_calls") or ():
                self._add(part)
        return text

    def _end_thought(self) -> str:
        ending = f"\n{CLOSING}\n\n" if self._in_thought else ""
        self._in_thought = False
        return ending

    def _add(self, part: Mapping[str, Any]) -> None:
        """Name and id of a call come once, its arguments in pieces."""
        known = self._calls.setdefault(int(part.get("index") or 0), {"function": {"name": "", "arguments": ""}})
        function = part.get("function") or {}
        known["id"] = part.get("id") or known.get("id")
        known["function"]["name"] = function.get("name") or known["function"]["name"]
        known["function"]["arguments"] += function.get("arguments") or ""

    def finish(self) -> str:
        try:
            calls = calls_of([self._calls[index] for index in sorted(self._calls)])
        except ValueError as error:
            raise no_protocol(self._where, f"a call that cannot be read: {error}") from error
        return self._end_thought() + written_calls(calls)
