"""The contract of an engine: messages in, text out, whole or as a stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.core.types import Message

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.config.generate import GenerateConfig

__all__ = ["Engine", "Reply", "Sampling"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and when to end. `max_new_tokens` None: up to `max_length` with the prompt."""

    do_sample: bool = True
    temperature: float = 0.95
    top_p: float = 0.7
    top_k: int = 50
    repetition_penalty: float = 1.0
    max_new_tokens: int | None = 1024
    max_length: int = 1024
    skip_special_tokens: bool = True
    seed: int | None = None

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

    def room(self, prompt_tokens: int) -> int:
        """How many tokens the reply may have."""
        return self.max_new_tokens if self.max_new_tokens is not None else max(self.max_length - prompt_tokens, 0)


@dataclass(frozen=True, slots=True)
class Reply:
    """`message` is what `text` says once thoughts are split off; token counts include the stop token."""

    message: Message
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


class Engine(ABC):
    """A loaded model that answers. Not safe for several threads at once unless an engine says so."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: RunConfig) -> Engine: ...

    @abstractmethod
    def generate(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any
    ) -> Reply: ...

    @abstractmethod
    def stream(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any
    ) -> Iterator[str]:
        """Pieces of text as they come; closing the iterator ends generation."""

    @abstractmethod
    def close(self) -> None:
        """Free the model."""

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
