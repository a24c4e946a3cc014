"""Sound of all formats, against soundfile and PyAV, and what is wrong with some."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config import load_config
from tunesmith.core.errors import DataError, MachineError
from tunesmith.core.types import MediaFacts
from tunesmith.media import audio
from tunesmith.media.audio import audio_length, measure_audio, read_audio
from tunesmith.media.limits import MediaLimits
from tunesmith.media.resample import resample


def tone(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    """[S, C]; each channel another tone."""
    at = np.arange(int(seconds * rate)) / rate
    return np.stack([0.4 * np.sin(2 * np.pi * 300 * (1 + one) * at) for one in range(channels)], axis=1)


def code(read: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        read()
    (found,) = caught.value.problems
    assert found.where
    assert found.got
    assert found.fix
    return str(found.code)


def encoded(path: Path, samples: np.ndarray, rate: int, codec: str = "aac") -> Path:
    """Written by PyAV, for what libsndfile does not write."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono" if samples.shape[1] == 1 else "stereo")
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples.T.astype(np.float32)), "fltp", stream.layout.name
        )
        frame.sample_rate = rate
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(48_000, 2), (16_000, 1), (44_100, 1)])
def test_samples_are_those_of_soundfile(tmp_path: Path, name: str, rate: int, channels: int) -> None:
    path = tmp_path / name
    soundfile.write(path, tone(0.7, rate, channels), rate)
    samples, own = soundfile.read(path, dtype="float32", always_2d=True)
    assert own == rate
    facts = measure_audio(path)
    found = read_audio(path, 16_000, facts)
    # The decoder of mp3 rounds otherwise when it is asked for pieces.
    assert np.abs(found - resample(samples.mean(axis=1), rate, 16_000)).max() <= (1e-6 if name == "a.mp3" else 0)
    assert len(found) == audio_length(facts, 16_000)
    assert found.dtype == np.float32


def test_the_key_is_the_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(0.5, 16_000), 16_000)
    limits = MediaLimits.of(load_config({"audio_sampling_rate": 24_000}, verb="show").media)
    assert len(read_audio(path, limits.audio_sampling_rate)) == 12_000


def test_real_sounds_are_those_of_soundfile(assets: Path) -> None:
    for name in ("1.mp3", "2.wav", "3.flac", "4.mp3"):
        path = assets / "data" / "multimodal" / "mllm_demo_data" / name
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        assert np.array_equal(read_audio(path, rate), samples.mean(axis=1))
        assert measure_audio(path).seconds == len(samples) / rate


@pytest.mark.parametrize("name", ["a.m4a", "a.mp4", "a.mkv", "a.aac"])
def test_other_sounds_are_those_of_pyav(tmp_path: Path, name: str) -> None:
    path = encoded(tmp_path / name, tone(0.5, 32_000, 2), 32_000)
    with av.open(str(path)) as container:
        witness = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1).mean(axis=0)
    facts = measure_audio(path)
    assert np.array_equal(read_audio(path, 32_000, facts), witness)
    assert facts.seconds == len(witness) / 32_000
    middle = slice(4_000, 12_000)
    at = np.arange(len(witness))[middle] / 32_000
    tones = np.stack([f(2 * np.pi * hertz * at) for hertz in (300, 600) for f in (np.sin, np.cos)], axis=1)
    loud, *_ = np.linalg.lstsq(tones, read_audio(path, 32_000)[middle], rcond=None)
    assert np.allclose([np.hypot(*loud[:2]), np.hypot(*loud[2:])], 0.2, atol=0.02)  # the mean of two channels


def test_the_sound_track_of_a_film_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        film, sound = container.add_stream("libx264", rate=10), container.add_stream("aac", rate=16_000, layout="mono")
        film.width, film.height, film.pix_fmt = 32, 32, "yuv420p"
        for _ in range(10):
            container.mux(film.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        frame = av.AudioFrame.from_ndarray(tone(1.0, 16_000).T.astype(np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame))
        container.mux([*film.encode(None), *sound.encode(None)])
    facts = measure_audio(path)
    assert 1.0 <= facts.seconds < 1.2
    assert 0.2 < np.abs(read_audio(path, 8_000, facts)).max() < 0.5


@given(st.integers(1, 10**8), st.integers(*audio.RATES), st.integers(1_000, 192_000))
def test_lengths_are_known_from_seconds(samples: int, rate: int, to: int) -> None:
    """float64 keeps the quotient so well that the length is the one in whole numbers."""
    samples = min(samples, audio.MOST_SECONDS * rate)
    assert audio_length(MediaFacts(seconds=samples / rate), to) == -(-samples * to // rate)


# --- what is wrong ---


def test_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((0, 1)), 16_000)
    assert code(lambda: measure_audio(path)) == "E-MEDIA-019"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    path = tmp_path / "a.wav"
    samples = tone(5.0, 16_000)
    samples[70_000] = value
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    assert code(lambda: measure_audio(path)) == "E-MEDIA-019"
    assert code(lambda: read_audio(path, 16_000)) == "E-MEDIA-019"


def test_a_film_without_sound(assets: Path) -> None:
    path = assets / "data" / "multimodal" / "mllm_demo_data" / "1.mp4"
    assert code(lambda: measure_audio(path)) == "E-MEDIA-019"


def wav(rate: int = 16_000, told: int | None = None, data: bytes = b"\1\0" * 800, form: int = 1) -> bytes:
    told = len(data) if told is None else told
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + told & 0xFFFFFFFF, b"WAVE", b"fmt ", 16, form, 1, rate,
                         2 * rate & 0xFFFFFFFF, 2, 16, b"data", told)  # fmt: skip
    return header + data


@pytest.mark.parametrize(
    "data",
    [
        wav(rate=4_000_000_000),
        wav(rate=10),
        wav(rate=0),
        wav(form=0x1234),
        wav()[:30],
        b"fLaC" + b"\0" * 50,
        b"OggS" + b"\0" * 50,
        b"ID3" + b"\0" * 500,
        b"\0\0\0\x18ftypM4A " + b"\0" * 50,
    ],
)
def test_a_wrong_header_is_damage(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    assert code(lambda: measure_audio(path)) == "E-MEDIA-014"


def test_a_header_that_was_never_finished_is_no_damage(tmp_path: Path) -> None:
    """Programs that write into a pipe promise the largest number there is."""
    path = tmp_path / "a.wav"
    path.write_bytes(wav(told=0xFFFFFFFF))
    assert measure_audio(path).seconds == 800 / 16_000


def test_a_sound_that_ends_too_early_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.random.default_rng(1).uniform(-0.5, 0.5, 40_000), 16_000)
    path.write_bytes(path.read_bytes()[:30_000])
    assert code(lambda: measure_audio(path)) == "E-MEDIA-014"


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "nothing"), (b"<html>", "a web page"), (b"\x89PNG\r\n\x1a\n", "png")]
)
def test_what_is_no_sound_is_told_by_its_bytes(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        measure_audio(path)
    assert caught.value.code == "E-MEDIA-012"
    assert words in str(caught.value.problems[0].got)


def test_a_sound_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MOST_SECONDS", 6)
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(6.0, 16_000), 16_000)
    assert measure_audio(path).seconds == 6
    soundfile.write(path, tone(6.1, 16_000), 16_000)
    assert code(lambda: measure_audio(path)) == "E-MEDIA-016"


def test_a_sound_that_has_changed_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(1.0, 16_000), 16_000)
    facts = measure_audio(path)
    soundfile.write(path, tone(1.1, 16_000), 16_000)
    assert code(lambda: read_audio(path, 16_000, facts)) == "E-MEDIA-022"


@pytest.mark.parametrize(("module", "name"), [("soundfile", "a.wav"), ("av", "a.m4a")])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(wav() if name == "a.wav" else b"\0\0\0\x18ftypM4A " + b"\0" * 50)
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MachineError) as caught:
        measure_audio(path)
    assert caught.value.code == "E-MEDIA-018"
    assert "tunesmith[media]" in str(caught.value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["a.wav", "a.flac", "a.ogg", "a.mp3", "a.m4a"]), st.data())
def test_whatever_bytes_there_are_the_answer_is_a_sound_or_a_problem(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    path = tmp_path / name
    if name == "a.m4a":
        encoded(path, tone(0.1, 16_000), 16_000)
    else:
        soundfile.write(path, tone(0.1, 16_000), 16_000)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path.write_bytes(content)
    with suppress(DataError):
        facts = measure_audio(path)
        assert len(read_audio(path, 16_000, facts)) == audio_length(facts, 16_000)
