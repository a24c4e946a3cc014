"""The sequences that a model reads of an example: one of a text, a chat, feedback or a prompt, two of a pair.

Training makes arrays of them (`blocks`); for looking at them, `encode_examples` keeps what stands beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Encoded, Example, Feedback, Message, Preference, Prompt, Text
from tunesmith.data.dataset import CHOSEN, DISLIKED, KIND_NAMES, LIKED, PLAIN, PROMPT, REJECTED
from tunesmith.render.errors import RenderError

if TYPE_CHECKING:
    from tunesmith.render import Renderer

__all__ = ["Reading", "View", "encode_examples", "split_answer", "views"]


@dataclass(frozen=True, slots=True)
class View:
    """One text or chat that an example shows the model, and of which kind it is (a constant of `dataset`)."""

    content: Text | Chat
    kind: int = PLAIN

    @property
    def label(self) -> str:
        """Which one it is, where there are several kinds."""
        return KIND_NAMES[self.kind]

    @property
    def open(self) -> bool:
        """The chat has no answer; the model is to write it."""
        return self.kind == PROMPT


@dataclass(frozen=True, slots=True)
class Reading:
    """A view and its training samples (several where the template is not prefix-stable; of a PLAIN one only)."""

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
                View(_answered(prompt, chosen, example), CHOSEN),
                View(_answered(prompt, rejected, example), REJECTED),
            ]
        case Feedback(prompt, answer, liked):
            return [View(_answered(prompt, answer, example), LIKED if liked else DISLIKED)]
        case Prompt(messages, tools):
            return [View(Chat(messages, tools, example.origin, example.trusted_markup), PROMPT)]


def _answered(prompt: Sequence[Message], answer: Sequence[Message], example: Preference | Feedback) -> Chat:
    """All replies of the answer are trained but for those of weight 0: what a run says about the turns of a chat
    (`train_turns`, `mask_history`, `train_on_prompt`) is not about them."""
    given = [replace(message, trained=False) if message.role == "assistant" else message for message in prompt]
    own = [replace(one, trained=True) if one.role == "assistant" and one.trained is None else one for one in answer]
    return Chat((*given, *own), example.tools, example.origin, example.trusted_markup, replies_only=True)


def split_answer(example: Example) -> Problem:
    """What is wrong with an answer of which the template makes several sequences."""
    what = "the template writes the first replies of an answer differently from its last: no one sequence has it whole"
    fix = "a template that writes all replies alike (some do with preserve_thinking: true), or answers of one reply"
    return Problem("E-RENDER-017", what, str(example.origin), fix=fix)


def encode_examples(renderer: Renderer, examples: Sequence[Example]) -> list[Outcome]:
    """For each example its readings, or what is wrong with it. Examples of one stage are of one kind."""
    shown = [views(example) for example in examples]
    flat = [view for group in shown for view in group]
    if any(isinstance(view.content, Text) for view in flat):
        encoded = _encode_texts(renderer, [view.content for view in flat if isinstance(view.content, Text)])
    else:
        chats = [view.content for view in flat if isinstance(view.content, Chat)]
        encoded = _encode_chats(renderer, chats, open_reply=any(view.open for view in flat))
    rest = iter(encoded)
    return [
        _outcome(example, group, [next(rest) for _ in group]) for example, group in zip(examples, shown, strict=True)
    ]


def _outcome(example: Example, group: Sequence[View], encoded: Sequence[list[Encoded] | Problem]) -> Outcome:
    readings: list[Reading] = []
    for view, samples in zip(group, encoded, strict=True):
        if isinstance(samples, Problem):
            return samples
        if view.kind != PLAIN and len(samples) > 1:
            return split_answer(example)
        readings.append(Reading(view, samples))
    return readings


def _encode_chats(
    renderer: Renderer, chats: Sequence[Chat], *, open_reply: bool = False
) -> list[list[Encoded] | Problem]:
    encode = partial(renderer.encode_chats, open_reply=True) if open_reply else renderer.encode_chats
    try:
        return list(encode(chats))
    except RenderError as error:
        wrong = _failed(error)
    rest = iter(encode([chat for index, chat in enumerate(chats) if index not in wrong]))
    return [wrong[index] if index in wrong else next(rest) for index in range(len(chats))]


def _encode_texts(renderer: Renderer, texts: Sequence[Text]) -> list[list[Encoded] | Problem]:
    try:
        return [[one] for one in renderer.encode_texts(texts)]
    except RenderError as error:
        wrong = _failed(error)
    rest = iter(renderer.encode_texts([text for index, text in enumerate(texts) if index not in wrong]))
    return [wrong[index] if index in wrong else [next(rest)] for index in range(len(texts))]


def _failed(error: RenderError) -> dict[int, Problem]:
    """What is wrong with which; an error that belongs to no row travels."""
    if not error.failed:
        raise error
    return dict(zip(error.failed, error.problems, strict=True))
