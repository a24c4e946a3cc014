"""The data currency: what a dataset row becomes, and what rendering makes of it. No tensors.

row (dict) --format--> Example (Text | Chat | Preference | Feedback | Prompt) --Renderer--> Encoded
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = [
    "PLACE",
    "Chat",
    "Encoded",
    "Example",
    "Feedback",
    "MediaFacts",
    "Medium",
    "Message",
    "Modality",
    "Origin",
    "Placed",
    "Preference",
    "Prompt",
    "Role",
    "Text",
    "ToolCall",
]

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]
Modality: TypeAlias = Literal["image", "video", "audio"]

PLACE = "\ufffc"
"""Where a medium stands in the text of a message: Unicode's own character for it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from. `line` is 1-based and the place in the file where the row begins; None where the
    format has no lines (Parquet, Arrow): then `row`, 0-based, tells it."""

    file: str
    row: int
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line is not None else f"{self.file}, row {self.row}"


NOWHERE = Origin("(in memory)", 0)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made. `arguments` is the parsed JSON object."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """A file of a medium as it is shown, before anything is resized: pixels, frames, frames a second, seconds. `digest`
    is of its bytes."""

    width: int = 0
    height: int = 0
    frames: int = 0
    fps: float = 0.0
    seconds: float = 0.0
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture, a film or a sound. `source`: a path, an address or the bytes, as the data has it, or the frames of a
    film, each so; with `facts` it is the path of a file that was looked at, or the paths of the frames."""

    kind: Modality
    source: str | bytes | tuple[str | bytes, ...]
    facts: MediaFacts | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """The tokens [start, end) of a sequence that stand for a medium: from the first of its placeholders to the last.
    `where`: the row that it is of."""

    medium: Medium
    start: int
    end: int
    where: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat. `content` of an assistant holds neither thoughts nor tool calls: they are parsed out
    into `reasoning` and `tool_calls`; `written` is then the text as it was, for templates that have no form for calls.
    `trained` overrules the mask for this message (None: by the run's rules); `weight` is what its tokens count in the
    loss (None: 1). A weight of 0 comes with `trained` False, any other with True. Where there are `media`, each PLACE
    in `content` stands for the next of them; without, it is a character like others."""

    role: Role
    content: str
    reasoning: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    tool_call_id: str | None = None
    name: str | None = None
    trained: bool | None = None
    written: str | None = None
    weight: float | None = None
    media: Sequence[Medium] = ()

    def __post_init__(self) -> None:
        if self.media and self.content.count(PLACE) != len(self.media):
            raise ValueError(f"{self.content.count(PLACE)} places for {len(self.media)} media")


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text, for pre-training. `trusted_markup`: control tokens in it are meant as such."""

    text: str
    origin: Origin = NOWHERE
    trusted_markup: bool = False


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation; a system message, if any, comes first. `tools` are JSON schemas in OpenAI's form.
    `trusted_markup`: control tokens in its texts are meant as such; otherwise they stay text. `replies_only`: nothing
    but replies is trained, whatever the run says about prompts."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    origin: Origin = NOWHERE
    trusted_markup: bool = False
    replies_only: bool = False


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a better and a worse continuation. `margin`: by how much the reward of the better one is to be
    higher, for reward models (None: nobody asks)."""

    prompt: Sequence[Message]
    chosen: Sequence[Message]
    rejected: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    origin: Origin = NOWHERE
    trusted_markup: bool = False
    margin: float | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """A prompt and an answer that was liked or not."""

    prompt: Sequence[Message]
    answer: Sequence[Message]
    liked: bool
    tools: Sequence[Mapping[str, Any]] = ()
    origin: Origin = NOWHERE
    trusted_markup: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt alone, for generation; `extra` carries the row's other columns to reward functions."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    origin: Origin = NOWHERE
    trusted_markup: bool = False


Example: TypeAlias = Text | Chat | Preference | Feedback | Prompt


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training sequence: token ids, for each whether the model is trained to write it, and its weight in the loss
    (None: all 1). Equal lengths. `media` stand in the order of their tokens."""

    ids: Sequence[int]
    trained: Sequence[bool]
    origin: Origin = NOWHERE
    weights: Sequence[float] | None = None
    media: Sequence[Placed] = ()

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.trained), f"{len(self.ids)} ids, {len(self.trained)} mask entries"
