"""Media of a row: those that stand in columns beside the texts, and those that content parts hold.

In a text `<image>`, `<video>` and `<audio>` say where the next medium of a column stands, as everywhere in this field;
where no column holds such media, and beside content parts, they are words like others. A message has PLACE there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from tunesmith.core.types import PLACE, Medium, Message, Modality
from tunesmith.data.formats.base import Row, kind_of
from tunesmith.data.rows import RowError

__all__ = ["COLUMNS", "COLUMN_NAMES", "NEXT", "beside", "fill", "join", "part_medium"]

COLUMNS: Mapping[str, Modality] = {"images": "image", "videos": "video", "audios": "audio"}
"""Meanings of columns, and what they hold."""
COLUMN_NAMES = {meaning: meaning for meaning in COLUMNS}
"""What the columns are called where nobody says so."""

NEXT = ""
"""The source of a medium whose content part does not name one: the next of its column."""

_WORD = re.compile(f"<(image|video|audio)>|{PLACE}")
_NO_PLACE = "\ufffd"
_PARTS: Mapping[str, tuple[Modality, tuple[str, ...]]] = {
    "image": ("image", ("image", "url", "path", "image_url")),
    "image_url": ("image", ("image_url", "url")),
    "input_image": ("image", ("image_url", "url")),
    "video": ("video", ("video", "url", "path", "video_url")),
    "video_url": ("video", ("video_url", "url")),
    "audio": ("audio", ("audio", "url", "path", "audio_url")),
    "audio_url": ("audio", ("audio_url", "url")),
    "input_audio": ("audio", ("input_audio",)),
}
"""Types of content parts, what they hold, and the keys that it may stand under."""


def part_medium(part: Mapping[str, Any], field: str) -> Medium | None:
    """The medium of a content part, as OpenAI's API and transformers' chats write them; None of any other part."""
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in _PARTS:
        return None
    modality, keys = _PARTS[kind]
    value = next((part[key] for key in keys if part.get(key) is not None), None)
    if value is None and isinstance(part.get("base64"), str):
        value = f"data:{modality};base64,{part['base64']}"
    return Medium(modality, NEXT) if value is None else _medium(modality, value, field)


def beside(row: Row, columns: Mapping[str, str], *, named: bool) -> dict[Modality, list[Medium]]:
    """The media that a row has in columns of their own, by kind; a kind without a column is not there. Columns that
    nobody `named` are there if they hold something, so that a text may speak of `<image>`."""
    found: dict[Modality, list[Medium]] = {}
    for meaning, kind in COLUMNS.items():
        column = columns.get(meaning)
        value = None if column is None else row.get(column)
        if column is None or (value is None and not named):
            continue
        values = [] if value is None else value if isinstance(value, list) else [value]
        found[kind] = [_medium(kind, one, column) for one in values if one is not None]
    return found


def fill(messages: Sequence[Message], media: Mapping[Modality, Sequence[Medium]]) -> list[Message]:
    """The messages with all media in their places. `media`: those of the columns, by kind.

    Raises RowError where the places and the media of a kind are not as many, and where an answer holds one.
    """
    if not media and not any(message.media for message in messages):
        return list(messages)
    rest = {kind: iter(own) for kind, own in media.items()}
    places = dict.fromkeys(media, 0)
    filled = [_filled(message, rest, places) for message in messages]
    for kind, own in media.items():
        if places[kind] != len(own):
            raise _unequal(kind, places[kind], len(own))
    return filled


def _filled(message: Message, rest: Mapping[Modality, Iterator[Medium]], places: dict[Modality, int]) -> Message:
    own = iter(message.media)
    found: list[Medium] = []

    def put(match: re.Match[str]) -> str:
        if match.group() == PLACE:
            medium = next(own, None)
            if medium is None:
                return _NO_PLACE
        elif match[1] not in rest or message.media:
            return match.group()
        else:
            medium = Medium(cast(Modality, match[1]), NEXT)
        if medium.source == NEXT:
            places[medium.kind] = places.get(medium.kind, 0) + 1
            medium = next(rest.get(medium.kind, iter(())), medium)  # too few are told when all are counted
            if medium.kind not in rest:
                raise _unequal(medium.kind, places[medium.kind], 0)
        found.append(medium)
        return PLACE

    content = _WORD.sub(put, message.content)
    if found and message.role == "assistant":
        what = f"an answer holds a medium ({found[0].kind}): what a model writes is text"
        raise RowError("E-MEDIA-031", what, None, message.content, "put it into the message before the answer")
    return replace(message, content=content, media=tuple(found)) if found or content != message.content else message


def join(messages: Sequence[Message]) -> tuple[str, tuple[Medium, ...]]:
    """(content, media) of messages as one, their texts joined by a line end."""
    media = tuple(one for message in messages for one in message.media)
    texts = [one.content if one.media or not media else one.content.replace(PLACE, _NO_PLACE) for one in messages]
    return "\n".join(text for text in texts if text), media


def _medium(kind: Modality, value: Any, field: str) -> Medium:
    """A medium as rows write it: a path, an address, the bytes, an object that holds one of these, or frames."""
    if isinstance(value, Mapping):
        value = _of_object(kind, value)
    if isinstance(value, str) and value.strip():
        return Medium(kind, value)
    if isinstance(value, bytes):
        return Medium(kind, value)
    if kind == "video" and isinstance(value, list) and value:
        return Medium(kind, tuple(cast(str, _medium("image", one, field).source) for one in value))
    what = f"{kind_of(value) if value != '' else 'an empty text'} where a path, an address or bytes of a medium belong"
    raise RowError("E-MEDIA-032", what, field, value)


def _of_object(kind: Modality, value: Mapping[str, Any]) -> Any:
    if isinstance(value.get("data"), str):  # OpenAI's input_audio
        subtype = f"/{value['format']}" if value.get("format") else ""
        return f"data:{kind}{subtype};base64,{value['data']}"
    found = (value.get(key) for key in ("bytes", "url", "path"))
    return next((one for one in found if one is not None), None)


def _unequal(kind: Modality, places: int, media: int) -> RowError:
    what = f"the texts have {places} <{kind}> for {media} of the media that the row has of this kind"
    fix = f"write <{kind}> once where each of them stands"
    return RowError("E-MEDIA-030", what, None, f"{places} places, {media} media", fix)
