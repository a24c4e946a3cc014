"""Spans to token ids and mask, by the run rule.

The text is cut at the control tokens that trusted spans wrote; these become ids directly. Each run between two of
them, trusted and untrusted text together, is encoded in one piece by a twin of the tokenizer that has no control
tokens. On text without look-alikes the ids equal those of the whole text encoded at once, and a look-alike can
never become a control token. Encoding span by span would not do: merges cross the edges of spans.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from tunesmith.core.errors import Problem
from tunesmith.core.types import NOWHERE, Encoded, Origin
from tunesmith.render.control import ControlTokens
from tunesmith.render.errors import RenderError
from tunesmith.render.spans import Span

__all__ = ["NO_TEXT", "Encoder", "Run", "added_tokens_of"]

_CACHED_LENGTH = 24  # runs up to so many characters are remembered: "user\n", "\n", "\n\n"
_CACHED_RUNS = 4096
_BATCH_RUNS = 8192
NO_TEXT = "\U0010fffd"  # private use

Ranges = list[tuple[int, int]]


@dataclass(slots=True)
class Run:
    """Text between two control tokens. `trained`: True or False for the whole run, or the trained ranges in it."""

    text: str
    at_start: bool
    trained: bool | Ranges
    ids: Sequence[int] = ()
    mask: Sequence[bool] = ()


@dataclass(slots=True)
class _Sequence:
    """One sample in the making: control tokens (id, trained?) and runs, in order."""

    parts: list[tuple[int, bool] | Run] = field(default_factory=list)


def added_tokens_of(backend: Any) -> list[dict[str, Any]]:
    """The added tokens of a `tokenizers.Tokenizer`, as its file lists them."""
    flags = ("content", "special", "lstrip", "rstrip", "single_word", "normalized")
    found = sorted(backend.get_added_tokens_decoder().items())
    return [{"id": number, **{flag: getattr(token, flag) for flag in flags}} for number, token in found]


class _Twins(NamedTuple):
    """A tokenizer without control tokens, for runs at the start of a text and for those inside."""

    at_start: Any
    inside: Any
    unknown_id: int | None


class Encoder:
    """Encodes spans with immutable twins of a `tokenizers.Tokenizer`, which are made when they are first needed: it
    takes a second for a large vocabulary. Safe to share between threads."""

    def __init__(self, backend: Any, control: ControlTokens) -> None:
        self._backend = backend
        self.control = control
        self._cache: dict[tuple[str, bool], Any] = {}

    @cached_property
    def _twins(self) -> _Twins:
        from tokenizers import Tokenizer

        control = self.control
        spec = json.loads(self._backend.to_str())
        spec.update(post_processor=None, truncation=None, padding=None)
        spec["added_tokens"] = _without(control, spec["added_tokens"], spec["model"]["vocab"])
        _hide(control, spec["model"])
        at_start = Tokenizer.from_str(json.dumps(spec))
        # Metaspace "first" puts its blank only before the very first character of the text.
        inside = Tokenizer.from_str(json.dumps(spec)) if _set_prepend_never(spec.get("pre_tokenizer")) else at_start
        for token in spec["added_tokens"]:
            assert at_start.token_to_id(token["content"]) == token["id"], f"{token['content']!r} got another id"
        unknown = spec["model"].get("unk_token")
        unknown_id = self._backend.token_to_id(unknown) if isinstance(unknown, str) else spec["model"].get("unk_id")
        return _Twins(at_start, inside, unknown_id)

    @cached_property
    def forbidden(self) -> frozenset[int]:
        """Ids that no run may have."""
        return self.control.ids - {self._twins.unknown_id}

    def _name(self, token: int) -> str:
        name: str = self._twins.at_start.id_to_token(token)
        return name

    def describe(self) -> dict[str, Any]:
        """The twin for runs inside a text, as a tokenizer.json has it."""
        spec: dict[str, Any] = json.loads(self._twins.inside.to_str())
        return spec

    def reference(self, text: str) -> list[int]:
        """Ids of a run inside a text."""
        ids: list[int] = self._twins.inside.encode(text, add_special_tokens=False).ids
        return ids

    def encode(self, samples: Sequence[Sequence[Span]], origins: Sequence[Origin] | None = None) -> list[Encoded]:
        """One `Encoded` per sample, in order. `origins`: one per sample, or None."""
        sequences = [self.cut(spans) for spans in samples]
        self.encode_runs([part for sequence in sequences for part in sequence.parts if isinstance(part, Run)])
        origins = origins or [NOWHERE] * len(samples)
        return [_join(sequence, origin) for sequence, origin in zip(sequences, origins, strict=True)]

    def cut(self, spans: Sequence[Span]) -> _Sequence:
        """Cut at the control tokens that lie wholly in trusted text, and honour the blanks they swallow."""
        text = "".join([span.text for span in spans])
        trained = _ranges(spans, "trained")
        sequence = _Sequence()
        done = 0
        for first, last in _ranges(spans, "trusted"):
            for start, end, token in self.control.find(text, first, last):
                if token.lstrip:
                    start = max(done, len(text[:start].rstrip()))
                self._add_run(sequence, text, done, start, trained)
                # Blanks that the token swallows do not decide whether it is trained; its own characters do.
                sequence.parts.append((token.id, _touches(trained, end - len(token.content), end)))
                done = end if not token.rstrip else len(text) - len(text[end:].lstrip())
        self._add_run(sequence, text, done, len(text), trained)
        return sequence

    def _add_run(self, sequence: _Sequence, text: str, start: int, end: int, trained: Ranges) -> None:
        if start >= end:
            return
        inside = [(max(first, start), min(last, end)) for first, last in trained if first < end and last > start]
        if not inside:
            mask: bool | Ranges = False
        elif inside == [(start, end)]:
            mask = True
        else:
            mask = [(first - start, last - start) for first, last in inside]
        sequence.parts.append(Run(text[start:end], start == 0, mask))

    def encode_runs(self, runs: Sequence[Run]) -> None:
        """Fill ids and mask of every run; short runs once, long ones in large batches."""
        fresh: dict[tuple[bool, bool], list[Run]] = {}
        for run in runs:
            if len(run.text) <= _CACHED_LENGTH:
                self._fill(run, self._remembered(run))
            else:
                fresh.setdefault((run.at_start, isinstance(run.trained, bool)), []).append(run)
        for (at_start, uniform), group in fresh.items():
            twin = self._twins.at_start if at_start else self._twins.inside
            encode = twin.encode_batch_fast if uniform else twin.encode_batch  # the fast one keeps no offsets
            for index in range(0, len(group), _BATCH_RUNS):
                batch = group[index : index + _BATCH_RUNS]
                for run, found in zip(
                    batch, encode([run.text for run in batch], add_special_tokens=False), strict=True
                ):
                    self._fill(run, found)

    def _remembered(self, run: Run) -> Any:
        key = (run.text, run.at_start)
        if key not in self._cache:
            twin = self._twins.at_start if run.at_start else self._twins.inside
            if len(self._cache) >= _CACHED_RUNS:
                self._cache.clear()
            self._cache[key] = found = twin.encode(run.text, add_special_tokens=False)
            return found
        return self._cache[key]

    def _fill(self, run: Run, found: Any) -> None:
        """Take over ids and mask from a `tokenizers.Encoding`."""
        ids: list[int] = found.ids
        if not self.forbidden.isdisjoint(ids):
            made = next(token for token in ids if token in self.forbidden)
            raise RenderError(
                Problem(
                    "E-RENDER-010",
                    f"this tokenizer makes its control token {self._name(made)!r} out of plain text",
                    got=run.text,
                    fix="remove that text from the row",
                )
            )
        run.ids = ids
        if isinstance(run.trained, bool):
            run.mask = [run.trained] * len(ids)
        else:
            run.mask = _mask(run.text, found, run.trained)


def _without(control: ControlTokens, added: list[dict[str, Any]], vocabulary: Any) -> list[dict[str, Any]]:
    """The added tokens but for control tokens. Ids of added tokens outside the model's vocabulary are given out in
    order when a tokenizer is built, so a control token among them leaves a placeholder, which no text holds."""
    pieces = vocabulary if isinstance(vocabulary, dict) else {piece for piece, _ in vocabulary}  # Unigram: a list
    kept = []
    for token in added:
        if token["content"] not in control:
            kept.append(token)
        elif token["content"] not in pieces:
            kept.append({**token, "content": _hidden(token["content"])})
    return kept


def _hide(control: ControlTokens, model: dict[str, Any]) -> None:
    """Give control tokens in a model's vocabulary names that no text holds: Unigram and WordLevel would find them in
    text. Tokens that merges make keep theirs, as merges go by names; so does the name of the unknown token."""
    pieces = model["vocab"]
    if not isinstance(pieces, dict):  # Unigram: a list of pieces with their scores
        model["vocab"] = [[_hidden(piece) if piece in control else piece, score] for piece, score in pieces]
        return
    parts = {"".join(merge if isinstance(merge, list) else merge.split(" ")) for merge in model.get("merges") or ()}
    kept = {*parts, model.get("unk_token")}
    model["vocab"] = {_hidden(p) if p in control and p not in kept else p: number for p, number in pieces.items()}


def _hidden(content: str) -> str:
    return f"{NO_TEXT}{content}{NO_TEXT}"


def _ranges(spans: Sequence[Span], kind: str) -> Ranges:
    """Ranges of neighbouring spans that are trained, or trusted."""
    ranges: Ranges = []
    position = 0
    for span in spans:
        end = position + len(span.text)
        if getattr(span, kind):
            if ranges and ranges[-1][1] == position:
                ranges[-1] = (ranges[-1][0], end)
            else:
                ranges.append((position, end))
        position = end
    return ranges


def _touches(ranges: Ranges, start: int, end: int) -> bool:
    return any(first < end and last > start for first, last in ranges)


def _mask(text: str, found: Any, trained: Ranges) -> list[bool]:
    """A token is trained if any character of its range is. Normalizers that compose (NFC) may leave a combining
    mark outside every range: it belongs to the token before it."""
    first, last = trained[0]
    if last == len(text):  # one trained end, the ordinary case: no need for a list of offsets
        index = found.char_to_token(first)
        if index is not None:
            return [False] * index + [True] * (len(found) - index)
    offsets = found.offsets if text.isascii() else _with_combining_marks(text, found.offsets)
    return [_touches(trained, start, end) for start, end in offsets]


def _with_combining_marks(text: str, offsets: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    widened = list(offsets)
    starts = [start for start, _ in widened[1:]] + [len(text)]
    for index, ((start, end), following) in enumerate(zip(offsets, starts, strict=True)):
        while end < following and unicodedata.combining(text[end]):
            end += 1
        widened[index] = (start, end)
    return widened


def _join(sequence: _Sequence, origin: Origin) -> Encoded:
    ids: list[int] = []
    mask: list[bool] = []
    for part in sequence.parts:
        if isinstance(part, Run):
            ids += part.ids
            mask += part.mask
        else:
            ids.append(part[0])
            mask.append(part[1])
    return Encoded(ids, mask, origin)


def _set_prepend_never(pre_tokenizer: Any) -> bool:
    """Change every Metaspace "first" of a pre-tokenizer's description to "never"; True if there was one."""
    if not isinstance(pre_tokenizer, dict):
        return False
    changed = False
    if pre_tokenizer.get("type") == "Metaspace" and pre_tokenizer.get("prepend_scheme") == "first":
        pre_tokenizer["prepend_scheme"] = "never"
        changed = True
    for inner in pre_tokenizer.get("pretokenizers", ()):
        changed |= _set_prepend_never(inner)
    return changed
