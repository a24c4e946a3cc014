"""The content of a message, as a text or as parts: texts and media, of which PLACE stands in the text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tunesmith.core.types import PLACE, Medium, Modality
from tunesmith.serve.errors import unsupported
from tunesmith.serve.fields import Reader, choice, described, list_of, object_with, read_object, text, wrong_type
from tunesmith.serve.limits import LIMITS

__all__ = ["PARTS", "Content", "Shown", "read_content"]


class Shown(NamedTuple):
    """A medium, and where it stands in the request."""

    medium: Medium
    where: str


@dataclass(frozen=True, slots=True)
class Content:
    """`media`: one for each PLACE in the text, where there are any."""

    text: str
    media: tuple[Shown, ...] = ()


_URL = object_with({"url": text(1)}, ["url"])
# The size that a model sees is the config's to say.
_IMAGE = object_with({"url": text(1), "detail": choice("auto", "low", "high", "original")}, ["url"])
_SOUND = object_with({"data": text(1), "format": choice("wav", "mp3", "flac", "ogg", "m4a")}, ["data", "format"])

PARTS: Mapping[str, tuple[Modality, Reader]] = {
    "image_url": ("image", _IMAGE),
    "input_audio": ("audio", _SOUND),
    "audio_url": ("audio", _URL),
    "video_url": ("video", _URL),
}
"""Types of parts that are media: the first two are OpenAI's, the others those of other servers."""
_OTHERS = ("input_image", "file", "image", "audio", "video")
_NO_PLACE = "\ufffd"
"""In place of PLACE in a text that stands beside media."""


def _part(value: Any, where: str) -> str | Shown:
    if not isinstance(value, dict):
        raise wrong_type(value, where, "an object")
    kind = value.get("type")
    if isinstance(kind, str) and kind in PARTS:
        return _shown(value, kind, where)
    if kind in _OTHERS:
        message = f"{where} is a part of type {kind}; media are parts of type {', '.join(PARTS)}"
        raise unsupported(message, where, "unsupported_content_type")
    if kind == "refusal":
        return str(read_object(value, {"type": text(), "refusal": text()}, where, required=["refusal"])["refusal"])
    choice("text", *PARTS)(kind, f"{where}.type")
    return str(read_object(value, {"type": text(), "text": text()}, where, required=["text"])["text"])


def _shown(value: Any, name: str, where: str) -> Shown:
    kind, read = PARTS[name]
    found = read_object(value, {"type": text(), name: read}, where, required=[name])[name]
    if "data" in found:
        return Shown(Medium(kind, f"data:audio/{found['format']};base64,{found['data']}"), f"{where}.{name}.data")
    return Shown(Medium(kind, found["url"]), f"{where}.{name}.url")


@described(anyOf=[{"type": "string"}, {"type": "array", "items": {"type": "object"}, "maxItems": LIMITS.parts}])
def read_content(value: Any, where: str) -> Content:
    """A string, or parts, which are joined as they are."""
    if isinstance(value, str):
        return Content(value)
    if not isinstance(value, list):
        raise wrong_type(value, where, "a string or an array of parts")
    parts: list[str | Shown] = list_of(_part, LIMITS.parts)(value, where)
    media = tuple(part for part in parts if isinstance(part, Shown))
    if not media:
        return Content("".join(str(part) for part in parts))
    texts = (part.replace(PLACE, _NO_PLACE) if isinstance(part, str) else PLACE for part in parts)
    return Content("".join(texts), media)
