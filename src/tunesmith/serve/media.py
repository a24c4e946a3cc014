"""Media of one request: files of its own while it lasts, each looked at before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.core.types import MediaFacts, Medium, Message, Modality
from tunesmith.serve.errors import ApiError, as_api_error, invalid, unsupported
from tunesmith.serve.limits import Limits
from tunesmith.serve.messages import Messages
from tunesmith.serve.parts import PARTS

if TYPE_CHECKING:
    from tunesmith.media.fetch import Fetcher
    from tunesmith.media.processor import Media

__all__ = ["RequestMedia", "spoilt"]

_PLURALS: Mapping[Modality, str] = {"image": "images", "video": "videos", "audio": "sound"}
_CODES = {"E-MEDIA-016": "media_too_large"}
"""Of all else that is wrong the code names the kind of medium."""


class RequestMedia:
    """`media`: what the model makes of media; None for one that reads text."""

    def __init__(self, media: Media | None, fetcher: Fetcher, limits: Limits) -> None:
        self._media, self._fetcher, self._limits = media, fetcher, limits
        self._folder: TemporaryDirectory[str] | None = None
        self._pixels, self._seconds = 0, 0.0

    def settled(self, messages: Messages) -> list[Message]:
        """The messages with their media as files. Fetches what is to be fetched.

        Raises ApiError (400) with the place of the first medium that the model does not take, that is none, or that is
        too large.
        """
        if not messages.places:
            return messages
        places = iter(messages.places)
        for message in messages:
            for medium in message.media:
                self._check_kind(medium.kind, next(places))
        self._folder = TemporaryDirectory(prefix="tunesmith-media-")
        places = iter(messages.places)
        try:
            return [
                replace(one, media=tuple(self._settled(medium, next(places)) for medium in one.media))
                if one.media
                else one
                for one in messages
            ]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Its files go. Idempotent."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _check_kind(self, kind: Modality, place: str) -> None:
        taken = () if self._media is None else tuple(one for one in self._media.kinds if one not in self._media.missing)
        if kind not in taken:
            reads = "text and " + ", ".join(_PLURALS[one] for one in taken) if taken else "text only"
            message = f"{place} is of a kind that this model does not take: it reads {reads}"
            raise unsupported(message, place, "unsupported_content_type")

    def _settled(self, medium: Medium, place: str) -> Medium:
        from tunesmith.media.settle import Settler

        assert self._folder is not None, "made before"
        most = self._limits.media_bytes
        if str(medium.source)[:5].lower() == "data:" and len(str(medium.source)) > most * 4 // 3 + 200:
            raise invalid(f"{place} has more than {most:,} bytes", place, "media_too_large")
        try:
            found = Settler(None, None, self._folder.name, self._fetcher, paths=False).settle(medium)
        except TunesmithError as error:
            raise spoilt(error, place) from None
        assert found.facts is not None, "that is what settling is for"
        self._count(found.facts, place)
        return found

    def _count(self, facts: MediaFacts, place: str) -> None:
        self._pixels += facts.width * facts.height
        self._seconds += facts.seconds
        for found, most, unit in (
            (self._pixels, self._limits.media_pixels, "pixels"),
            (self._seconds, self._limits.media_seconds, "seconds of sound and video"),
        ):
            if found > most:
                message = f"with {place} the request has {found:,.0f} {unit}, and may have {most:,.0f}"
                raise invalid(message, place, "media_too_large")


def spoilt(error: TunesmithError, place: str) -> ApiError:
    """What is wrong with the medium at a place of the request."""
    if not isinstance(error, DataError):
        return as_api_error(error, place)
    kind = PARTS[place.split(".")[-2]][0]
    return invalid(f"{place}: {as_api_error(error).message}", place, _CODES.get(error.code, f"invalid_{kind}"))
