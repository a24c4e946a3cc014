"""The store of decoded media: no more than it may hold, and nothing decoded twice while it is there."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tunesmith.core.types import MediaFacts, Medium
from tunesmith.media.bounded import Bounded


def medium(number: int) -> Medium:
    return Medium("image", f"{number}.png", MediaFacts(1, 1, digest=str(number)))


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(0, 50))
def test_it_is_a_list_of_what_was_read_last(asked: list[int], most: int) -> None:
    """Against a plain list: number n takes 3 * (n + 1) bytes."""
    bounded, read = Bounded(most), list[int]()

    def decode(one: Medium) -> Any:
        read.append(int(str(one.source).split(".")[0]))
        return Image.new("RGB", (read[-1] + 1, 1))

    kept, wanted = list[int](), list[int]()
    for number in asked:
        image = bounded(medium(number), decode)
        assert image.width == number + 1
        if number in kept:
            kept.remove(number)
            kept.append(number)
        else:
            wanted.append(number)
            if 3 * (number + 1) <= most:
                kept.append(number)
        while sum(3 * (one + 1) for one in kept) > most:
            kept.pop(0)
        assert bounded.bytes == sum(3 * (one + 1) for one in kept) <= most
    assert read == wanted


def test_arrays_that_are_shared_cannot_be_changed() -> None:
    bounded = Bounded()
    frames, _ = bounded(medium(1), lambda one: (np.zeros((2, 4, 4, 3), np.uint8), {}))
    with pytest.raises(ValueError, match="read-only"):
        frames[0] = 1
    assert bounded.bytes == 96


def test_another_process_begins_with_none() -> None:
    bounded = Bounded(1000)
    bounded(medium(1), lambda one: np.zeros(10, np.float32))
    copy = pickle.loads(pickle.dumps(bounded))  # noqa: S301 - what this test wrote itself
    assert (copy.most_bytes, copy.bytes) == (1000, 0)


def test_a_file_that_was_touched_is_read_again(tmp_path: Path) -> None:
    path, read = tmp_path / "a.png", list[int]()
    one = Medium("image", str(path), MediaFacts(1, 1, digest="a"))

    def decode(_: Medium) -> Any:
        read.append(1)
        return Image.new("RGB", (1, 1))

    path.write_bytes(b"12")
    bounded = Bounded()
    for change in (lambda: None, lambda: path.write_bytes(b"1"), path.unlink):
        change()
        before = len(read)
        bounded(one, decode)
        assert len(read) == before + 1
        bounded(one, decode)
        assert len(read) == before + 1, "until then it is not"
    assert bounded.bytes == 3
