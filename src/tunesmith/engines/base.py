"""The contract of an engine: token ids in, pieces of text out, for many requests at once; and messages in, text out.

submit(request, sink)  returns at once; the sink gets the pieces as they come, the last one with `end`
run(request)           the same as an iterator
generate, stream       messages in, a reply or its text out
score                  prompts and continuations in, log probabilities out
"""

from __future__ import annotations

import queue
from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from tunesmith.core.errors import Problem, TunesmithError, UnavailableError
from tunesmith.core.types import Chat, Message, Placed
from tunesmith.engines.chat import ChatEngine, Reply

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.config import RunConfig
    from tunesmith.config.generate import GenerateConfig
    from tunesmith.render import Renderer

__all__ = [
    "Constraint",
    "End",
    "Engine",
    "FinishReason",
    "Handle",
    "Overloaded",
    "Pair",
    "Piece",
    "Reply",
    "Request",
    "Sampling",
    "Score",
    "Sink",
    "Token",
]

FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and when to end. `max_new_tokens` None: up to `max_length` with the prompt.

    logit_bias   added to the logits, by token
    stop         texts that end the reply and are not part of it
    logprobs     None: none; k: of the chosen token, and of the k likeliest ones. They are those of the model: before
                 bias, penalties, constraint and temperature

    The penalties are those of the field: `repetition_penalty` divides (transformers) and looks at the prompt as well,
    the other two are subtracted (OpenAI) and look at the reply alone.
    """

    do_sample: bool = True
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 50
    repetition_penalty: float = 1.0
    max_new_tokens: int | None = 1024
    max_length: int = 1024
    skip_special_tokens: bool = True
    seed: int | None = None
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: tuple[str, ...] = ()
    logprobs: int | None = None

    @classmethod
    def of(cls, config: GenerateConfig, **changes: Any) -> Sampling:
        """From the config's section, with changes for one call. `max_new_tokens` wins over `max_length`."""
        sampling = cls(
            do_sample=config.do_sample,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
            repetition_penalty=config.repetition_penalty,
            max_new_tokens=config.max_new_tokens if config.max_new_tokens > 0 else None,
            max_length=config.max_length,
            skip_special_tokens=config.skip_special_tokens,
        )
        return replace(sampling, **changes)

    @property
    def greedy(self) -> bool:
        """Whether always the likeliest token comes; a temperature of 0 says so too."""
        return not self.do_sample or self.temperature == 0

    def room(self, prompt_tokens: int) -> int:
        """How many tokens the reply may have."""
        return self.max_new_tokens if self.max_new_tokens is not None else max(self.max_length - prompt_tokens, 0)


class Constraint(Protocol):
    """What a reply must look like (a grammar, a JSON schema), one object per reply. Called from the engine's thread.

    One that a grammar of llguidance says in full also has it as `lark`, for engines that check tokens themselves.
    """

    @property
    def finished(self) -> bool:
        """Whether nothing but the end may come."""

    def restrict(self, scores: Tensor) -> None:
        """scores [V] of the next token: what may not come becomes -inf, in place. Where the reply may end, stop tokens
        stay as they are."""

    def accept(self, token: int) -> None:
        """This token has been chosen; stop tokens are told as well."""


@dataclass(frozen=True, slots=True)
class Request:
    """One reply that is asked for.

    prompt      ids, from `renderer.prompt` or a tokenizer
    adapter     a loaded adapter by name; None: the model as configured
    constraint  of this reply alone
    client      the queue is fair between clients
    media       what tokens of the prompt stand for, as `renderer.prompt` tells it; read when the reply's turn comes
    """

    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    adapter: str | None = None
    constraint: Constraint | None = None
    client: str = ""
    media: tuple[Placed, ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the reply, its log probability, and the likeliest ones as (id, log probability), the best first."""

    id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """How a reply ended.

    prompt_tokens      of them `cached_tokens` were not computed, as another request had the same beginning
    completion_tokens  with the stop token
    stop               which text of `Sampling.stop` ended the reply
    error              with finish_reason `error` only
    """

    finish_reason: FinishReason
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    stop: str | None = None
    error: TunesmithError | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """`text` is final: what could begin a stop text, or is half a character, is held back until it is decided. `tokens`
    come when they are chosen, so a piece may have tokens and no text; a stop token is in none."""

    text: str = ""
    tokens: tuple[Token, ...] = ()
    end: End | None = None


Sink: TypeAlias = Callable[[Piece], None]
Pair: TypeAlias = tuple[Sequence[int], Sequence[int]]
"""The ids of a prompt, and those of a continuation."""


@dataclass(frozen=True, slots=True)
class Score:
    """How likely a continuation is: the log probability of each of its tokens, and whether each was the likeliest."""

    logprobs: tuple[float, ...]
    greedy: bool


class Overloaded(UnavailableError):
    """The queue is full. `retry_after`: seconds after which it is worth asking again."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        what, fix = "too many requests are waiting", "ask again later, or raise max_queued_requests"
        super().__init__(Problem("E-ENGINE-004", what, got=f"{waiting} requests", fix=fix))
        self.retry_after = retry_after


class Handle(Protocol):
    """Of a submitted request."""

    def cancel(self) -> None:
        """Within one token step the reply ends with finish_reason `cancelled`. Idempotent, from any thread."""


class Engine(ChatEngine):
    """A loaded model that answers. All methods may be called from any thread.

    context    most tokens of prompt and reply together; None: no limit is known
    at_once    how many requests are worth having in flight
    """

    renderer: Renderer
    tokenizer: Any
    defaults: GenerateConfig
    context: int | None
    at_once: int

    @classmethod
    @abstractmethod
    def from_config(cls, config: RunConfig) -> Engine: ...

    @abstractmethod
    def submit(self, request: Request, sink: Sink) -> Handle:
        """Returns at once. The sink is called from a thread of the engine, in order; the last piece has `end`.

        Raises Overloaded where the queue is full, DataError where the prompt leaves no room, UsageError for an adapter
        that is not loaded, and for media that the engine does not take (E-MEDIA-060).
        """

    @abstractmethod
    def embed(
        self, prompts: Sequence[Sequence[int]], pooling: Literal["mean", "last"] = "mean", adapter: str | None = None
    ) -> list[list[float]]:
        """The last hidden state of each prompt: the mean over its tokens, or that of the last one; not normalized.

        Raises DataError for a prompt that is empty or longer than the context.
        """

    @abstractmethod
    def score(self, pairs: Sequence[Pair], adapter: str | None = None) -> list[Score]:
        """How likely each continuation is after its prompt, for the model itself: a log softmax in float32, without
        temperature, bias or penalties.

        Raises DataError for an empty prompt or continuation, and where the model would have to read more than it can,
        which the last token of a continuation is no part of. UsageError for an adapter that is not loaded.
        """

    @property
    @abstractmethod
    def adapters(self) -> tuple[str, ...]:
        """Names that a request may ask for."""

    @abstractmethod
    def load_adapter(self, name: str, path: str) -> None:
        """Make an adapter known by a name, while others run. Raises MissingInputError where it is not there or does
        not fit, UsageError where the name is taken."""

    @abstractmethod
    def unload_adapter(self, name: str) -> None:
        """Forget it. Requests that use it end with an error. Raises UsageError for a name that is not loaded."""

    @abstractmethod
    def stats(self) -> dict[str, float]:
        """What the engine does now and has done, by name."""

    @abstractmethod
    def close(self) -> None:
        """End all requests as cancelled and free the model."""

    # ---- built on submit ----

    def run(self, request: Request) -> Iterator[Piece]:
        """The pieces of a reply as they come; the last one has `end`, also where that is an error. Closing the iterator
        cancels. Raises what `submit` raises, at the first piece."""
        pieces: queue.SimpleQueue[Piece] = queue.SimpleQueue()
        handle = self.submit(request, pieces.put)
        try:
            while True:
                piece = pieces.get()
                yield piece
                if piece.end:
                    return
        finally:
            handle.cancel()

    def run_all(self, requests: Iterable[Request]) -> Iterator[tuple[int, Piece]]:
        """Many requests, `at_once` of them in flight: (number of the request, all of its reply as one piece), in the
        order in which they end. Closing the iterator cancels."""
        ended: queue.SimpleQueue[tuple[int, Piece]] = queue.SimpleQueue()
        waiting, flying = enumerate(requests), dict[int, Handle]()
        try:
            while True:
                while len(flying) < self.at_once and (following := next(waiting, None)):
                    number, request = following
                    flying[number] = self.submit(request, _Joined(number, ended.put))
                if not flying:
                    return
                number, piece = ended.get()
                del flying[number]
                yield number, piece
        finally:
            for handle in flying.values():
                handle.cancel()

    def generate(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any) -> Reply:
        """The whole reply. Raises what `submit` raises, and the error that ended the reply."""
        pieces = list(self._run_messages(messages, tools, sampling))
        text, end = "".join(piece.text for piece in pieces), pieces[-1].end
        assert end is not None, "the last piece has the end"
        if end.finish_reason not in ("stop", "length"):
            raise UnavailableError(Problem("E-ENGINE-005", "the engine was closed before the reply was complete"))
        reason: Literal["stop", "length"] = "stop" if end.finish_reason == "stop" else "length"
        return Reply(self.renderer.parse(text), text, reason, end.prompt_tokens, end.completion_tokens)

    def stream(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any
    ) -> Generator[str, None, int | None]:
        count: int | None = None
        for piece in self._run_messages(messages, tools, sampling):
            if piece.text:
                yield piece.text
            count = piece.end.completion_tokens if piece.end else None
        return count

    def _run_messages(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]], sampling: dict[str, Any]
    ) -> Iterator[Piece]:
        adapter = sampling.pop("adapter", None)
        prompt = self.renderer.prompt(messages, tools)
        wanted = Sampling.of(self.defaults, **sampling)
        for piece in self.run(Request(tuple(prompt.ids), wanted, adapter, media=tuple(prompt.media))):
            if piece.end and piece.end.error:
                raise piece.end.error
            yield piece

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Message:
        return self.renderer.parse(text, tools)

    @property
    def thought_marks(self) -> tuple[str, str]:
        opening, closing = self.renderer.template.thinking
        return opening.strip(), closing.strip()

    def thinks_first(self, messages: Sequence[Message]) -> bool:
        """Some templates open a thought in the prompt."""
        prompt = self.renderer.text(Chat(messages), open_reply=True)
        return prompt.rstrip().endswith(self.thought_marks[0])


class _Joined:
    """A sink that hands on one piece in place of many."""

    def __init__(self, number: int, hand: Callable[[tuple[int, Piece]], None]) -> None:
        self._number, self._hand = number, hand
        self._texts: list[str] = []
        self._tokens: list[Token] = []

    def __call__(self, piece: Piece) -> None:
        self._texts.append(piece.text)
        self._tokens += piece.tokens
        if piece.end:
            self._hand((self._number, Piece("".join(self._texts), tuple(self._tokens), piece.end)))
