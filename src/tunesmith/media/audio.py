"""Sound: decoded in pieces, mono, at the rate that a model asks for.

facts = measure_audio(path)           # MediaFacts(seconds=3.25, digest=...)
read_audio(path, 16000)               # float32 [audio_length(facts, 16000)]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tunesmith.core.types import MediaFacts
from tunesmith.media.faults import changed, damaged, fault, not_installed, too_large
from tunesmith.media.files import digest_of, head_of
from tunesmith.media.kinds import described
from tunesmith.media.packets import opened_film
from tunesmith.media.resample import resample

__all__ = [
    "LIBSNDFILE",
    "MOST_CHANNELS",
    "MOST_SECONDS",
    "RATES",
    "Samples",
    "audio_length",
    "measure_audio",
    "read_audio",
]

Samples: TypeAlias = npt.NDArray[np.float32]
"""[S], mono, mostly between -1 and 1."""

MOST_SECONDS = 3600
RATES = (1_000, 768_000)
"""The lowest and the highest rate in Hz that a file may have."""

MOST_CHANNELS = 8
"""Of what PyAV reads: behind the eighth it looks at memory that is not the frame's."""

LIBSNDFILE = {"audio/wav", "audio/flac", "audio/ogg", "audio/mpeg"}  # all else goes to PyAV
_PIECE = 65_536  # samples


def measure_audio(path: str | Path) -> MediaFacts:
    """The length of a sound, or of the sound track of a film. It is decoded once, in pieces: that alone tells its exact
    length and that all of it can be heard.

    Raises DataError for what is no sound, is damaged, empty, not finite, or longer than MOST_SECONDS.
    """
    samples = 0
    with _opened(path) as (rate, pieces):
        for piece in pieces:
            samples += len(piece)
    return MediaFacts(seconds=samples / rate, digest=digest_of(path))


def audio_length(facts: MediaFacts, rate: int) -> int:
    """Samples that `read_audio` gives. Rounding away what float64 adds to a quotient of whole numbers is exact for all
    of RATES and MOST_SECONDS."""
    return math.ceil(round(facts.seconds * rate, 6))


def read_audio(path: str | Path, rate: int, facts: MediaFacts | None = None) -> Samples:
    """A sound, or the sound track of a film, in mono at `rate` Hz.

    Raises DataError like `measure_audio`, and with `facts` for a file that has changed since (E-MEDIA-022).
    """
    with _opened(path) as (own_rate, pieces):
        samples = np.concatenate(list(pieces))
    if facts is not None and len(samples) / own_rate != facts.seconds:
        raise changed(path, f"{len(samples) / own_rate:.3f} seconds, {facts.seconds:.3f} then")
    return resample(samples, own_rate, rate)


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[int, Iterator[Samples]]]:
    """The rate of a sound, and its samples piece by piece, checked."""
    opened = _by_libsndfile if described(head_of(path)) in LIBSNDFILE else _by_pyav
    with opened(path) as (rate, pieces):
        if not RATES[0] <= rate <= RATES[1]:
            raise damaged(path, f"a rate of {rate:,} Hz")
        yield rate, _checked(path, rate, pieces)


def _checked(path: str | Path, rate: int, pieces: Iterator[Samples]) -> Iterator[Samples]:
    count = 0
    for piece in pieces:
        if not np.isfinite(piece).all():
            raise fault("E-MEDIA-019", "the sound has samples that are no finite numbers", path, "NaN or infinity")
        count += len(piece)
        if count > MOST_SECONDS * rate:
            raise too_large(path, f"the sound is longer than {MOST_SECONDS:,} seconds", "more", "cut it to pieces")
        yield piece
    if not count:
        raise fault("E-MEDIA-019", "the sound has no samples", path, "0 seconds")


@contextmanager
def _by_libsndfile(path: str | Path) -> Iterator[tuple[int, Iterator[Samples]]]:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the library in C is missing
        missing = error if isinstance(error, ImportError) else ImportError(str(error), name="soundfile")
        raise not_installed(missing) from error
    try:
        with soundfile.SoundFile(str(path)) as file:
            yield file.samplerate, _read(file, path)
    except soundfile.LibsndfileError as error:
        raise damaged(path, error.error_string) from error


def _read(file: Any, path: str | Path) -> Iterator[Samples]:
    told, count = file.frames, 0
    while len(piece := file.read(_PIECE, dtype="float32", always_2d=True)):
        count += len(piece)
        yield piece.mean(axis=1)
    if count < told and file.format != "MP3":  # which does not say how long it is
        raise damaged(path, f"{count:,} of {told:,} samples can be decoded")


@contextmanager
def _by_pyav(path: str | Path) -> Iterator[tuple[int, Iterator[Samples]]]:
    with opened_film(path, "audio") as container:
        if not container.streams.audio:
            raise fault("E-MEDIA-019", "the file has no sound", path, "pictures only")
        stream = container.streams.audio[0]
        if stream.codec_context is None:
            raise damaged(path, "its codec is not one that FFmpeg knows")
        yield stream.rate or 0, _decoded(container, stream, path)


def _decoded(container: Any, stream: Any, path: str | Path) -> Iterator[Samples]:
    import av

    planes = av.AudioResampler(format="fltp")  # a plane of float32 for each channel; rate and channels as they are
    for frame in container.decode(stream):
        if (channels := frame.layout.nb_channels) > MOST_CHANNELS:
            what, fix = f"the sound has more than {MOST_CHANNELS} channels", "mix it down to fewer"
            raise fault("E-MEDIA-013", what, path, f"{channels} channels", fix)
        for one in planes.resample(frame):
            yield one.to_ndarray().mean(axis=0)
