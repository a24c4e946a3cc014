"""The smaller contract: messages in, text out. Who can do no more than that (a server elsewhere) is a `ChatEngine`; an
`Engine` (`engines.base`) also takes token ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

from tunesmith.core.types import Message

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["ChatEngine", "Reply"]


@dataclass(frozen=True, slots=True)
class Reply:
    """`message` is what `text` says once thoughts and calls are split off; token counts include the stop token."""

    message: Message
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int


class ChatEngine(ABC):
    """Answers messages. All methods may be called from any thread.

    `sampling` of `generate` and `stream` are fields of `engines.base.Sampling`, and `adapter`.
    """

    @classmethod
    @abstractmethod
    def from_config(cls, config: RunConfig) -> ChatEngine: ...

    @abstractmethod
    def generate(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any) -> Reply:
        """The whole reply. Raises TunesmithError where there is none."""

    @abstractmethod
    def stream(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = (), **sampling: Any
    ) -> Generator[str, None, int | None]:
        """Pieces of text as they come, thoughts and calls between their marks; returns how many tokens they were, where
        that is known. Closing the generator ends generation. Raises as `generate` does."""

    @abstractmethod
    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Message:
        """The text of a reply as a message."""

    @property
    @abstractmethod
    def thought_marks(self) -> tuple[str, str]:
        """What stands before and after a thought in the text of a reply."""

    @abstractmethod
    def thinks_first(self, messages: Sequence[Message]) -> bool:
        """Whether the text of the next reply begins inside a thought."""

    @abstractmethod
    def close(self) -> None:
        """End what runs, and free what is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
