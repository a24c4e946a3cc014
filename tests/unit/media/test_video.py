"""Video: the right frames, without decoding the others; and what is wrong with some files."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.media.films import HEIGHT, WIDTH, decoded, make_film, picture
from tunesmith.config import load_config
from tunesmith.core.errors import DataError
from tunesmith.core.types import MediaFacts
from tunesmith.media import frames, packets
from tunesmith.media.limits import MediaLimits
from tunesmith.media.packets import Player, opened_film, scan
from tunesmith.media.video import frame_indices, measure_video, read_video, video_size

AS_IT_IS = MediaLimits(video_max_pixels=10**9, video_min_pixels=1, video_fps=10**6, video_maxlen=10**6)
KINDS = {
    "a.mp4": ("libx264", 2),
    "open.mp4": ("libx264", 3),
    "a.mkv": ("libx264", 2),
    "a.webm": ("libvpx-vp9", 0),
    "a.avi": ("mpeg4", 2),
    "a.gif": ("gif", 0),
}
OPTIONS = {"open.mp4": {"x264-params": "open-gop=1:keyint=12"}, "a.webm": {"lag-in-frames": "25", "auto-alt-ref": "1"}}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name, (codec, b_frames) in KINDS.items():
        make_film(folder / name, codec, b_frames=b_frames, options=OPTIONS.get(name))
    return folder


@pytest.fixture
def real(assets: Path) -> Path:
    return assets / "data" / "multimodal" / "mllm_demo_data"


def code(read: Callable[[], Any]) -> str:
    with pytest.raises(DataError) as caught:
        read()
    (found,) = caught.value.problems
    assert found.where
    assert found.got
    assert found.fix
    return str(found.code)


# --- which frames ---


@given(
    st.integers(1, 100_000),
    st.sampled_from([10.0, 23.976, 25.0, 29.97, 60.0]),
    st.sampled_from([0.01, 0.5, 1.0, 2.0, 24.0]),
    st.integers(1, 768),
)
def test_indices_are_those_of_llamafactory(total: int, rate: float, fps: float, most: int) -> None:
    """Its mm_plugin._get_video_sample_indices in other words."""
    facts = MediaFacts(frames=total, fps=rate, seconds=total / rate)
    count = min(total, most, max(1, math.floor(facts.seconds * fps)))
    found = frame_indices(facts, MediaLimits(video_fps=fps, video_maxlen=most))
    assert found == np.linspace(0, total - 1, count).astype(np.int32).tolist()
    assert found == sorted(set(found))


@pytest.mark.parametrize("name", ["1.mp4", "2.avi", "3.mp4", "4.mp4"])
def test_real_films_are_those_of_pyav(real: Path, name: str) -> None:
    facts, limits = measure_video(real / name), MediaLimits()
    with av.open(str(real / name)) as container:
        stream = container.streams.video[0]
        told = stream.frames, float(stream.duration * stream.time_base), float(stream.average_rate)
        every = [frame.to_image() for frame in container.decode(stream)]
    assert (facts.frames, facts.seconds, facts.fps) == told
    assert facts.frames == len(every)
    found, metadata = read_video(real / name, facts, limits)
    size = video_size(facts, limits)
    wanted = [np.asarray(every[index].resize(size)) for index in frame_indices(facts, limits)]
    assert found.dtype == np.uint8
    assert np.array_equal(found, wanted)
    assert metadata["frames_indices"] == frame_indices(facts, limits)
    assert metadata["total_num_frames"] == len(every)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("some", [1, 2, 5, 20, 60])
def test_any_frames_are_found(films: Path, name: str, some: int) -> None:
    every = decoded(films / name)
    with opened_film(films / name, "video") as container:
        found = scan(container, container.streams.video[0], films / name)
    assert len(found.times) == len(every) == 60
    chance = random.Random(some)
    for _ in range(3):
        indices = sorted(chance.sample(range(60), some))
        with opened_film(films / name, "video") as container:
            player = Player(container, container.streams.video[0], found.keys)
            for index in indices:
                frame = player.at(int(found.times[index]))
                assert np.array_equal(frame.to_ndarray(format="rgb24"), every[index])


def test_no_more_is_decoded_than_needed(tmp_path: Path) -> None:
    """Four frames of 600, a beginning each 12: at most 12 frames and one of order are decoded for each."""
    path = make_film(tmp_path / "a.mp4", frames=600, b_frames=0)
    with opened_film(path, "video") as container:
        found = scan(container, container.streams.video[0], path)
    with opened_film(path, "video") as container:
        player = Player(container, container.streams.video[0], found.keys)
        for index in (0, 199, 399, 599):
            assert player.at(int(found.times[index])) is not None
    assert player.decoded <= 4 * 13


def test_three_hours_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One frame in two seconds, a beginning each twelfth: eight frames are made from 12 each."""
    path = make_film(tmp_path / "a.mp4", "mpeg4", frames=5_400, times=range(0, 1_080_000, 200), b_frames=0)
    players = []
    monkeypatch.setattr("tunesmith.media.video.Player", lambda *how: players.append(Player(*how)) or players[-1])
    facts = measure_video(path)
    assert (facts.frames, round(facts.seconds)) == (5_400, 10_798)  # the last one ends when it begins
    found, metadata = read_video(path, facts, MediaLimits(video_maxlen=8, video_min_pixels=1))
    assert len(found) == 8
    assert metadata["frames_indices"][-1] == 5_399
    assert players[0].decoded <= 8 * 13


def test_keys_say_how_many_frames_of_which_size(films: Path) -> None:
    path = films / "a.mp4"
    facts = measure_video(path)
    assert (facts.width, facts.height, facts.frames, facts.fps, facts.seconds) == (WIDTH, HEIGHT, 60, 25.0, 2.4)
    for keys, shape in (
        ({"video_max_pixels": 24 * 32}, (4, 24, 32, 3)),
        ({"video_min_pixels": 4 * 64 * 48}, (4, 96, 128, 3)),
        ({"video_fps": 5.0}, (12, 48, 64, 3)),
        ({"video_fps": 5.0, "video_maxlen": 7}, (7, 48, 64, 3)),
        ({"video_fps": 0.1}, (1, 48, 64, 3)),
    ):
        limits = MediaLimits.of(load_config(keys, verb="show").media)
        assert read_video(path, facts, limits)[0].shape == shape


def test_frames_may_be_shown_for_unequal_times(tmp_path: Path) -> None:
    times = list(itertools.accumulate(random.Random(2).choices(range(1, 30), k=40)))
    path = make_film(tmp_path / "a.mp4", frames=40, times=times)
    facts = measure_video(path)
    assert facts.frames == 40
    assert facts.seconds == pytest.approx((times[-1] - times[0]) / 100, abs=0.4)
    found, metadata = read_video(path, facts, MediaLimits(video_fps=1.0, video_min_pixels=1))
    every = decoded(path)
    assert np.array_equal(found, [every[index] for index in metadata["frames_indices"]])


@pytest.mark.parametrize("turned", [90, 180, -90])
def test_films_are_turned_as_they_say(tmp_path: Path, turned: int) -> None:
    """Degrees counterclockwise, also in frames behind a jump."""
    path = make_film(tmp_path / "a.mp4", turned=turned)
    facts = measure_video(path)
    assert (facts.width, facts.height) == ((WIDTH, HEIGHT) if turned == 180 else (HEIGHT, WIDTH))
    limits = MediaLimits(video_min_pixels=1, video_maxlen=3)
    found, metadata = read_video(path, facts, limits)
    every = decoded(path)
    assert np.array_equal(found, [np.rot90(every[index], turned // 90) for index in metadata["frames_indices"]])


# --- pictures ---


def pictures(folder: Path, numbers: range = range(12)) -> list[str]:
    folder.mkdir()
    for number in numbers:
        Image.fromarray(picture(number)).save(folder / f"frame{number}.png")
    return [str(folder / f"frame{number}.png") for number in numbers]


def test_a_folder_or_a_list_of_pictures_is_a_video(tmp_path: Path) -> None:
    """In a folder, frame10 comes after frame9."""
    paths = pictures(tmp_path / "film")
    for source in (str(tmp_path / "film"), tmp_path / "film", tuple(paths)):
        facts = measure_video(source)
        assert (facts.width, facts.height, facts.frames, facts.fps, facts.seconds) == (WIDTH, HEIGHT, 12, 0.0, 0.0)
        found, metadata = read_video(source, facts, MediaLimits(video_min_pixels=1))
        assert np.array_equal(found, [picture(number) for number in range(12)])
        assert (metadata["fps"], metadata["duration"]) == (2.0, 6.0)
        few, metadata = read_video(source, facts, MediaLimits(video_min_pixels=1, video_maxlen=3))
        assert metadata["frames_indices"] == [0, 5, 11]
        assert np.array_equal(few, [picture(number) for number in (0, 5, 11)])


def test_pictures_of_a_video_have_one_size(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "film")
    Image.new("RGB", (WIDTH, HEIGHT - 1)).save(paths[7])
    assert code(lambda: measure_video(tuple(paths))) == "E-MEDIA-021"


def test_what_is_wrong_with_a_picture_is_told_of_it(tmp_path: Path) -> None:
    paths = pictures(tmp_path / "film")
    Path(paths[3]).write_bytes(b"<html>")
    with pytest.raises(DataError) as caught:
        measure_video(tmp_path / "film")
    assert caught.value.code == "E-MEDIA-012"
    assert caught.value.problems[0].where == paths[3]


def test_no_pictures_and_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    assert code(lambda: measure_video(tmp_path / "empty")) == "E-MEDIA-020"
    assert code(lambda: measure_video(())) == "E-MEDIA-020"
    paths = pictures(tmp_path / "film")
    monkeypatch.setattr(frames, "MOST_PICTURES", 11)
    assert code(lambda: measure_video(tuple(paths))) == "E-MEDIA-016"
    assert code(lambda: measure_video(tmp_path / "film")) == "E-MEDIA-016"


# --- what is wrong ---


@pytest.mark.parametrize("name", [name for name in KINDS if name != "a.gif"])  # a GIF does not say how long it is
def test_a_film_that_ends_too_early_is_damaged(tmp_path: Path, name: str) -> None:
    data = make_film(tmp_path / name, *KINDS[name][:1], frames=150).read_bytes()
    for share in (0.1, 0.5, 0.75):
        (tmp_path / name).write_bytes(data[: int(len(data) * share)])
        assert code(lambda: measure_video(tmp_path / name)) in ("E-MEDIA-014", "E-MEDIA-020"), share


def test_a_film_whose_index_comes_first_may_end_too_early(tmp_path: Path, real: Path) -> None:
    """As of a download that broke off: the header promises all."""
    with av.open(str(real / "1.mp4")) as source:
        stream = source.streams.video[0]
        with av.open(str(tmp_path / "a.mp4"), "w", options={"movflags": "faststart"}) as container:
            copy = container.add_stream_from_template(stream)
            for packet in source.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    container.mux(packet)
    path = tmp_path / "b.mp4"
    data = (tmp_path / "a.mp4").read_bytes()
    assert measure_video(tmp_path / "a.mp4").frames == 243
    for share in (0.3, 0.7, 0.95):
        path.write_bytes(data[: int(len(data) * share)])
        assert code(lambda: measure_video(path)) == "E-MEDIA-014"


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert code(lambda: measure_video(path)) == "E-MEDIA-020"


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"", "E-MEDIA-012"),
        (b"<!doctype html>", "E-MEDIA-012"),
        (b"\x89PNG\r\n\x1a\n", "E-MEDIA-012"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "E-MEDIA-012"),
        (b"\0\0\0\x18ftypisom" + b"\0" * 100, "E-MEDIA-014"),
        (b"\x1aE\xdf\xa3" + b"\0" * 100, "E-MEDIA-014"),
    ],
)
def test_what_is_no_video(tmp_path: Path, data: bytes, wanted: str) -> None:
    """Lists of addresses, which FFmpeg would follow, are none."""
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    assert code(lambda: measure_video(path)) == wanted


def test_frames_that_are_too_many_or_too_large(films: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "MOST_FRAMES", 59)
    assert code(lambda: measure_video(films / "a.mp4")) == "E-MEDIA-016"
    monkeypatch.setattr("tunesmith.media.images.MOST_PIXELS", WIDTH * HEIGHT - 1)
    assert code(lambda: measure_video(films / "a.mp4")) == "E-MEDIA-016"


def test_a_film_that_has_changed_is_noticed(tmp_path: Path) -> None:
    path = make_film(tmp_path / "a.mp4", frames=30)
    facts = measure_video(path)
    make_film(path, frames=31)
    assert code(lambda: read_video(path, facts, MediaLimits())) == "E-MEDIA-022"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_whatever_bytes_there_are_the_answer_is_a_video_or_a_problem(
    films: Path, tmp_path: Path, name: str, data: st.DataObject
) -> None:
    content = bytearray((films / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    path = tmp_path / name
    path.write_bytes(content)
    with suppress(DataError):
        facts = measure_video(path)
        limits = MediaLimits(video_maxlen=4)
        found, _ = read_video(path, facts, limits)
        width, height = video_size(facts, limits)
        assert found.shape == (len(frame_indices(facts, limits)), height, width, 3)
