"""Pictures of all kinds that people have, each by its rule, against Pillow itself."""

from __future__ import annotations

import math
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps, features

from tunesmith.config import load_config
from tunesmith.core.errors import DataError
from tunesmith.media import images
from tunesmith.media.images import image_size, measure_image, read_image
from tunesmith.media.limits import MediaLimits, fitted

AS_IT_IS = MediaLimits(image_max_pixels=10**9, image_min_pixels=1)
NOISE = np.random.default_rng(5).integers(0, 256, (24, 40, 3), dtype=np.uint8)


def saved(folder: Path, image: Image.Image, name: str, **how: Any) -> Path:
    path = folder / name
    image.save(path, **how)
    return path


def noise(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(NOISE).convert(mode)


def with_alpha(mode: str) -> Image.Image:
    image = noise("RGBA" if mode == "RGBA" else "LA")
    image.putalpha(Image.fromarray(NOISE[..., 1]))
    return image


def problem(read: Callable[[], Any]) -> Any:
    """The one problem that reading tells; it names file, input and fix."""
    with pytest.raises(DataError) as caught:
        read()
    (found,) = caught.value.problems
    assert found.where
    assert found.got
    assert found.fix
    return found


def code(path: Path) -> str:
    """Of what is wrong with a file, which measuring and reading tell alike."""
    found = problem(lambda: measure_image(path))
    assert problem(lambda: read_image(path, MediaLimits())).code == found.code
    assert str(path)[:300] in found.where
    return str(found.code)


def on_white(image: Image.Image) -> np.ndarray:
    """By hand: each pixel is mixed with white as its alpha says."""
    pixels = np.asarray(image.convert("RGBA")).astype(float)
    alpha = pixels[..., 3:] / 255
    return pixels[..., :3] * alpha + 255 * (1 - alpha)


# --- size ---


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 2_000_000), st.integers(1, 100_000))
@example(1, 1, 589_824, 1024)
@example(4000, 20, 100, 100)
def test_areas_are_limited_as_in_llamafactory(width: int, height: int, most: int, least: int) -> None:
    """Its mm_plugin in other words, but that no side vanishes."""
    w, h = width, height
    if w * h > most:
        factor = math.sqrt(most / (w * h))
        w, h = int(w * factor) or 1, int(h * factor) or 1
    if w * h < least:
        factor = math.sqrt(least / (w * h))
        w, h = int(w * factor) or 1, int(h * factor) or 1
    assert fitted(width, height, most, least) == (w, h)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(["PNG", "JPEG", "TIFF", "WEBP"]),
    st.integers(1, 8),
    st.integers(1, 2000),
    st.integers(1, 500),
)
def test_the_size_is_known_without_reading(
    tmp_path: Path, width: int, height: int, name: str, turned: int, most: int, least: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    path = saved(tmp_path, Image.new("RGB", (width, height)), "a", format=name, exif=exif)
    limits = MediaLimits(image_max_pixels=most, image_min_pixels=least)
    facts = measure_image(path)
    shown = (height, width) if turned >= 5 else (width, height)
    assert (facts.width, facts.height) == shown
    image = read_image(path, limits, facts)
    assert image.size == image_size(facts, limits)
    assert image.mode == "RGB"


@pytest.mark.parametrize("key", ["image_max_pixels", "image_min_pixels"])
def test_images_are_brought_to_size(tmp_path: Path, key: str) -> None:
    path = saved(tmp_path, noise(), "a.png")
    keys = {"image_min_pixels": 1, key: 240 if key == "image_max_pixels" else 3840}
    limits = MediaLimits.of(load_config(keys, verb="show").media)
    wanted = (20, 12) if key == "image_max_pixels" else (80, 48)  # a quarter and four times of 40 x 24
    image = read_image(path, limits)
    assert image.size == wanted
    assert np.array_equal(image, noise().resize(wanted))


def test_real_pictures_are_those_of_pillow(assets: Path) -> None:
    for path in sorted((assets / "data" / "multimodal" / "mllm_demo_data").glob("*.jpg")):
        with Image.open(path) as image:
            assert np.array_equal(read_image(path, AS_IT_IS), image.convert("RGB"))


# --- modes ---


@pytest.mark.parametrize("turned", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff", "a.webp"])
def test_pictures_are_turned_as_exif_says(tmp_path: Path, turned: int, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = turned
    path = saved(tmp_path, noise(), name, exif=exif)
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    assert np.array_equal(read_image(path, AS_IT_IS), upright)
    facts = measure_image(path)
    assert (facts.width, facts.height) == upright.size


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense of any kind"])
def test_exif_that_cannot_be_read_counts_as_none(tmp_path: Path, exif: bytes) -> None:
    path = saved(tmp_path, noise(), "a.jpg", exif=exif)
    assert (measure_image(path).width, measure_image(path).height) == (40, 24)
    assert read_image(path, AS_IT_IS).size == (40, 24)


@pytest.mark.parametrize(
    ("mode", "name"), [("CMYK", "a.jpg"), ("CMYK", "a.tiff"), ("L", "a.png"), ("1", "a.png"), ("P", "a.png")]
)
def test_what_is_opaque_is_converted_by_pillow(tmp_path: Path, mode: str, name: str) -> None:
    path = saved(tmp_path, noise(mode), name)
    with Image.open(path) as image:
        assert image.mode == mode
        assert np.array_equal(read_image(path, AS_IT_IS), image.convert("RGB"))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    image = with_alpha(mode)
    path = saved(tmp_path, image, "a.png")
    assert np.abs(np.asarray(read_image(path, AS_IT_IS)) - on_white(image)).max() <= 1


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_one_colour_may_be_the_transparent_one(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 2), 0)
    image.paste((10, 20, 30) if mode == "RGB" else 1, (2, 0, 4, 2))
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 20, 30])
    path = saved(tmp_path, image, "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    found = np.asarray(read_image(path, AS_IT_IS))
    assert (found[:, :2] == 255).all()
    assert (found[:, 2:] == ((1, 1, 1) if mode == "L" else (10, 20, 30))).all()


def test_a_palette_may_have_an_alpha_for_each_colour(tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([200, 100, 0] * 3)
    image.putdata([0, 1, 2])
    path = saved(tmp_path, image, "a.png", transparency=bytes([255, 128, 0]))
    found = np.asarray(read_image(path, AS_IT_IS))[0]
    half = [200 * 128 / 255 + 127, 100 * 128 / 255 + 127, 127]
    assert np.abs(found - np.array([[200, 100, 0], half, [255, 255, 255]])).max() <= 1


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_of_16_bits_the_upper_8_count(tmp_path: Path, name: str) -> None:
    """Pillow's own conversion would make everything from 255 on white."""
    values = np.array([[0, 255, 256, 0x7FFF, 0x8000, 0xFFFF]], np.uint16)
    path = saved(tmp_path, Image.fromarray(values), name)
    found = np.asarray(read_image(path, AS_IT_IS))
    assert found[0].tolist() == [[value] * 3 for value in (0, 0, 1, 0x7F, 0x80, 0xFF)]


def test_big_endian_greys_are_the_same(tmp_path: Path) -> None:
    image = Image.frombytes("I;16B", (2, 1), b"\x12\x34\xab\xcd")
    found = np.asarray(read_image(saved(tmp_path, image, "a.tiff"), AS_IT_IS))
    assert found[0, :, 0].tolist() == [0x12, 0xAB]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_of_32_bits_are_refused(tmp_path: Path, dtype: Any) -> None:
    path = saved(tmp_path, Image.fromarray(np.ones((2, 2), dtype)), "a.tiff")
    assert code(path) == "E-MEDIA-013"


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png"])
def test_of_moving_pictures_the_first_is_taken(tmp_path: Path, name: str) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    first, *others = [Image.new("RGB", (8, 6), colour) for colour in colours]
    path = saved(tmp_path, first, name, save_all=True, append_images=others, lossless=True)
    assert np.array_equal(read_image(path, AS_IT_IS), first)


def test_one_pixel_is_enlarged(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (1, 1), (9, 8, 7)), "a.png")
    assert (np.asarray(read_image(path, MediaLimits())) == (9, 8, 7)).all()
    assert read_image(path, MediaLimits()).size == (32, 32)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.new("RGB", (16, 8), (200, 30, 30)), "a.avif", quality=95)
    assert (measure_image(path).width, measure_image(path).height) == (16, 8)
    assert np.abs(np.asarray(read_image(path, AS_IT_IS)).astype(int) - (200, 30, 30)).max() <= 4


def test_without_avif_in_pillow_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.avif"
    path.write_bytes(b"\0\0\0\x1cftypavif" + b"\0" * 40)
    monkeypatch.setattr(features, "check", lambda name: False)
    assert code(path) == "E-MEDIA-013"


def test_heic_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0\0\0\x1cftypheic" + b"\0" * 40)
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    assert code(path) == "E-MEDIA-013"
    assert "tunesmith[heif]" in problem(lambda: measure_image(path)).fix


@pytest.mark.needs_package("pillow_heif")
def test_heic_is_read_with_its_extra(tmp_path: Path) -> None:
    import pillow_heif

    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 30))).save(path, quality=95)
    assert (measure_image(path).width, measure_image(path).height) == (64, 48)
    assert np.abs(np.asarray(read_image(path, AS_IT_IS)).astype(int) - (200, 30, 30)).max() <= 4


# --- what is wrong ---


def encoded(name: str, **how: Any) -> bytes:
    file = BytesIO()
    noise().save(file, name, **how)
    return file.getvalue()


def test_a_strip_is_refused(tmp_path: Path) -> None:
    assert code(saved(tmp_path, Image.new("RGB", (10_000, 1)), "a.png")) == "E-MEDIA-017"
    assert code(saved(tmp_path, Image.new("RGB", (1, 201)), "b.png")) == "E-MEDIA-017"
    assert measure_image(saved(tmp_path, Image.new("RGB", (200, 1)), "c.png")).width == 200


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, rows: int) -> bytes:
    """A black 1-bit PNG that says to be so large and has `rows` rows."""
    pixels = zlib.compress(bytes((width + 7) // 8 + 1) * rows, 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [11_400, 50_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smaller is over our limit and under Pillow's, the larger over both."""
    path = tmp_path / "a.png"
    path.write_bytes(png(side, side, 16))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *a: pytest.fail("decoded"))
    assert path.stat().st_size < 2000
    assert code(path) == "E-MEDIA-016"


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_ends_too_early_is_damaged(tmp_path: Path, name: str, share: float) -> None:
    data = encoded(name)
    path = tmp_path / "a"
    path.write_bytes(data[: int(len(data) * share)])
    assert code(path) == "E-MEDIA-014"


def test_a_picture_with_a_thumbnail_may_end_too_early(tmp_path: Path) -> None:
    """The thumbnail brings an end of its own."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + encoded("JPEG")
    data = encoded("JPEG", exif=exif)
    assert data[:-200].count(b"\xff\xd9") == 1
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:-200])
    assert code(path) == "E-MEDIA-014"


def test_a_wrong_checksum_of_pixels_is_damage(tmp_path: Path) -> None:
    """Pillow does not see it."""
    data = bytearray(encoded("PNG"))
    place = data.index(b"IDAT")
    (length,) = struct.unpack_from(">I", data, place - 4)
    data[place + 4 + length] ^= 1
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with Image.open(path) as image:
        image.load()
    found = problem(lambda: measure_image(path))
    assert found.code == "E-MEDIA-014"
    assert "IDAT" in found.got


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "nothing (0 bytes)"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
        (b"<html>", "a web page"),
        (b"hello, this is text", "bytes that begin with"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a pointer of Git LFS"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 100, "video/mp4"),
        (b"RIFF\0\0\0\0WAVEfmt ", "audio/wav"),
    ],
)
def test_what_is_no_picture_is_told_by_its_bytes(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert code(path) == "E-MEDIA-012"
    assert words in problem(lambda: measure_image(path)).got


@pytest.mark.parametrize(
    "data", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<?xml version='1.0'?>\n<!-- a -->\n<svg/>"]
)
def test_svg_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.svg"
    path.write_bytes(data)
    assert code(path) == "E-MEDIA-013"


def test_files_that_are_none(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert code(tmp_path / "pipe") == "E-MEDIA-011"
    assert code(tmp_path) == "E-MEDIA-011"
    assert code(tmp_path / ("n" * 300)) == "E-MEDIA-011"
    with pytest.raises(DataError) as caught:
        measure_image(tmp_path / "missing")
    assert caught.value.code == "E-MEDIA-010"


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with path.open("wb") as file:
        file.write(encoded("PNG"))
        file.truncate(images.MOST_BYTES + 1)
    assert code(path) == "E-MEDIA-016"


def test_a_picture_that_has_changed_is_noticed(tmp_path: Path) -> None:
    path = saved(tmp_path, noise(), "a.png")
    facts = measure_image(path)
    saved(tmp_path, noise("L"), "a.png")
    assert problem(lambda: read_image(path, AS_IT_IS, facts)).code == "E-MEDIA-022"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"]), st.data())
def test_whatever_bytes_there_are_the_answer_is_a_picture_or_a_problem(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    """And what is measured is what is read, if it can be read at all."""
    content = bytearray(encoded(name))
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path = tmp_path / "a"
    path.write_bytes(content)
    with suppress(DataError):
        facts = measure_image(path)
        assert read_image(path, AS_IT_IS, facts).size == (facts.width, facts.height)
