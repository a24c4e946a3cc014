"""What a file is, by its first bytes: what a server, a name or a client says of it is not looked at."""

from __future__ import annotations

__all__ = ["kind_of"]

# (place, bytes, type); the first that fits.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"\xff\xf3", "audio/mpeg"),
    (8, b"AVI ", "video/x-msvideo"),
    (4, b"ftypM4A", "audio/mp4"),
    (4, b"ftyp", "video/mp4"),
    (0, b"\x1aE\xdf\xa3", "video/webm"),
)
_IN_RIFF = {"image/webp", "audio/wav", "video/x-msvideo"}


def kind_of(data: bytes) -> str | None:
    """The media type; None for anything that is neither image nor sound nor video."""
    for place, signature, kind in _SIGNATURES:
        if data.startswith(signature, place) and (kind not in _IN_RIFF or data.startswith(b"RIFF")):
            return kind
    return None
