"""The error of a chat and a template that do not fit each other."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.core.errors import DataError, Problem

__all__ = ["QuickWayFault", "RenderError"]


class RenderError(DataError):
    """One or more chats cannot be rendered or encoded. `failed` holds their positions in the batch that was given,
    in ascending order, so that a caller who may skip rows can drop exactly these and go on."""

    def __init__(self, problems: Problem | Sequence[Problem], failed: Sequence[int] = ()) -> None:
        super().__init__(problems)
        self.failed = tuple(failed)


class QuickWayFault(Exception):
    """A quick way of rendering or encoding gave something else than the long way for the same chat."""
