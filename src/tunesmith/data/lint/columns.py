"""What is kept of each row in place of its texts: hashes, lengths, counts, a sketch. About 300 bytes a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import Feedback
from tunesmith.data.lint.base import LintRow
from tunesmith.data.lint.scripts import count_scripts
from tunesmith.data.lint.sketch import Sketches, sketch
from tunesmith.data.lint.texts import all_messages, digest, media_names, message_digest, normalise, spoken

__all__ = ["MOST_SKETCHED", "NO_ANSWER", "Columns", "Gatherer"]

MOST_SKETCHED = 1_000_000
"""Rows that near-duplicates are looked for among: their sketches take 200 bytes each."""
NO_ANSWER = -1
# What a finished answer ends with: a full stop of any script, a closing bracket or quote, a fence of code.
_ENDINGS = tuple(".!?…:;。！？；：।॥۔؟።៕」』”’\"'`)]}>*|～~")

Ints = npt.NDArray[np.int64]


@dataclass(slots=True)
class Columns:
    """N rows in the order of the datasets. All [N], where nothing else is said; lengths of texts in characters."""

    dataset: Ints
    text: npt.NDArray[np.uint64]
    """Hash of the whole row."""
    prompt: npt.NDArray[np.uint64]
    """Hash of all that stands before the answer."""
    question: npt.NDArray[np.uint64]
    """Hash of the first user message."""
    answer: npt.NDArray[np.uint64]
    prompt_length: Ints
    """Of the last question."""
    answer_length: Ints
    """NO_ANSWER where there is none."""
    finished: npt.NDArray[np.int8]
    """Whether the answer ends like a sentence; NO_ANSWER where there is none."""
    asks: npt.NDArray[np.int8]
    """Bit 0: the question ends with a question mark; bit 1: the answer does."""
    liked: npt.NDArray[np.int8]
    """1 or 0 of feedback, NO_ANSWER of other rows."""
    scripts: Ints
    """Letters of each script [N, len(SCRIPTS)]."""
    tokens: Ints
    """Of the longest sequence of the row; 0 without a tokenizer."""
    all_tokens: Ints
    trained: Ints
    """Trained tokens of all sequences of the row, before anything is cut."""
    first_trained: Ints
    """Untrained tokens before the first trained one, in the sequence where they are most."""

    held: npt.NDArray[np.bool_]
    """Whether the row is evaluation data."""
    sketches: Sketches
    """Of the first MOST_SKETCHED rows."""
    names: tuple[str, ...]
    """Of the datasets."""

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def has_tokens(self) -> bool:
        return bool(self.all_tokens.any())


_GATHERED = [one.name for one in fields(Columns) if one.name not in ("held", "sketches", "names")]
_DTYPES: dict[str, type[np.generic]] = dict.fromkeys(("text", "prompt", "question", "answer"), np.uint64)
_DTYPES |= {"finished": np.int8, "asks": np.int8, "liked": np.int8}


class Gatherer:
    """Makes the columns, batch by batch."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {name: [] for name in _GATHERED}
        self._sketches: list[Sketches] = []
        self._rows = 0

    def add(self, rows: Sequence[LintRow]) -> None:
        values = [_numbers(row) for row in rows]
        for name in _GATHERED:
            if name == "scripts":
                part = count_scripts([spoken(row.example) for row in rows])
            else:
                part = np.array([value[name] for value in values], dtype=_DTYPES.get(name, np.int64))
            self._parts[name].append(part)
        if (room := MOST_SKETCHED - self._rows) > 0:
            found = sketch([normalise(spoken(row.example)) for row in rows[:room]])
            self._sketches.append(found.apart([_media(row) for row in rows[:room]]))
        self._rows += len(rows)

    def columns(self, names: Sequence[str]) -> Columns:
        """All that was added; no row of it is evaluation data yet. `names`: of the datasets."""
        found = {name: np.concatenate(parts) if parts else _empty(name) for name, parts in self._parts.items()}
        held = np.zeros(self._rows, dtype=np.bool_)
        return Columns(**found, held=held, sketches=Sketches.concatenate(self._sketches), names=tuple(names))


def _media(row: LintRow) -> int:
    """32 bits that stand for the media of a row; 0 where it has none."""
    names = [name for message in all_messages(row.example) for name in media_names(message)]
    return digest(names) >> 32 if names else 0


def _empty(name: str) -> np.ndarray:
    if name == "scripts":
        return count_scripts([])
    return np.zeros(0, dtype=_DTYPES.get(name, np.int64))


def _numbers(row: LintRow) -> dict[str, int]:
    messages = list(all_messages(row.example))
    prompt, answer, question = row.prompt, row.answer.strip(), row.question.strip()
    has_answer = bool(row.answers)
    liked = row.example.liked if isinstance(row.example, Feedback) else None
    first = next(
        ([message.content.strip(), *media_names(message)] for message in prompt if message.role == "user"), [""]
    )
    return {
        "dataset": row.dataset,
        "text": message_digest(messages) if messages else digest([row.answer.strip()]),
        "prompt": message_digest(prompt),
        "question": digest(first),
        "answer": digest([answer]),
        "prompt_length": len(question),
        "answer_length": len(answer) if has_answer else NO_ANSWER,
        "finished": answer.endswith(_ENDINGS) if has_answer else NO_ANSWER,
        "asks": question.endswith(("?", "？", "؟")) + 2 * answer.endswith(("?", "？", "؟")),
        "liked": NO_ANSWER if liked is None else int(bool(liked)),
        **_token_numbers(row),
    }


def _token_numbers(row: LintRow) -> dict[str, int]:
    longest = total = trained = first = 0
    for sequence in row.sequences or ():
        mask = np.asarray(sequence.trained, dtype=np.bool_)
        count = int(np.count_nonzero(mask))
        longest, total, trained = max(longest, len(mask)), total + len(mask), trained + count
        first = max(first, int(mask.argmax()) if count else len(mask))
    return {"tokens": longest, "all_tokens": total, "trained": trained, "first_trained": first}
