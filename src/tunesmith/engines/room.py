"""Whether an engine can take a prompt: the same answer from each of them."""

from __future__ import annotations

from tunesmith.core.errors import DataError, Problem, UsageError
from tunesmith.engines.base import Request

__all__ = ["no_media", "no_room", "room_of"]


def room_of(request: Request, context: int | None) -> int:
    """How many tokens the reply may have. Raises DataError (E-ENGINE-002) where that is none, or the prompt is."""
    size, wanted = len(request.prompt), request.sampling.room(len(request.prompt))
    left = context - size if context else wanted
    if left <= 0 or not size:
        raise no_room(size, context)
    return min(left, wanted)


def no_room(tokens: int, context: int | None) -> DataError:
    what = "the prompt leaves no room for a reply" if tokens else "the prompt is empty"
    fix = "shorten the conversation (/clear starts a new one)"
    got = f"{tokens} tokens, the context is {context}"
    return DataError(Problem("E-ENGINE-002", what, got=got, fix=fix))


def no_media(request: Request) -> UsageError:
    """Of an engine that takes token ids alone."""
    kinds = ", ".join(dict.fromkeys(one.medium.kind for one in request.media))
    fix = "use infer_backend: huggingface and a model that sees or hears, or leave them out"
    return UsageError(Problem("E-MEDIA-060", "this engine takes no images, video or sound", got=kinds, fix=fix))
