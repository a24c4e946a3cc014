"""Questions as prompts: solved examples as earlier turns of a chat, and the four letters as the next token.

The texts are LlamaFactory's. What is compared is the logit of the first token in which the template's own writing of
the four answers differs, so whatever a template puts before a reply (an empty thought, say) belongs to the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Chat, Message
from tunesmith.evaluate.questions import LETTERS, Question

if TYPE_CHECKING:
    from tunesmith.render import Renderer

__all__ = ["WORDS", "Asked", "Words", "ask", "draw_examples"]


class Words(NamedTuple):
    """How questions are put in a language. `head` comes before the first one."""

    head: str
    answer: str


WORDS: Mapping[str, Words] = {
    "en": Words("The following are multiple choice questions (with answers) about {subject}.\n\n", "\nAnswer:"),
    "zh": Words("以下是中国关于{subject}考试的单项选择题，请选出其中的正确答案。\n\n", "\n答案："),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as the model reads it: the prompt, the four tokens that are compared, and how many examples precede
    it."""

    prompt: tuple[int, ...]
    letters: tuple[int, ...]
    shots: int


def draw_examples(pool: Sequence[Question], question: Question, count: int, seed: Sequence[int]) -> list[Question]:
    """At most `count` of the pool, without the question itself, in the order of the pool. All of it where it is no
    larger, so that nothing is left to the seed."""
    others = [one for one in pool if one is not question]
    if len(others) <= count:
        return others
    chosen = np.random.default_rng(seed).choice(len(others), count, replace=False)
    return [others[number] for number in sorted(chosen.tolist())]


def ask(
    questions: Sequence[Question],
    examples: Sequence[Sequence[Question]],
    subject: str,
    lang: str,
    renderer: Renderer,
    context: int | None,
) -> list[Asked]:
    """Prompts of the questions of one subject. Where one is longer than `context` tokens, examples are left out, from
    the first one on. Raises DataError where a question does not fit without any, and where the tokenizer has no token
    for each letter."""
    words = WORDS[lang]
    found: dict[int, Asked] = {}
    left = list(range(len(questions)))
    for dropped in range(max((len(own) for own in examples), default=0) + 1):
        shown = {number: examples[number][dropped:] for number in left}
        chats = [_chat(words, subject, shown[number], questions[number]) for number in left]
        prompts = renderer.encode_chats([Chat(chat) for chat in chats], open_reply=True)
        tail, letters = _letters(renderer, chats[0], tuple(prompts[0][0].ids))
        for number, encoded in zip(left, prompts, strict=True):
            prompt = (*encoded[0].ids, *tail)
            if context is None or len(prompt) <= context:
                found[number] = Asked(prompt, letters, len(shown[number]))
        left = [number for number in left if number not in found]
        if not left:
            return [found[number] for number in range(len(questions))]
    got = f"question {left[0]} of {subject}, the context is {context} tokens"
    fix = "take a model with a longer context; a question is never cut"
    raise DataError(Problem("E-EVAL-004", "a question is longer than the model's context", got=got, fix=fix))


def _chat(words: Words, subject: str, examples: Sequence[Question], question: Question) -> list[Message]:
    chat: list[Message] = []
    for one in [*examples, question]:
        options = "".join(f"\n{letter}. {option}" for letter, option in zip(LETTERS, one.options, strict=True))
        head = words.head.format(subject=subject) if not chat else ""
        chat += [Message("user", head + one.text + options + words.answer), Message("assistant", one.answer)]
    return chat[:-1]


def _letters(
    renderer: Renderer, chat: Sequence[Message], prompt: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the template writes between a prompt and a letter, and the token of each letter.

    Where a letter would melt into one token with the text before it, which no model sees while it answers, it is the
    letter's own token.
    """
    answered = [Chat([*chat, Message("assistant", letter)]) for letter in LETTERS]
    whole = [tuple(samples[-1].ids) for samples in renderer.encode_chats(answered)]
    places = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*whole, strict=False))
    common = tuple(tokens[0] for tokens in places)
    if common[: len(prompt)] == prompt:
        tail, letters = common[len(prompt) :], tuple(ids[len(common)] for ids in whole)
    else:
        tail, letters = (), tuple(renderer.encode_plain(letter)[-1] for letter in LETTERS)
    if len(set(letters)) < len(LETTERS):
        what, fix = "the four letters do not begin with tokens of their own", "another template or tokenizer"
        raise DataError(Problem("E-EVAL-005", what, "template", got=str(letters), fix=fix))
    return tail, letters
