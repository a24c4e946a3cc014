"""Pictures: measured by their headers, decoded by stated rules (docs/media.md).

measure_image(path)                   # MediaFacts(width=640, height=480, digest=...)
read_image(path, MediaLimits())       # a PIL image, upright, RGB, of the size that image_size tells
"""

from __future__ import annotations

import hashlib
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.core.errors import TunesmithError
from tunesmith.core.types import MediaFacts
from tunesmith.media.faults import changed, damaged, fault, not_installed, not_of_its_kind, too_large
from tunesmith.media.files import read_whole
from tunesmith.media.kinds import described
from tunesmith.media.limits import MediaLimits, fitted

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "FORMATS",
    "MOST_BYTES",
    "MOST_PIXELS",
    "MOST_RATIO",
    "check_size",
    "image_size",
    "measure_image",
    "read_image",
    "read_rgb",
    "resized",
]

MOST_BYTES = 200_000_000
MOST_PIXELS = 128_000_000
"""More are not decoded: a file of a few kB may stand for gigabytes."""
MOST_RATIO = 200
"""Of the longer side to the shorter: Qwen's processors take no more."""

FORMATS = {
    "image/png": "PNG",
    "image/jpeg": "JPEG",
    "image/gif": "GIF",
    "image/webp": "WEBP",
    "image/bmp": "BMP",
    "image/tiff": "TIFF",
    "image/avif": "AVIF",
}
"""Types that are read, and Pillow's names of them."""
_ORIENTATION = 0x0112
_PNG_ORIENTATION = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


def measure_image(path: str | Path) -> MediaFacts:
    """The size of a picture as it is shown. PNG, JPEG, GIF and WebP are decoded only where they look damaged; others
    have no cheap mark of being whole.

    Raises DataError for what `read_image` would not read.
    """
    data = read_whole(path, MOST_BYTES)
    with _opened(path, data) as image:
        if image.format == "PNG" and (wrong := _wrong_in_png(data)):
            raise damaged(path, wrong)
        if not _WHOLE.get(image.format or "", _never)(data):
            image.load()
        width, height = image.size
        if _orientation(image, data) >= 5:
            width, height = height, width
    return MediaFacts(width, height, digest=hashlib.sha256(data).hexdigest())


def image_size(facts: MediaFacts, limits: MediaLimits) -> tuple[int, int]:
    """Width and height of what `read_image` gives."""
    return fitted(facts.width, facts.height, limits.image_max_pixels, limits.image_min_pixels)


def read_image(path: str | Path, limits: MediaLimits, facts: MediaFacts | None = None) -> Image:
    """A picture as the model's processor gets it: upright, RGB, its area within the limits.

    Raises DataError for what is no picture that is read, and with `facts` for a file that has changed since.
    """
    image = read_rgb(path, facts)
    return resized(image, fitted(*image.size, limits.image_max_pixels, limits.image_min_pixels))


def read_rgb(path: str | Path, facts: MediaFacts | None = None) -> Image:
    """The same in its own size."""
    data = read_whole(path, MOST_BYTES)
    if facts is not None and hashlib.sha256(data).hexdigest() != facts.digest:
        raise changed(path, f"{len(data):,} other bytes")
    with _opened(path, data) as image:
        image.load()
        turn = _TURNS.get(_orientation(image, data))
        rgb = _to_rgb(image)
        return rgb if turn is None else rgb.transpose(turn)  # type: ignore[arg-type]
    raise AssertionError("unreachable")


def resized(image: Image, size: tuple[int, int]) -> Image:
    """By bicubic interpolation, as Pillow does without being told."""
    from PIL.Image import Resampling

    return image if image.size == size else image.resize(size, Resampling.BICUBIC)


@contextmanager
def _opened(path: str | Path, data: bytes) -> Iterator[Image]:
    """A picture whose header was read and whose size is fit; what a decoder says of the file is a problem of it."""
    name = _format(path, data)
    try:
        from PIL import Image
    except ImportError as error:
        raise not_installed(error) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures and odd EXIF: there are rules for both
            with Image.open(BytesIO(data), formats=[name]) as image:
                check_size(path, *image.size)
                if image.mode in ("I", "F"):
                    what, fix = "pixels of 32 bits have no scale that all share", "save it with 8 or 16 bits"
                    raise fault("E-MEDIA-013", what, path, f"mode {image.mode}", fix)
                yield image
    except (TunesmithError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise too_large(path, f"the image has more than {MOST_PIXELS:,} pixels", str(error)) from None
    except Exception as error:  # decoders raise anything at bytes that are not as they should be
        raise damaged(path, error) from error


def check_size(path: object, width: int, height: int, what: str = "image") -> None:
    """Raises DataError for too many pixels (E-MEDIA-016) and for a strip (E-MEDIA-017)."""
    got = f"{width:,} x {height:,} pixels"
    if width * height > MOST_PIXELS:
        raise too_large(path, f"the {what} has more than {MOST_PIXELS:,} pixels", got, "make it smaller")
    if max(width, height) > MOST_RATIO * min(width, height):
        raise fault("E-MEDIA-017", f"a side is more than {MOST_RATIO} times the other", path, got, "cut it to pieces")


def _format(path: str | Path, data: bytes) -> str:
    """Pillow's name of the format. Raises DataError for what is no picture or is not read."""
    kind = described(data)
    if kind in FORMATS and (kind != "image/avif" or _reads_avif()):
        return FORMATS[kind]
    if kind == "an SVG drawing":
        raise fault("E-MEDIA-013", "SVG is not read: it is a text that says how to draw", path, kind, "save it as PNG")
    if kind == "image/heic":
        return _heif(path)
    if kind == "image/avif":
        fix = "pip install --upgrade pillow, or save it as PNG or JPEG"
        raise fault("E-MEDIA-013", "the installed Pillow does not read AVIF", path, kind, fix)
    raise not_of_its_kind(path, "image", kind)


def _reads_avif() -> bool:
    try:
        from PIL import features
    except ImportError as error:
        raise not_installed(error) from error
    return bool(features.check("avif"))


def _heif(path: str | Path) -> str:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        fix = "pip install 'tunesmith[heif]', or save it as JPEG"
        raise fault("E-MEDIA-013", "HEIC needs the package pillow-heif", path, "image/heic", fix) from None
    register_heif_opener()
    return "HEIF"


def _orientation(image: Image, data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none, or none that can be read. Pillow decodes a PNG to look for
    it, so it is asked only where one may be."""
    if image.format == "PNG" and not any(mark in data for mark in _PNG_ORIENTATION):
        return 1
    with suppress(Exception):  # anything may stand in EXIF, and a picture can be shown without it
        found = image.getexif().get(_ORIENTATION, 1)
        return found if isinstance(found, int) and 1 <= found <= 8 else 1
    return 1


# What makes a picture of an orientation upright: members of PIL.Image.Transpose.
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}


def _to_rgb(image: Image) -> Image:
    """RGB. What is transparent lies on white; of 16 bits the upper 8 count; other modes as Pillow converts them."""
    import numpy as np
    from PIL import Image as images

    if image.mode.startswith("I;16"):
        return images.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = images.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return white.convert("RGB")


def _wrong_in_png(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG; Pillow does not look at the checksums of pixels."""
    place = 8
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if end > len(data):
            return f"it ends within its chunk {name.decode('latin-1')}"
        if zlib.crc32(data[place + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            return f"the checksum of its chunk {name.decode('latin-1')} is wrong"
        if name == b"IEND":
            return None
        place = end
    return "it has no end"


def _whole_jpeg(data: bytes) -> bool:
    """Whether an end stands behind the last beginning of pixels. A thumbnail within has its own."""
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")


def _whole_webp(data: bytes) -> bool:
    return int.from_bytes(data[4:8], "little") + 8 <= len(data)


def _never(data: bytes) -> bool:
    return False


# Cheap marks that a file is whole; where one is missing, it is decoded to see.
_WHOLE = {
    "PNG": lambda data: True,
    "JPEG": _whole_jpeg,
    "MPO": _whole_jpeg,
    "GIF": lambda data: data.rstrip(b"\0").endswith(b";"),
    "WEBP": _whole_webp,
}
