"""`Media`: texts from sizes, numbers, places, what is refused, switches of the config, tensors of several sequences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media_cases import Shelf, media_of_case, tokenizer_of
from tests.media_families import CASES
from tunesmith.core.errors import DataError, UsageError
from tunesmith.media.limits import MediaLimits
from tunesmith.media.tensors import join


def _case(name: str, limits: MediaLimits | None = None) -> tuple[Any, Shelf, Any]:
    shelf, tokenizer = Shelf(), tokenizer_of(CASES[name])
    return media_of_case(CASES[name], shelf, limits, tokenizer), shelf, tokenizer


@pytest.fixture(scope="module")
def qwen() -> tuple[Any, Shelf, Any]:
    return _case("qwen2_vl")


def test_the_limits_decide_as_they_do_when_a_picture_is_read() -> None:
    media, shelf, _ = _case("qwen2_vl", MediaLimits(image_max_pixels=56 * 56))
    # 112 x 112 is brought to 56 x 56: 2 x 2 places of 28 pixels.
    assert media.text_for(shelf.image(112, 112)) == "<|image_pad|>" * 4


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(30, 300), st.integers(30, 300)), min_size=1, max_size=3))
def test_there_are_as_many_places_as_patches(qwen: tuple[Any, Shelf, Any], sizes: list[tuple[int, int]]) -> None:
    media, shelf, tokenizer = qwen
    some = [shelf.image(*size) for size in sizes]
    texts = media.texts_for(some)
    ids = tokenizer(" and ".join(texts), add_special_tokens=False)["input_ids"]
    grid = media.inputs(some)["image_grid_thw"]
    assert [placed.end - placed.start for placed in media.place(ids, some)] == (grid.prod(-1) // 4).tolist()


def test_a_picture_that_the_processor_refuses(qwen: tuple[Any, Shelf, Any]) -> None:
    media, shelf, _ = qwen
    flat = shelf.image(6000, 20)
    with pytest.raises(DataError) as found:
        media.text_for(flat)
    problem = found.value.problems[0]
    assert (problem.code, problem.where) == ("E-MEDIA-043", flat.source)
    assert "aspect ratio" in problem.what


def test_numbers_count_within_a_sequence() -> None:
    media, shelf, _ = _case("minicpmv4_6")
    texts = media.texts_for([shelf.image(60, 60), shelf.image(60, 60)])
    assert [text[: text.index("<image>")] for text in texts] == ["<image_id>0</image_id>", "<image_id>1</image_id>"]
    media, _, _ = _case("ernie4_5_vl_moe")
    assert media.placeholder("image", 2) == "Picture 2:<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"


def test_tiles_follow_the_config() -> None:
    for crops, tiles in ((False, 1), (True, 3)):
        media, shelf, _ = _case("internvl", MediaLimits(crop_to_patches=crops))
        wide = shelf.image(112, 56)  # two tiles of 56 x 56, and the whole
        assert media.text_for(wide).count("<IMG_CONTEXT>") == 4 * tiles
        assert media.inputs([wide])["pixel_values"].shape[0] == tiles


def test_pan_and_scan_follows_the_config() -> None:
    for pans, crops in ((False, 0), (True, 2)):
        media, shelf, _ = _case("gemma3", MediaLimits(image_do_pan_and_scan=pans))
        wide = shelf.image(700, 300)
        assert media.text_for(wide).count("<image_soft_token>") == 4 * (1 + crops)
        assert media.inputs([wide])["pixel_values"].shape[0] == 1 + crops


def test_the_same_picture_is_handed_over_once(qwen: tuple[Any, Shelf, Any]) -> None:
    media, shelf, _ = qwen
    one = shelf.image(60, 60)
    first = media.inputs([one])["pixel_values"]
    shelf.things[str(one.source)] = None  # cannot be read again
    assert torch.equal(media.inputs([one, one])["pixel_values"], torch.cat([first, first]))


def test_a_blank_one_in_the_place_of_one_that_cannot_be_read(qwen: tuple[Any, Shelf, Any]) -> None:
    media, shelf, _ = qwen
    one = shelf.image(60, 90)
    whole = media.inputs([one])
    shelf.things[str(one.source)] = None
    blank = media.inputs([one], blank=True)
    assert {name: tensor.shape for name, tensor in blank.items()} == {n: tensor.shape for n, tensor in whole.items()}
    assert torch.equal(blank["image_grid_thw"], whole["image_grid_thw"])


def test_joined_tensors() -> None:
    one = {"a": torch.ones(1, 2, 3), "b": torch.ones(2, 1)}
    two = {"a": torch.ones(2, 4, 3)}
    joined = join([one, two], {"b": 1}, {"a": -1})
    assert joined["a"].shape == (3, 4, 3)
    assert joined["a"][0].tolist() == [[1, 1, 1]] * 2 + [[-1, -1, -1]] * 2
    assert joined["b"].shape == (2, 1)
    with pytest.raises(DataError, match="E-MEDIA-046"):
        join([one, two], {}, {"a": None})


def test_tokens_of_a_llama_see_the_pictures_before_them() -> None:
    """Two pictures side by side, and one later: the last token sees the last picture alone."""
    media, shelf, tokenizer = _case("mllama")
    some = [shelf.image(56, 56), shelf.image(112, 56), shelf.image(56, 56)]
    text = "<|endoftext|><|image|><|image|>a b<|image|>c"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    seen = media.token_types(ids, inputs=media.inputs(some))["cross_attention_mask"]
    own = media.processor(text=[text], images=[[shelf.read(one) for one in some]], return_tensors="pt")
    assert torch.equal(seen, own["cross_attention_mask"][0])


def test_a_prompt_is_seen_as_a_whole_by_paligemma() -> None:
    media, _, _ = _case("paligemma")
    types = media.token_types([5, 6, 7, 8], trained=[False, False, True, True])["token_type_ids"]
    assert types.tolist() == [0, 0, 1, 1]


def test_a_processor_that_does_not_tell_what_it_writes() -> None:
    media, shelf, _ = _case("qwen2_vl")
    whole = type(media.processor)

    class Silent(whole):  # type: ignore[misc, valid-type]
        def __call__(self, *some: Any, **named: Any) -> Any:
            found = super().__call__(*some, **named)
            found.pop("text_replacement_offsets", None)
            return found

    media.processor.__class__ = Silent
    with pytest.raises(UsageError, match="E-MEDIA-047"):
        media.text_for(shelf.image(60, 60))
