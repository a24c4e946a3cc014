"""Many chats to flat arrays at once: what training data is made of.

Chats of one shape are put together from what their shape knows; the others are rendered one by one. All runs of a
batch are then encoded together, and ids and mask are laid out without an object per token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from tunesmith.core.collector import no_collection
from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Medium, Placed, Text
from tunesmith.render.encode import Encoder, Run
from tunesmith.render.errors import RenderError
from tunesmith.render.fast_runs import FastRuns
from tunesmith.render.places import media_of
from tunesmith.render.shapes import Constant, RunShape, Shapes
from tunesmith.render.spans import Span
from tunesmith.render.weights import Weigher

__all__ = ["BatchEncoder", "EncodedBatch"]

Part: TypeAlias = tuple[int, bool] | Constant | Run
"""A control token (id, trained?), several tokens that are always the same, or a run of text."""


@dataclass(slots=True)
class EncodedBatch:
    """The samples of some chats or texts, one behind the other: ids [T] int32, trained [T] bool, and for each of N
    samples its length and which of the rows it is of, both [N] int64. `wrong`: what is wrong with rows without any."""

    ids: npt.NDArray[np.int32]
    trained: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    wrong: Mapping[int, Problem] = field(default_factory=dict)
    weights: npt.NDArray[np.float32] | None = None
    """[T] what each token counts in the loss; None: 1 for all."""
    media: Mapping[int, tuple[Placed, ...]] = field(default_factory=dict)
    """Where media stand in a sample, by its number; of those that have any."""


@dataclass(frozen=True, slots=True)
class _Weighted:
    """A sample whose tokens do not count the same: its parts once for each weight, ascending; trained in them is
    what counts so much or more."""

    levels: list[tuple[float, list[Part]]]


Sample: TypeAlias = list[Part] | _Weighted


class BatchEncoder:
    """`render`: the template's own way, chat by chat; with True, up to the opening of the next reply. Without `shapes`
    all chats go it, and those with media in any case; without `fast` all runs are encoded by `tokenizers`. `weigher`:
    for chats with weights, which go the long way. `place`: tells where media stand in a sequence."""

    def __init__(
        self,
        encoder: Encoder,
        render: Callable[[Chat, bool], list[list[Span]]],
        shapes: Shapes | None = None,
        fast: FastRuns | None = None,
        weigher: Weigher | None = None,
        place: Callable[[Sequence[int], Sequence[Medium]], tuple[Placed, ...]] | None = None,
    ) -> None:
        self._encoder, self._render, self._shapes, self._fast = encoder, render, shapes, fast
        self._weigher, self._place = weigher, place

    @property
    def encoder_name(self) -> str:
        return "tokenizers" if self._fast is None else self._fast.name

    def encode(self, chats: Sequence[Chat], open_reply: bool = False) -> EncodedBatch:
        """`open_reply`: the chats end with the opening of the next reply, and nothing of them is trained.

        Raises QuickWayFault where a quick way does not give what the long one does."""
        with no_collection():  # a batch makes many small objects, and all of them stay for its time
            wrong: dict[int, Problem] = {}
            samples: list[Sample] = []
            owners: list[int] = []
            for index, chat in enumerate(chats):
                try:
                    found = self._parts(chat, open_reply)
                except RenderError as error:
                    wrong[index] = error.problems[0]
                    continue
                samples += found
                owners += [index] * len(found)
            return self._placed(self._encoded(samples, owners, chats, wrong), chats)

    def encode_texts(self, texts: Sequence[Text], before: Sequence[int], after: Sequence[int]) -> EncodedBatch:
        """Texts that are trained throughout, each between the ids `before` and `after`."""
        first, last = Constant(list(before), [True] * len(before)), Constant(list(after), [True] * len(after))
        with no_collection():
            samples: list[Sample] = [
                [first, *self._encoder.cut([Span(text.text, trained=True, trusted=text.trusted_markup)]).parts, last]
                for text in texts
            ]
            return self._encoded(samples, list(range(len(texts))), texts, {})

    def _placed(self, batch: EncodedBatch, chats: Sequence[Chat]) -> EncodedBatch:
        """The batch with the places of media in its samples."""
        if self._place is None or not any(message.media for chat in chats for message in chat.messages):
            return batch
        ends = np.cumsum(batch.lengths)
        placed = {}
        for number, (length, end, row) in enumerate(zip(batch.lengths, ends, batch.rows, strict=True)):
            if media := media_of(chats[row].messages):
                placed[number] = self._place(batch.ids[end - length : end], media)  # type: ignore[arg-type]
        return replace(batch, media=placed)

    def _encoded(
        self,
        samples: list[Sample],
        owners: list[int],
        rows: Sequence[Chat] | Sequence[Text],
        wrong: dict[int, Problem],
    ) -> EncodedBatch:
        try:
            self._encode_runs(samples)
        except RenderError:  # rare: find out whose fault it is
            wrong |= self._faults(samples, owners, rows)
            kept = [number for number, owner in enumerate(owners) if owner not in wrong]
            samples, owners = [samples[number] for number in kept], [owners[number] for number in kept]
            self._encode_runs(samples)
        return _lay_out(samples, owners, wrong)

    def _parts(self, chat: Chat, open_reply: bool) -> Sequence[Sample]:
        if self._weigher is not None and not open_reply and self._weigher.needed(chat):
            return [
                _Weighted([(weight, list(self._encoder.cut(spans).parts)) for weight, spans in levels])
                for levels in self._weigher.samples(chat)
            ]
        has_media = any(message.media for message in chat.messages)
        found = self._shapes.find(chat, open_reply) if self._shapes is not None and not has_media else None
        if found is None:
            return [list(self._encoder.cut(spans).parts) for spans in self._render(chat, open_reply)]
        shape, texts = found
        return [
            [part.fill(texts) if isinstance(part, RunShape) else part for part in sample.plan]
            for sample in shape.samples
        ]

    def _encode_runs(self, samples: Sequence[Sample]) -> None:
        runs = [part for parts in _all_parts(samples) for part in parts if type(part) is Run]
        if self._fast is not None:
            fast = self._fast
            runs = [run for run in runs if not fast.fill(run)]
        self._encoder.encode_runs(runs)

    def _faults(
        self, samples: Sequence[Sample], owners: Sequence[int], rows: Sequence[Chat] | Sequence[Text]
    ) -> dict[int, Problem]:
        """What is wrong with each row that cannot be encoded."""
        found: dict[int, Problem] = {}
        for parts, owner in zip(samples, owners, strict=True):
            try:
                self._encode_runs([parts])
            except RenderError as error:
                found[owner] = replace(error.problems[0], where=str(rows[owner].origin))
        return found


def _all_parts(samples: Sequence[Sample]) -> Iterator[list[Part]]:
    for sample in samples:
        if isinstance(sample, _Weighted):
            yield from (parts for _weight, parts in sample.levels)
        else:
            yield sample


def _lay_out(samples: Sequence[Sample], owners: Sequence[int], wrong: Mapping[int, Problem]) -> EncodedBatch:
    ids: list[int] = []
    mask: list[bool] = []
    weighted: list[tuple[int, float]] = []  # tokens and their weights; the last one rules
    ends = np.zeros(len(samples) + 1, dtype=np.int64)
    for number, sample in enumerate(samples, 1):
        start = len(ids)
        if isinstance(sample, _Weighted):
            for weight, parts in sample.levels:
                own_ids: list[int] = []
                own_mask: list[bool] = []
                _add(parts, own_ids, own_mask)
                if len(ids) == start:
                    ids += own_ids
                    mask += own_mask
                weighted += [(start + at, weight) for at, trained in enumerate(own_mask) if trained]
        else:
            _add(sample, ids, mask)
        ends[number] = len(ids)
    weights = None
    if weighted:
        weights = np.ones(len(ids), dtype=np.float32)
        for token, weight in weighted:
            weights[token] = weight
    return EncodedBatch(
        np.array(ids, dtype=np.int32),
        np.frombuffer(bytes(mask), dtype=np.bool_),  # three times as fast as from a list
        np.diff(ends),
        np.array(owners, dtype=np.int64),
        wrong,
        weights,
    )


def _add(parts: Sequence[Part], ids: list[int], mask: list[bool]) -> None:
    for part in parts:
        if isinstance(part, Run | Constant):
            ids += part.ids
            mask += part.mask
        else:  # a control token
            ids.append(part[0])
            mask.append(part[1])
