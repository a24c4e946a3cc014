"""Where media stand among the tokens of a store: mapped from files, nothing per row in memory.

media.i64    [M, 3]: first token, one past the last, and where the medium's line begins in the other file
media.jsonl  a line for each: kind, source, what was measured, size and time of the file, the row
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import MediaFacts, Medium, Placed
from tunesmith.media.files import State, state_of

__all__ = ["LINES", "NUMBERS", "MediaTable", "settled_files"]

NUMBERS, LINES = "media.i64", "media.jsonl"


class MediaTable:
    """M media among T tokens, in the order of their tokens: `numbers` [M, 3] int64 and `lines` uint8, as the files have
    them."""

    def __init__(self, numbers: npt.NDArray[np.int64], lines: npt.NDArray[np.uint8]) -> None:
        self.numbers, self.lines = numbers, lines

    @classmethod
    def open(cls, folder: Path) -> MediaTable | None:
        """None where the samples have no media."""
        if not (folder / NUMBERS).exists() or not (folder / NUMBERS).stat().st_size:
            return None
        numbers = np.memmap(folder / NUMBERS, np.int64, "r").reshape(-1, 3)
        return cls(numbers, np.memmap(folder / LINES, np.uint8, "r"))

    @classmethod
    def of(cls, placed: Sequence[Placed]) -> MediaTable | None:
        """`placed` at their places among all tokens."""
        if not placed:
            return None
        texts = [_line(one) for one in placed]
        offsets = np.cumsum([0, *map(len, texts)])[:-1]
        numbers = np.array([(one.start, one.end, at) for one, at in zip(placed, offsets, strict=True)], np.int64)
        return cls(numbers, np.frombuffer(b"".join(texts), np.uint8))

    def within(self, start: int, length: int) -> tuple[Placed, ...]:
        """The media whose tokens all lie in this stretch, with places counted from its beginning."""
        first, last = np.searchsorted(self.numbers[:, 0], (start, start + length))
        rows = self.numbers[first:last].tolist()
        inside = ((begin - start, end - start, self._told(at)) for begin, end, at in rows if end <= start + length)
        return tuple(Placed(_medium(told), begin, end, told["row"]) for begin, end, told in inside)

    def digest_of(self) -> bytes:
        """What tells the media apart, wherever their files are: kinds, bytes and places."""
        told = (_medium(self._told(at)) for at in self.numbers[:, 2].tolist())
        texts = (f"{one.kind}:{one.facts.digest if one.facts else one.source!r}" for one in told)
        return np.ascontiguousarray(self.numbers[:, :2]).tobytes() + "\n".join(texts).encode()

    def _told(self, at: int) -> dict[str, Any]:
        end = at + 512
        while b"\n" not in (piece := self.lines[at:end].tobytes()) and end < len(self.lines):
            end += 4096
        found: dict[str, Any] = json.loads(piece[: piece.find(b"\n")])
        return found


def _medium(told: Mapping[str, Any]) -> Medium:
    source = told["source"]
    return Medium(told["kind"], tuple(source) if isinstance(source, list) else source, MediaFacts(**told["facts"]))


def settled_files(folder: Path) -> bool:
    """Whether all files of the media are what they were when the samples in `folder` were made."""
    if not (folder / LINES).exists():
        return True
    seen: set[tuple[str, State]] = set()
    with (folder / LINES).open("rb") as lines:
        for line in lines:
            found = json.loads(line)
            seen.update(zip(_paths(found["source"]), map(tuple, found["files"]), strict=True))
    return all(state_of(path) == state for path, state in seen)


def _line(placed: Placed) -> bytes:
    medium = placed.medium
    assert medium.facts is not None, "media are measured before anything is made of them"
    source = list(medium.source) if isinstance(medium.source, tuple) else medium.source
    files = [state_of(path) for path in _paths(source)]
    told = {"kind": medium.kind, "source": source, "facts": asdict(medium.facts), "files": files, "row": placed.where}
    return json.dumps(told, ensure_ascii=False).encode() + b"\n"


def _paths(source: Any) -> list[str]:
    return [str(one) for one in source] if isinstance(source, list) else [str(source)]
