"""Which text of a reply is final: stop texts end it and are not part of it, and what may become one is held back."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.engines.detokenize import Detokenizer

__all__ = ["ReplyText"]


class ReplyText:
    """`push(id)` and `flush()` give text that is final, as a `Detokenizer` does. Once `stopped` is a stop text, the
    reply ends before it, and nothing more comes."""

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str]) -> None:
        self._detokenizer = detokenizer
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.stopped: str | None = None

    def push(self, token: int) -> str:
        return self._take(self._detokenizer.push(token), final=False)

    def flush(self) -> str:
        """What was held back; none of it has become a stop text."""
        return self._take("" if self.stopped else self._detokenizer.flush(), final=True)

    def _take(self, text: str, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [(at, -len(stop), stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            at, _, self.stopped = min(found)
            self._held = ""
            return text[:at]
        kept = 0 if final else self._undecided(text)
        self._held = text[len(text) - kept :]
        return text[: len(text) - kept]

    def _undecided(self, text: str) -> int:
        """Length of the longest end of the text with which a stop text begins."""
        longest = max((len(stop) - 1 for stop in self._stops), default=0)
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0
