"""What the endpoints share: the engine, its names, renderers, limits, counters, and what is running."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from tunesmith._version import __version__
from tunesmith.core.errors import TunesmithError
from tunesmith.core.suggest import did_you_mean
from tunesmith.core.types import Chat, Encoded, Message
from tunesmith.engines.base import Engine
from tunesmith.engines.rewards import RewardEngine
from tunesmith.media.fetch import Fetcher, Policy
from tunesmith.render import Renderer
from tunesmith.serve.errors import ApiError, as_api_error, invalid, not_found, unsupported
from tunesmith.serve.grammar import Grammars
from tunesmith.serve.limits import LIMITS, Limits
from tunesmith.serve.media import RequestMedia
from tunesmith.serve.metrics import Metrics
from tunesmith.serve.settings import Settings
from tunesmith.serve.slots import Slots
from tunesmith.serve.tokens import TokenTexts

if TYPE_CHECKING:
    from tunesmith.config.template import TemplateConfig

__all__ = ["Ending", "Service", "Stamp", "Task"]

Task: TypeAlias = Literal["generate", "score"]
"""What a model is for: it writes, or it gives rewards."""
_WRONG_TASK = {
    "generate": "this model gives rewards, and writes nothing: ask /v1/score/evaluation or /v1/rerank",
    "score": "this model writes, and gives no rewards: ask /v1/chat/completions, or serve a model of stage rm",
}
"""What is said to who wants the other one."""


class Ending(Protocol):
    """An answer that is being made. `close` ends it, and may be called again."""

    def close(self) -> None: ...


_READERS = 4
"""Requests with media that are looked at at a time."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What all parts of one answer have in common."""

    id: str
    created: int
    model: str
    fingerprint: str


@dataclass
class Service:
    """`made`: who answers. `template`: the config's section, for renderers with another `enable_thinking`; None: there
    are no others. `adapter_dir`: where adapters lie that may be loaded by name."""

    made: Engine | RewardEngine
    settings: Settings
    template: TemplateConfig | None = None
    fallback: str | None = None
    adapter_dir: Path | None = None
    limits: Limits = LIMITS
    metrics: Metrics = field(default_factory=Metrics)
    running: set[Ending] = field(default_factory=set)
    draining: bool = False

    def __post_init__(self) -> None:
        self.created = int(time.time())
        self.slots = Slots(self.settings.max_concurrent, self.limits.queue)
        self.texts = TokenTexts(self.made.tokenizer)
        self.grammars = Grammars(self.made.tokenizer, self.made.renderer.stop_ids, self.limits.grammar_seconds)
        self.renderers: dict[bool, Renderer] = {}
        policy = Policy(remote=self.settings.remote_media, most_bytes=self.limits.media_bytes)
        self.fetcher = Fetcher(policy)
        # Apart from the threads that others make their prompts in: an address may take its time.
        self.readers = ThreadPoolExecutor(_READERS, "tunesmith-media-of-requests")
        digest = self.made.renderer.template_digest + __version__ + self.settings.model_name
        self.fingerprint = f"fp_{sha256(digest.encode()).hexdigest()[:12]}"

    # ---- what it is for ----

    @property
    def task(self) -> Task:
        return "score" if isinstance(self.made, RewardEngine) else "generate"

    def check_task(self, task: Task) -> None:
        """Raises ApiError (400) where the model is for something else."""
        if task != self.task:
            raise ApiError(400, _WRONG_TASK[task], param="model", code="wrong_task")

    @property
    def engine(self) -> Engine:
        """For routes of models that write (`app.TASKS`)."""
        assert isinstance(self.made, Engine), "the route says what it needs"
        return self.made

    @property
    def rewards(self) -> RewardEngine:
        """For routes of models that give rewards."""
        assert isinstance(self.made, RewardEngine), "the route says what it needs"
        return self.made

    # ---- names ----

    @property
    def names(self) -> list[str]:
        """Of the models that a request may name: the model as configured, then its adapters."""
        return [self.settings.model_name, *self.made.adapters]

    def adapter(self, model: str) -> str | None:
        """The adapter that a model's name means. Raises ApiError (404) for a name that means nothing."""
        if model == self.settings.model_name:
            return None
        if model in self.made.adapters:
            return model
        hint = did_you_mean(model, self.names) or f"there is {', '.join(self.names[:10])}"
        raise not_found(f"there is no model {model!r} here; {hint}", "model", "model_not_found")

    def stamp(self, prefix: str, model: str) -> Stamp:
        return Stamp(f"{prefix}-{secrets.token_hex(12)}", int(time.time()), model, self.fingerprint)

    def check_open(self) -> None:
        """Raises ApiError (503) where the server is being stopped."""
        if self.draining:
            message = "the server is being stopped"
            raise ApiError(503, message, kind="server_error", code="stopping", headers={"Retry-After": "5"})

    # ---- prompts ----

    def renderer(self, thinking: bool | None) -> Renderer:
        """The engine's own, or one that asks the model to think, or not to. Raises ApiError (400) where the template
        writes the same in both cases."""
        if thinking is None:
            return self.made.renderer
        if not self.renderers and self.template is not None:
            from dataclasses import replace

            from tunesmith.render import make_renderer

            made = {
                wanted: make_renderer(
                    replace(self.template, enable_thinking=wanted),
                    self.made.tokenizer,
                    fallback=self.fallback,
                    media=self.made.renderer.media,
                )
                for wanted in (True, False)
            }
            chat = Chat([Message("user", "hello")])
            if made[True].text(chat, open_reply=True) != made[False].text(chat, open_reply=True):
                self.renderers = made
        if not self.renderers:
            message = "the model's template knows no enable_thinking"
            raise unsupported(message, "chat_template_kwargs.enable_thinking")
        return self.renderers[thinking]

    def media(self) -> RequestMedia:
        """For the media of one request."""
        media: Any = self.made.renderer.media
        return RequestMedia(media, self.fetcher, self.limits)

    def chat_prompt(
        self, renderer: Renderer, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]
    ) -> Encoded:
        """Raises ApiError (400) for a chat that the template refuses."""
        shown = [{**tool, "function": _without(tool["function"], "strict")} for tool in tools]
        try:
            return renderer.prompt(messages, shown)
        except TunesmithError as error:
            raise as_api_error(error, "messages") from None

    def plain_prompt(self, prompt: str | Sequence[int], param: str) -> tuple[int, ...]:
        """A text that is no chat, or ids, which have to be of the vocabulary. Raises ApiError (400)."""
        if isinstance(prompt, str):
            try:
                return tuple(self.made.renderer.encode_plain(prompt))
            except TunesmithError as error:
                raise as_api_error(error, param) from None
        if wrong := next((one for one in prompt if one >= len(self.made.tokenizer)), None):
            raise invalid(f"there is no token {wrong}: the vocabulary has {len(self.made.tokenizer)}", param)
        return tuple(prompt)

    def text_of(self, tokens: Sequence[int]) -> str:
        text: str = self.made.tokenizer.decode(
            list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def check_room(self, prompt: int, reply: int | None, param: str) -> int | None:
        """How many tokens a reply may have; `reply`: how many were asked for. None: the engine knows no limit.

        Raises ApiError (400) where that does not fit the model's context.
        """
        context = self.engine.context
        if context is None:
            return None
        if prompt + (reply or 1) > context:
            asked = f" and {reply} for the reply" if reply else ", which leaves none for a reply"
            # Clients know the error by its words: langchain by the first, litellm by the next.
            message = f"the prompt is too long: this model's maximum context length is {context} tokens; "
            message += f"this asks for {prompt} in the prompt{asked}"
            raise ApiError(400, message, param=param, code="context_length_exceeded")
        return context - prompt

    def thinks_first(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends inside a thought: some templates open it for the model."""
        opening, _ = self.engine.renderer.template.thinking
        return self.text_of(prompt[-16:]).rstrip().endswith(opening)


def _without(mapping: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key != name}
