"""What a model reads of an example, for looking at it: one sequence for a text or a chat, two for a pair.

Training has its own way to sequences, through arrays; this one keeps what stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Encoded, Example, Feedback, Message, Preference, Prompt, Text
from tunesmith.render.errors import RenderError

if TYPE_CHECKING:
    from tunesmith.render import Renderer

__all__ = ["Reading", "View", "encode_examples", "views"]


@dataclass(frozen=True, slots=True)
class View:
    """One text or chat that an example shows the model. `label`: which one, where there are several kinds.
    `open`: the chat has no answer; the model is to write it."""

    content: Text | Chat
    label: str = ""
    open: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """A view and its training samples (several where the template is not prefix-stable)."""

    view: View
    samples: Sequence[Encoded]


Outcome: TypeAlias = "list[Reading] | Problem"


def views(example: Example) -> list[View]:
    """The answers of a pair and of feedback are trained, and nothing of their prompts."""
    match example:
        case Text() | Chat():
            return [View(example)]
        case Preference(prompt, chosen, rejected):
            return [
                View(_answered(prompt, chosen, example), "chosen"),
                View(_answered(prompt, rejected, example), "rejected"),
            ]
        case Feedback(prompt, answer, liked):
            return [View(_answered(prompt, answer, example), "liked" if liked else "disliked")]
        case Prompt(messages, tools):
            return [View(Chat(messages, tools, example.origin, example.trusted_markup), "prompt", open=True)]


def _answered(prompt: Sequence[Message], answer: Sequence[Message], example: Preference | Feedback) -> Chat:
    given = [replace(message, trained=False) if message.role == "assistant" else message for message in prompt]
    return Chat((*given, *answer), example.tools, example.origin, example.trusted_markup)


def encode_examples(renderer: Renderer, examples: Sequence[Example]) -> list[Outcome]:
    """For each example its readings, or what is wrong with it. Examples of one stage are of one kind."""
    shown = [views(example) for example in examples]
    flat = [view for group in shown for view in group]
    if any(isinstance(view.content, Text) for view in flat):
        encoded = _encode_texts(renderer, [view.content for view in flat if isinstance(view.content, Text)])
    elif any(view.open for view in flat):
        encoded = [_encode_open(renderer, view.content) for view in flat if isinstance(view.content, Chat)]
    else:
        encoded = _encode_chats(renderer, [view.content for view in flat if isinstance(view.content, Chat)])
    rest = iter(encoded)
    found: list[Outcome] = []
    for group in shown:
        mine = [next(rest) for _ in group]
        fault = next((one for one in mine if isinstance(one, Problem)), None)
        pairs = zip(group, mine, strict=True)
        found.append(fault or [Reading(view, samples) for view, samples in pairs if not isinstance(samples, Problem)])
    return found


def _encode_chats(renderer: Renderer, chats: Sequence[Chat]) -> list[list[Encoded] | Problem]:
    try:
        return list(renderer.encode_chats(chats))
    except RenderError as error:
        wrong = _failed(error)
    rest = iter(renderer.encode_chats([chat for index, chat in enumerate(chats) if index not in wrong]))
    return [wrong[index] if index in wrong else next(rest) for index in range(len(chats))]


def _encode_texts(renderer: Renderer, texts: Sequence[Text]) -> list[list[Encoded] | Problem]:
    try:
        return [[one] for one in renderer.encode_texts(texts)]
    except RenderError as error:
        wrong = _failed(error)
    rest = iter(renderer.encode_texts([text for index, text in enumerate(texts) if index not in wrong]))
    return [wrong[index] if index in wrong else [next(rest)] for index in range(len(texts))]


def _encode_open(renderer: Renderer, chat: Chat) -> list[Encoded] | Problem:
    try:
        ids = renderer.encode_prompt(chat.messages, chat.tools)
    except RenderError as error:
        return error.problems[0]
    return [Encoded(ids, [False] * len(ids), chat.origin)]


def _failed(error: RenderError) -> dict[int, Problem]:
    """What is wrong with which; an error that belongs to no row travels."""
    if not error.failed:
        raise error
    return dict(zip(error.failed, error.problems, strict=True))
