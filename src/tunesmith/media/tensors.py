"""Tensors of media: those of one sequence, joined to those of a batch, and what a model is told of each token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem
from tunesmith.media.family import TokenInput

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["join", "of_tokens", "without_text"]

# What processors give beside the tensors of media: of their text, and of the way to it.
_OF_TEXT = frozenset({
    "input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "moe_mm_token_type_ids", "labels",
    "cross_attention_mask", "text_replacement_offsets", "video_metadata", "num_audio_tokens"
})  # fmt: skip


def without_text(found: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that are of media."""
    import torch

    return {name: torch.as_tensor(value) for name, value in found.items() if name not in _OF_TEXT}


def join(
    inputs: Sequence[Mapping[str, Tensor]], axes: Mapping[str, int], pads: Mapping[str, float | None]
) -> dict[str, Tensor]:
    """Tensors of several sequences, one behind the other along their axis; along the others they are filled up at
    their ends to the size of the largest. Raises DataError (E-MEDIA-046) where the model has no way to tell what
    fills them up."""
    import torch

    joined = {}
    for name in dict.fromkeys(name for one in inputs for name in one):
        axis, some = axes.get(name, 0), [one[name] for one in inputs if name in one]
        sizes = [max(size) for size in zip(*(one.shape for one in some), strict=True)]
        filled = []
        for one in some:
            shape = [own if at == axis else size for at, (own, size) in enumerate(zip(one.shape, sizes, strict=True))]
            if list(one.shape) != shape:
                if (pad := pads.get(name, 0)) is None:
                    raise _uneven(name, one.shape, shape)
                whole = one.new_full(shape, pad)
                whole[tuple(slice(0, size) for size in one.shape)] = one
                one = whole
            filled.append(one)
        joined[name] = torch.cat(filled, axis)
    return joined


def _uneven(name: str, own: Sequence[int], other: Sequence[int]) -> DataError:
    fix = "bring all to one number of frames (video_maxlen, and a video_fps that reaches it), or use batches of one"
    what = "the videos of a batch have other numbers of frames, and this model takes only one"
    return DataError(Problem("E-MEDIA-046", what, where=name, got=f"{own[1]} and {other[1]}", fix=fix))


def of_tokens(
    processor: Any,
    names: Sequence[TokenInput],
    ids: Sequence[int],
    trained: Sequence[bool] | None,
    inputs: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """What the model takes for every token of a sequence, [T, ...]."""
    import torch

    found: dict[str, Tensor] = {}
    for name in names:
        if name == "prefix":
            found["token_type_ids"] = _behind_prompt(len(ids), trained)
        elif name == "cross":
            found["cross_attention_mask"] = _seen_from(processor, ids, inputs)
        elif name == "moe_mm_token_type_ids":
            found[name] = torch.tensor(processor.create_moe_mm_token_type_ids([list(ids)])[0])
        else:
            found[name] = torch.tensor(processor.create_mm_token_type_ids([list(ids)])[0])
    return found


def _behind_prompt(length: int, trained: Sequence[bool] | None) -> Tensor:
    """[T] 0 for the prompt, which is seen as a whole, 1 from the first trained token on."""
    import torch

    types = torch.zeros(length, dtype=torch.long)
    if trained is not None and any(trained):
        types[list(trained).index(True) :] = 1
    return types


def _seen_from(processor: Any, ids: Sequence[int], inputs: Mapping[str, Tensor]) -> Tensor:
    """[T, images, tiles] whether a token sees a tile of an image. A token sees the last image before it, and those
    that stand together with it."""
    import torch

    tiles = inputs["aspect_ratio_mask"][0].sum(-1).tolist() if "aspect_ratio_mask" in inputs else []
    most = processor.image_processor.max_image_tiles
    seen = torch.zeros(len(ids), len(tiles), most, dtype=torch.long)
    places = [at for at, token in enumerate(ids) if token == processor.image_token_id]
    ends = [*places[1:], len(ids)]
    for number in range(len(places) - 2, -1, -1):
        if places[number + 1] == places[number] + 1:
            ends[number] = ends[number + 1]
    for number, (place, end, count) in enumerate(zip(places, ends, tiles, strict=False)):
        seen[place:end, number, :count] = 1
    return seen
