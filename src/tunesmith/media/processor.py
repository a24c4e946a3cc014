"""`Media`: the model's own processor, and what Tunesmith asks of it.

What a processor writes for a medium is found by asking it: it gets a blank medium of the same size, and tells the text
that it would put in the place of the placeholder. So a row is rendered from sizes alone, nothing is decoded, and the
text is the processor's by construction.

media.placeholder("image")         "<|vision_start|><|image_pad|><|vision_end|>", what a template of the catalog writes
media.texts_for([medium])          ["<|image_pad|><|image_pad|>..."], what stands where <|image_pad|> stood
media.place(ids, [medium])         which tokens of a sequence stand for it
media.inputs([medium])             {"pixel_values": ..., "image_grid_thw": ...}, what the model takes, decoded here
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from tunesmith.core.errors import DataError, MachineError, Problem, UsageError
from tunesmith.core.types import Medium, Modality, Placed
from tunesmith.media.bounded import Bounded
from tunesmith.media.family import MediaFamily
from tunesmith.media.limits import MediaLimits
from tunesmith.media.sizes import Size, arguments, blank_medium, read_medium, size_of
from tunesmith.media.tensors import join, of_tokens, without_text

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Media", "Missing", "modalities"]

Origin: TypeAlias = tuple[Callable[..., "Media"], tuple[Any, ...]]

_PARTS: Mapping[Modality, tuple[str, ...]] = {
    "image": ("image_processor",),
    "video": ("video_processor",),
    "audio": ("feature_extractor", "audio_processor"),
}
_BLANKS: Mapping[Modality, Size] = {
    "image": Size(224, 224),
    "video": Size(224, 224, (0, 1), 1.0),
    "audio": Size(samples=16_000),
}
_OTHERS: Mapping[Modality, Size] = {"image": Size(97, 311), "audio": Size(samples=40_000)}
_REMEMBERED = 1024  # about 50 kB each, at most
_FAILURES = (ValueError, TypeError, IndexError, KeyError, RuntimeError, ZeroDivisionError, OSError)


def modalities(processor: Any) -> tuple[Modality, ...]:
    """The kinds of media that a processor is made for and that have a token, whether its parts are there or not."""
    named = type(processor).get_attributes()
    made_for = (kind for kind, parts in _PARTS.items() if any(part in named for part in parts))
    return tuple(kind for kind in made_for if is_token(processor, getattr(processor, f"{kind}_token", None)))


def is_token(processor: Any, text: str | None) -> bool:
    """Whether a text is one token of the tokenizer: what a template writes for a medium has to be, as others can be
    typed by anybody."""
    return text is not None and text in processor.tokenizer.get_vocab()


class Missing(dict[str, Any]):
    """In the place of a part of a processor that cannot be had: it has no settings, none is what it is asked for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _Written(NamedTuple):
    """The text for a medium, and the ids in it of tokens that no other text has."""

    text: str
    marks: npt.NDArray[np.int64]


class Media:
    """`limits`: how large media are when the processor gets them. `read`: gives what a settled medium holds.
    `origin`: makes the same again, in another process."""

    def __init__(
        self,
        processor: Any,
        family: MediaFamily,
        limits: MediaLimits,
        read: Callable[[Medium], Any] | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.processor = processor
        self._family, self._limits = family, limits
        self._read, self._origin = read or (lambda medium: read_medium(medium, limits)), origin
        self._kept = Bounded()
        self.kinds = modalities(processor)
        self._tokens: dict[Modality, str] = {kind: getattr(processor, f"{kind}_token") for kind in self.kinds}
        self._texts: OrderedDict[tuple[Modality, Size], _Written] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> Any:
        assert self._origin is not None, "made by hand, so it stays in its process"
        return self._origin

    @property
    def tokens(self) -> Mapping[str, Modality]:
        """What the processor looks for in a text, and the kind of medium that it stands for."""
        return {token: kind for kind, token in self._tokens.items()}

    @property
    def leads(self) -> bool:
        """Media stand before all text, wherever a template writes their placeholders."""
        return self._family.leads

    @property
    def missing(self) -> tuple[Modality, ...]:
        """Kinds that the model takes, but not with the packages that are installed."""
        return tuple(kind for kind in self.kinds if self._part(kind) is None)

    @cached_property
    def literals(self) -> tuple[str, ...]:
        """Texts with all control tokens that stand for media and around them."""
        found = [self.placeholder(kind) for kind in self.kinds]
        for kind in self.kinds:
            if kind not in self.missing:
                found.append(self._written(kind, _BLANKS[kind]).text)
        return tuple(found)

    @property
    def placeholders(self) -> Mapping[Modality, str]:
        """What a template writes for a medium of each kind, with {n} for its number where that is told."""
        return {kind: self._family.around.get(kind, "{}").replace("{}", self._tokens[kind]) for kind in self.kinds}

    def placeholder(self, kind: Modality, number: int = 1) -> str:
        """What a template writes in the place of a medium, the `number`th of its kind in a chat. Raises DataError
        (E-MEDIA-040)."""
        if kind not in self._tokens:
            takes = " and ".join(_plural(one) for one in self.kinds)
            fix = "take the rows with them out, or use a model that takes them (docs/multimodal.md)"
            raise DataError(Problem("E-MEDIA-040", f"this model takes {takes}, no {_plural(kind)}", got=kind, fix=fix))
        return self.placeholders[kind].replace("{n}", str(number))

    def texts_for(self, media: Sequence[Medium]) -> list[str]:
        """What the processor puts in the places of the media of one sequence. Raises DataError (E-MEDIA-040, 043) and
        MachineError (E-MEDIA-041)."""
        numbers: Counter[str] = Counter()
        texts = []
        for medium in media:
            text = self.text_for(medium)
            if numbered := self._family.numbered:
                first, last = numbered.split("{}")
                assert text.startswith(f"{first}0{last}"), "the processor numbers media from 0"
                text = f"{first}{numbers[medium.kind]}{text[len(first) + 1 :]}"
            numbers[medium.kind] += 1
            texts.append(text)
        return texts

    def text_for(self, medium: Medium) -> str:
        """What the processor puts in the place of a medium that is the first of its kind, from its size alone."""
        return self._of(medium).text

    def place(self, ids: Sequence[int], media: Sequence[Medium]) -> tuple[Placed, ...]:
        """Which tokens of a sequence stand for which medium, from the first of them to the last. It may have fewer
        media: a chat that is split has those of its beginning."""
        sequence = np.asarray(ids, dtype=np.int64)
        texts = [self._of(medium).marks for medium in media]
        found = np.flatnonzero(np.isin(sequence, np.unique(np.concatenate([*texts, np.zeros(0, np.int64)]))))
        placed: list[Placed] = []
        at = 0
        for medium, marks in zip(media, texts, strict=True):
            starts = (start for start in range(at, len(found) - len(marks) + 1) if sequence[found[start]] == marks[0])
            fits = (start for start in starts if np.array_equal(sequence[found[start : start + len(marks)]], marks))
            start = next(fits, None)
            if start is None:
                break
            at = start + len(marks)
            placed.append(Placed(medium, int(found[start]), int(found[at - 1]) + 1))
        left = {int(token) for token in sequence[found[at:]]}
        assert left.isdisjoint(self._token_ids), "a placeholder that stands for no medium"
        return tuple(placed)

    def inputs(self, media: Sequence[Medium], *, blank: bool = False) -> dict[str, Tensor]:
        """What the model takes for the media of one sequence, in their order; they are read here, or `blank` ones of
        the same size are made. Raises DataError (E-MEDIA-043, and what reading raises), MachineError (E-MEDIA-041)."""
        for medium in media:
            self._need(medium.kind)
        if len(media) > 1 and any(medium.kind in self._family.singly for medium in media):
            return self.join([self.inputs([medium], blank=blank) for medium in media])
        read = [(medium.kind, self._blank(medium) if blank else self._kept(medium, self._read)) for medium in media]
        return without_text(self._call(read, {"return_tensors": "pt"}, [str(medium.source) for medium in media]))

    def size_of(self, medium: Medium) -> Size:
        """How large a settled medium is when the processor gets it."""
        return size_of(medium, self._limits)

    def shapes_of(self, medium: Medium) -> dict[str, tuple[int, ...]]:
        """Of what the model takes for one medium, by its names. Nothing is decoded."""
        return {name: tuple(value.shape) for name, value in self.inputs([medium], blank=True).items()}

    def _blank(self, medium: Medium) -> Any:
        return blank_medium(medium.kind, self.size_of(medium))

    def join(self, inputs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of several sequences as those of one batch."""
        return join(inputs, self._family.axes, self._family.pads)

    def token_types(
        self,
        ids: Sequence[int],
        *,
        trained: Sequence[bool] | None = None,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """What the model is told of every token beside its id, each [T, ...] by the name of the model's argument; of
        most models nothing. `trained`: which tokens are (a prompt may be seen as a whole). `inputs`: those of the
        sequence."""
        names = self._family.tokens
        if names is None and self.processor.return_mm_token_type_ids:
            names = ("mm_token_type_ids",)
        return of_tokens(self.processor, names or (), ids, trained, inputs or {})

    def fingerprint(self) -> list[str]:
        """What texts and tensors depend on."""
        return [
            type(self.processor).__name__,
            json.dumps(self.processor.to_dict(), sort_keys=True, default=str),
            repr(self._limits),
        ]

    @property
    def sampling_rate(self) -> int | None:
        """Samples a second that the processor wants of sound."""
        found = getattr(self._part("audio"), "sampling_rate", None)
        return None if found is None else int(found)

    def _part(self, kind: Modality) -> Any:
        found = (getattr(self.processor, name, None) for name in _PARTS[kind])
        return next((part for part in found if part is not None and not isinstance(part, Missing)), None)

    def _need(self, kind: Modality) -> None:
        if kind in self.missing:
            fix = "pip install 'tunesmith[torchvision]', or take the rows with them out"
            what = f"the processor of this model makes {_plural(kind)} ready with torchvision, which is not installed"
            raise MachineError(Problem("E-MEDIA-041", what, got=type(self.processor).__name__, fix=fix))

    def _of(self, medium: Medium) -> _Written:
        """Of a medium that is the first of its kind. Raises as `texts_for` does."""
        self.placeholder(medium.kind)
        self._need(medium.kind)
        size = size_of(medium, self._limits)
        key = medium.kind, Size() if medium.kind in self._fixed else size
        with self._lock:
            if key in self._texts:
                self._texts.move_to_end(key)
                return self._texts[key]
        written = self._written(medium.kind, size, str(medium.source))
        with self._lock:
            self._texts[key] = written
            if len(self._texts) > _REMEMBERED:
                self._texts.popitem(last=False)
        return written

    def _written(self, kind: Modality, size: Size, name: str = "") -> _Written:
        """The text for a blank medium of a size."""
        if self._family.literal:
            text = self._tokens[kind]
        else:
            plain = {"do_rescale": False, "do_normalize": False, "resample": 0} if kind == "image" else {}
            found = self._call([(kind, blank_medium(kind, size))], plain, [name], return_text_replacement_offsets=True)
            text = self._told(found)
        ids = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return _Written(text, np.array([token for token in ids if token in self._marking], dtype=np.int64))

    def _told(self, found: Mapping[str, Any]) -> str:
        """What the processor says that it put in the place of the one placeholder."""
        places = [place for text in found.get("text_replacement_offsets", ()) for place in text]
        if len(places) != 1:
            fix = "docs/multimodal.md lists models whose processors do"
            what = (
                f"the processor of this model, {type(self.processor).__name__}, does not tell what it writes for media"
            )
            raise UsageError(Problem("E-MEDIA-047", what, where="model_name_or_path", fix=fix))
        return str(places[0]["replacement"])

    @cached_property
    def _fixed(self) -> frozenset[Modality]:
        """Kinds of which every size has the same text: those of the family, if that is so with these settings."""
        there = [kind for kind in self._family.fixed if kind in self.kinds and kind not in self.missing]
        return frozenset(
            kind for kind in there if self._written(kind, _BLANKS[kind]).text == self._written(kind, _OTHERS[kind]).text
        )

    @cached_property
    def _token_ids(self) -> frozenset[int]:
        return frozenset(self.processor.tokenizer.convert_tokens_to_ids(token) for token in self._tokens.values())

    @cached_property
    def _marking(self) -> frozenset[int]:
        """Ids of tokens that nothing but a processor and a template write."""
        tokenizer = self.processor.tokenizer
        special = (number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
        return self._token_ids.union(special)

    def _call(
        self, read: Sequence[tuple[Modality, Any]], extra: Mapping[str, Any], names: Sequence[str], **wanted: Any
    ) -> Any:
        """The processor's own way, on a text that has nothing but the placeholders of these media."""
        given: dict[str, Any] = {"text": ["".join(self._tokens[kind] for kind, _ in read)]}
        for kind in dict.fromkeys(kind for kind, _ in read):
            settings = {**self._settings(kind), **extra}
            some = [one for other, one in read if other == kind]
            given |= arguments(kind, some, settings, self._limits.audio_sampling_rate)
        try:
            return self.processor(**given, **wanted)
        except _FAILURES as error:
            what = f"the model's processor refuses it: {str(error).strip().splitlines()[0] if str(error) else error!r}"
            fix = "take the row out, or change the limits of sizes (image_min_pixels and others)"
            raise DataError(Problem("E-MEDIA-043", what, where=", ".join(names), fix=fix)) from error

    def _settings(self, kind: Modality) -> dict[str, Any]:
        """The processor's settings that follow from keys of the config."""
        found: dict[str, Any] = {}
        for key, (yes, no) in self._family.switches.items() if kind == "image" else ():
            found |= yes if getattr(self._limits, key) else no
        return found


def _plural(kind: Modality) -> str:
    return {"image": "images", "video": "videos", "audio": "sound"}[kind]
