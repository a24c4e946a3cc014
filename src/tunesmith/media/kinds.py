"""What a file is, by its first bytes: what a server, a name or a client says of it is not looked at."""

from __future__ import annotations

__all__ = ["described", "kind_of"]

# (place, bytes, type); the first that fits.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\0", "image/tiff"),
    (0, b"MM\0*", "image/tiff"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypavis", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (4, b"ftypheix", "image/heic"),
    (4, b"ftypmif1", "image/heic"),
    (8, b"WAVE", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xfa", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (0, b"\xff\xf2", "audio/mpeg"),
    (0, b"\xff\xf1", "audio/aac"),
    (0, b"\xff\xf9", "audio/aac"),
    (8, b"AVI ", "video/x-msvideo"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
)
_IN_RIFF = {"image/webp", "audio/wav", "video/x-msvideo"}

# Beginnings, in lower case and without blanks, of what people save as a picture by mistake.
_TEXTS = (
    (b"<svg", "an SVG drawing"),
    (b"<!doctypehtml", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "XML"),
    (b"{", "JSON"),
    (b"versionhttps://git-lfs", "a pointer of Git LFS, not the file itself"),
)


def kind_of(data: bytes) -> str | None:
    """The media type; None for anything that is neither image nor sound nor video."""
    for place, signature, kind in _SIGNATURES:
        if data.startswith(signature, place) and (kind not in _IN_RIFF or data.startswith(b"RIFF")):
            return kind
    return None


def described(data: bytes) -> str:
    """What the first bytes of a file are, in words for people."""
    if not data:
        return "nothing (0 bytes)"
    if (kind := kind_of(data)) is not None:
        return kind
    head = b"".join(data[:1024].lower().removeprefix(b"\xef\xbb\xbf").split())
    if head.startswith((b"<?xml", b"<!--")) and b"<svg" in head:
        return "an SVG drawing"
    for beginning, words in _TEXTS:
        if head.startswith(beginning):
            return words
    return "bytes that begin with " + data[:8].hex(" ")
