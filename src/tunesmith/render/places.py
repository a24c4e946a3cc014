"""Where media stand in the text of a chat, and what the model's processor writes there.

A template writes one placeholder for each medium. Those that it wrote, and not those that look so in a text of a user,
become what the processor puts in their place before the text is encoded; so masks stay exact, and nobody's text can
make a place for a picture that is not there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import PLACE, Chat, Medium, Message, Modality, Placed
from tunesmith.render.errors import RenderError
from tunesmith.render.spans import Span, merge

__all__ = ["MediaTexts", "Placeholder", "check_media", "expanded", "media_of", "part_list", "pieces", "shortened"]


Placeholder: TypeAlias = Callable[[Modality, int], str]


class MediaTexts(Protocol):
    """What rendering asks of a model's processor (`media.processor.Media`)."""

    @property
    def tokens(self) -> Mapping[str, Modality]:
        """Placeholders, as templates write them, and the kind of medium that each stands for."""
        ...

    @property
    def placeholders(self) -> Mapping[Modality, str]:
        """What a template writes for a medium of a kind, with {n} for its number."""
        ...

    @property
    def leads(self) -> bool:
        """Media stand before all text."""
        ...

    @property
    def literals(self) -> Sequence[str]: ...

    def placeholder(self, kind: Modality, number: int = 1) -> str: ...

    def texts_for(self, media: Sequence[Medium]) -> list[str]: ...

    def place(self, ids: Sequence[int], media: Sequence[Medium]) -> tuple[Placed, ...]: ...

    def fingerprint(self) -> list[str]: ...


def media_of(messages: Sequence[Message]) -> list[Medium]:
    return [medium for message in messages for medium in message.media]


def check_media(chat: Chat, media: MediaTexts | None) -> None:
    """Raise RenderError where a chat has media that the model does not take (E-MEDIA-015, 040)."""
    for medium in media_of(chat.messages):
        if media is None:
            fix = (
                "use a model that sees or hears, or take the rows with media out; docs/multimodal.md lists such models"
            )
            what = f"this model takes text only, and a chat has media ({medium.kind})"
            raise RenderError(Problem("E-MEDIA-015", what, str(chat.origin), _source(medium), fix))
        with _of_chat(chat):
            media.placeholder(medium.kind)


@contextmanager
def _of_chat(chat: Chat) -> Iterator[None]:
    """What is wrong with a medium, as something that is wrong with a chat."""
    try:
        yield
    except DataError as error:
        where = str(chat.origin)
        raise RenderError(
            [replace(one, where=f"{where}: {one.where}" if one.where else where) for one in error.problems]
        ) from error


def part_list(message: Message, disarm: Callable[[str], str]) -> list[dict[str, Any]]:
    """The content as chat templates take it: a list of texts and media, in order."""
    parts: list[dict[str, Any]] = []
    media = iter(message.media)
    for number, text in enumerate(message.content.split(PLACE) if message.media else [message.content]):
        if number:
            parts.append({"type": next(media).kind})
        if text:
            parts.append({"type": "text", "text": disarm(text)})
    return parts or [{"type": "text", "text": ""}]  # templates look at the first one


def pieces(
    message: Message, placeholder: Placeholder | None, numbers: Counter[str], ways: Sequence[str] = ()
) -> list[Span]:
    """The content, with the placeholder of each medium as the template's own text. `numbers`: how many media of each
    kind the chat has had before; those of this message are added. `ways`: the key `media` of a slot file."""
    if not message.media or placeholder is None:
        return [Span(message.content, trusted=False)]
    texts = message.content.split(PLACE)
    if "trim" in ways:
        texts = [text.strip() for text in texts]
    if "first" in ways and len(texts) == 2 and not texts[1]:
        texts.reverse()
    spans = [Span(texts[0], trusted=False)]
    for medium, text in zip(message.media, texts[1:], strict=True):
        numbers[medium.kind] += 1
        spans += [Span(placeholder(medium.kind, numbers[medium.kind])), Span(text, trusted=False)]
    return spans


def expanded(samples: Sequence[Sequence[Span]], chat: Chat, media: MediaTexts) -> list[list[Span]]:
    """The samples of a chat with what the processor writes for its media.

    Raises RenderError where a template wrote other placeholders than the chat has media (E-MEDIA-042), and what the
    processor says of a medium.
    """
    samples = [merge(spans) for spans in samples]
    given = media_of(chat.messages)
    ends = {0, *accumulate(len(message.media) for message in chat.messages)}
    pattern = re.compile("|".join(map(re.escape, sorted(media.tokens, key=len, reverse=True))) or "(?!)")
    found = [_found(spans, pattern, media.tokens) for spans in samples]
    for number, kinds in enumerate(found):
        whole = number == len(found) - 1
        wanted = [medium.kind for medium in given[: len(kinds)]]
        if kinds != wanted or len(kinds) not in ({len(given)} if whole else ends):
            raise _other_places(chat, kinds, given)
    with _of_chat(chat):
        texts = media.texts_for(given)
    return [_with(spans, pattern, texts, media.leads) for spans in samples]


def _found(spans: Sequence[Span], pattern: re.Pattern[str], tokens: Mapping[str, Modality]) -> list[Modality]:
    return [tokens[match.group()] for span in spans if span.trusted for match in pattern.finditer(span.text)]


def _with(spans: Sequence[Span], pattern: re.Pattern[str], texts: Sequence[str], leads: bool) -> list[Span]:
    waiting = iter(texts)
    written: list[Span] = []
    first: list[Span] = []
    for span in spans:
        at = 0
        for match in pattern.finditer(span.text) if span.trusted else ():
            written.append(Span(span.text[at : match.start()], span.trained))
            (first if leads else written).append(Span(next(waiting)))
            at = match.end()
        written.append(Span(span.text[at:], span.trained, span.trusted))
    return merge([*first, *written])


def _other_places(chat: Chat, kinds: Sequence[Modality], given: Sequence[Medium]) -> RenderError:
    has, wrote = (", ".join(some) or "none" for some in ([one.kind for one in given], kinds))
    return RenderError(
        Problem(
            "E-MEDIA-042",
            f"the template writes other placeholders of media than the chat has media ({has})",
            where=str(chat.origin),
            got=wrote,
            fix="name a template of the catalog that fits the model; and no placeholders in texts with trusted_markup",
        )
    )


def shortened(text: str, media: MediaTexts | None) -> str:
    """A text for people: a placeholder that stands in it many times in a row is written once, with how often."""
    for token in media.tokens if media is not None else ():
        runs = re.compile(f"(?:{re.escape(token)}){{3,}}")
        text = runs.sub(lambda run, one=token: f"[{one} {len(run[0]) // len(one):,} times]", text)  # type: ignore[misc]
    return text


def _source(medium: Medium) -> str:
    return medium.source if isinstance(medium.source, str) else f"{len(medium.source)} bytes"
