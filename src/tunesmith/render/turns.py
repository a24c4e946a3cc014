"""Which messages of a chat are trained, and the system message that a run adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Message
from tunesmith.render.errors import RenderError
from tunesmith.render.spans import Span

__all__ = [
    "KEEPING_WORDS",
    "Statistics",
    "TemplateSettings",
    "TextTemplate",
    "replies",
    "trained_replies",
    "with_default_system",
]

KEEPING_WORDS = {
    "preserve_thinking": True,
    "clear_thinking": False,
    "keep_past_thinking": True,
    "truncate_history_thinking": False,
    "drop_thinking": False,
}
"""Words by which chat templates ask whether old thoughts are kept, and the value that keeps them."""


class TemplateSettings(Protocol):
    """What rendering needs of the run's template section."""

    @property
    def template(self) -> str | None: ...
    @property
    def train_on_prompt(self) -> bool: ...
    @property
    def mask_history(self) -> bool: ...
    @property
    def train_turns(self) -> str: ...
    @property
    def loss_weights(self) -> str | None: ...
    @property
    def enable_thinking(self) -> bool | None: ...
    @property
    def preserve_thinking(self) -> bool: ...
    @property
    def default_system(self) -> str | None: ...
    @property
    def tool_format(self) -> str | None: ...


@dataclass(slots=True)
class Statistics:
    """What rendering did to the chats it was given for training; all counts."""

    chats: int = 0
    split_chats: int = 0
    """Chats that became several samples, because the template writes history differently from the last turn."""
    extra_samples: int = 0
    dropped_thoughts: int = 0
    """Replies whose thoughts the template does not write."""
    other_openings: int = 0
    """Replies that the template opens with text which it does not keep in the finished chat."""
    unstopped: int = 0
    """Trained replies that the template ends with no stop token."""

    def count_split(self, samples: int) -> None:
        """A chat became `samples` samples; one means that only one of its replies is trained."""
        self.split_chats += samples > 1
        self.extra_samples += max(0, samples - 1)

    def lines(self) -> list[str]:
        """What the user should know, one sentence each."""
        told = (
            (
                self.split_chats,
                f"{self.split_chats} of {self.chats} chats were split into one sample per reply ({self.extra_samples} "
                "extra samples): the template writes earlier replies differently from the last one",
            ),
            (self.dropped_thoughts, f"the template does not write the thoughts of {self.dropped_thoughts} replies"),
            (
                self.other_openings,
                f"{self.other_openings} replies start right after the header: the template opens a reply with more "
                "text than it keeps in a finished chat",
            ),
            (
                self.unstopped,
                f"the template writes no stop token behind {self.unstopped} replies: the model does not learn to end "
                "them",
            ),
        )
        return [line for count, line in told if count]


class TextTemplate(Protocol):
    """What a template does, Jinja or YAML: text with provenance and marks."""

    name: str
    statistics: Statistics
    thinking: tuple[str, str]
    """Words around a thought."""
    dialect: str | None
    """The form of its tool calls, where that is known."""

    def samples(self, chat: Chat) -> list[list[Span]]: ...

    def prompt(self, chat: Chat, open_reply: bool) -> list[Span]: ...

    @property
    def stops(self) -> tuple[str, ...]: ...


def replies(messages: Sequence[Message]) -> list[int]:
    return [index for index, message in enumerate(messages) if message.role == "assistant"]


def trained_replies(chat: Chat, messages: Sequence[Message], settings: TemplateSettings) -> set[int]:
    """Positions of the replies to train: all, or the last one, then what single messages say."""
    turns = replies(messages)
    wanted = set(turns[-1:] if settings.mask_history or settings.train_turns == "last" else turns)
    for index, message in enumerate(messages):
        if message.trained is None:
            continue
        if message.role != "assistant" and message.trained:
            raise RenderError(
                Problem(
                    "E-RENDER-007",
                    f"message {index + 1} of a chat asks to be trained, but its role is {message.role}",
                    where=str(chat.origin),
                    fix="mark only replies of the assistant, or set train_on_prompt: true for the whole chat",
                )
            )
        (wanted.add if message.trained else wanted.discard)(index)
    return wanted


def with_default_system(messages: Sequence[Message], default_system: str | None) -> list[Message]:
    """The messages, led by the run's own system message if they have none."""
    if default_system and not any(message.role == "system" for message in messages):
        return [Message("system", default_system), *messages]
    return list(messages)
