"""Media as data has them become files that were looked at."""

from __future__ import annotations

import base64
import hashlib
import pickle
import tracemalloc
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.unit.media.films import make_film
from tests.unit.media.network import World, whole
from tunesmith.core.errors import DataError
from tunesmith.core.types import MediaFacts, Medium
from tunesmith.media import settle
from tunesmith.media.fetch import Fetcher, Media, Policy
from tunesmith.media.settle import Settler


def png(width: int = 8, height: int = 6, colour: int = 0) -> bytes:
    file = BytesIO()
    Image.new("RGB", (width, height), (colour % 256, colour // 256 % 256, 0)).save(file, "PNG")
    return file.getvalue()


def problem(read: Callable[[], Any]) -> Any:
    with pytest.raises(DataError) as caught:
        read()
    (found,) = caught.value.problems
    return found


@pytest.fixture
def settler(tmp_path: Path) -> Settler:
    """`media` before `data`; pictures in both."""
    for folder, names in (("media", "both only_media"), ("data", "both only_data")):
        (tmp_path / folder).mkdir()
        for name in names.split():
            (tmp_path / folder / f"{name}.png").write_bytes(png(8 if folder == "media" else 7))
    return Settler(tmp_path / "media", tmp_path / "data", tmp_path / "blobs")


@pytest.mark.parametrize(
    ("name", "place"),
    [("both.png", "media"), ("only_media.png", "media"), ("only_data.png", "data"), ("../data/both.png", "data")],
)
def test_paths_begin_at_media_dir_then_at_the_dataset(settler: Settler, tmp_path: Path, name: str, place: str) -> None:
    path = tmp_path / place / Path(name).name
    found = settler.settle(Medium("image", name))
    width = 8 if place == "media" else 7
    assert found == Medium("image", str(path), MediaFacts(width, 6, digest=hashlib.sha256(png(width)).hexdigest()))
    assert settler.settle(found) is found


def test_absolute_paths_and_file_addresses(settler: Settler, tmp_path: Path) -> None:
    path = tmp_path / "a b.png"
    path.write_bytes(png())
    for source in (str(path), f"file://{tmp_path}/a%20b.png"):
        assert settler.settle(Medium("image", source)).source == str(path)


def test_a_missing_file_says_where_was_looked(settler: Settler, tmp_path: Path) -> None:
    found = problem(lambda: settler.settle(Medium("image", "cats/1.jpg")))
    assert (found.code, found.where) == ("E-MEDIA-010", "cats/1.jpg")
    assert str(tmp_path / "media" / "cats" / "1.jpg") in found.got
    assert str(tmp_path / "data" / "cats" / "1.jpg") in found.got
    assert "media_dir" in found.fix


@pytest.mark.parametrize("name", ["a\0b.png", "n" * 5000, "s3://bucket/a.png"])
def test_what_is_no_path(settler: Settler, name: str) -> None:
    found = problem(lambda: settler.settle(Medium("image", name)))
    assert found.code in ("E-MEDIA-010", "E-MEDIA-011")
    assert len(found.where) <= 303


def test_bytes_and_data_addresses_are_kept_by_their_digest(settler: Settler, tmp_path: Path) -> None:
    address = "data:image/png;base64," + base64.b64encode(png(9)).decode()
    path = tmp_path / "blobs" / hashlib.sha256(png(9)).hexdigest()
    for source in (png(9), address):
        found = settler.settle(Medium("image", source))
        assert found.source == str(path)
        assert found.facts is not None
        assert (found.facts.width, found.facts.digest) == (9, path.name)
        assert path.read_bytes() == png(9)
        path.write_bytes(b"")  # as after a loss of power
    assert settler.settle(Medium("image", png(9))).source == str(path)
    assert path.read_bytes() == png(9)
    assert [one.name for one in (tmp_path / "blobs").iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("data:image/png;base64,@@@@", "E-MEDIA-003"),
        ("data:image/png;base64," + base64.b64encode(b"<html>").decode(), "E-MEDIA-003"),
        ("data:image/png,abc", "E-MEDIA-001"),
        (b"<html>", "E-MEDIA-012"),
        (b"", "E-MEDIA-012"),
        (png()[:40], "E-MEDIA-014"),
    ],
)
def test_bytes_that_are_no_picture(settler: Settler, source: str | bytes, wanted: str) -> None:
    assert problem(lambda: settler.settle(Medium("image", source))).code == wanted


def test_each_kind_is_measured_as_such(settler: Settler, tmp_path: Path) -> None:
    film = make_film(tmp_path / "data" / "film.mp4", frames=25)
    soundfile.write(tmp_path / "data" / "sound.wav", np.zeros(8_000), 16_000)
    video, sound = settler.settle(Medium("video", "film.mp4")).facts, settler.settle(Medium("audio", "sound.wav")).facts
    assert video is not None
    assert sound is not None
    assert (video.frames, video.seconds, sound.seconds) == (25, 1.0, 0.5)
    assert video.digest == hashlib.sha256(film.read_bytes()).hexdigest()
    assert problem(lambda: settler.settle(Medium("image", "film.mp4"))).code == "E-MEDIA-012"
    assert problem(lambda: settler.settle(Medium("video", "both.png"))).code == "E-MEDIA-012"


def test_frames_are_each_a_path_or_bytes(settler: Settler, tmp_path: Path) -> None:
    found = settler.settle(Medium("video", ("both.png", png(8, colour=5), str(tmp_path / "media" / "both.png"))))
    assert isinstance(found.source, tuple)
    assert [Path(str(path)).read_bytes() for path in found.source] == [png(8), png(8, colour=5), png(8)]
    assert found.facts is not None
    assert (found.facts.frames, found.facts.width) == (3, 8)
    assert problem(lambda: settler.settle(Medium("image", ("both.png", "both.png")))).code == "E-MEDIA-011"
    (tmp_path / "data" / "frames").mkdir()
    (tmp_path / "data" / "frames" / "1.png").write_bytes(png())
    assert settler.settle(Medium("video", "frames")).source == str(tmp_path / "data" / "frames")


# --- addresses ---


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def through(world: World, tmp_path: Path) -> Settler:
    return Settler(None, None, tmp_path / "blobs", world.fetcher())


def test_what_was_fetched_once_is_not_fetched_again(world: World, tmp_path: Path) -> None:
    world.answer = lambda request: whole(png(5))
    first = through(world, tmp_path).settle(Medium("image", "http://ok.example/a.png"))
    assert first.facts is not None
    assert first.facts.width == 5
    world.answer = lambda request: pytest.fail("asked again")
    assert through(world, tmp_path).settle(Medium("image", "http://ok.example/a.png")) == first


@pytest.mark.parametrize(
    ("name", "body", "status", "wanted"),
    [
        ("ok.example", b"", "404 Not Found", "E-MEDIA-002"),
        ("ok.example", b"<html>hello", "200 OK", "E-MEDIA-003"),
        ("ok.example", png()[:40], "200 OK", "E-MEDIA-014"),
        ("nobody.example", png(), "200 OK", "E-MEDIA-001"),
        ("127.0.0.1", png(), "200 OK", "E-MEDIA-001"),
        ("192.168.1.1", png(), "200 OK", "E-MEDIA-001"),
    ],
)
def test_addresses_that_give_no_picture(
    world: World, tmp_path: Path, name: str, body: bytes, status: str, wanted: str
) -> None:
    world.answer = lambda request: whole(body, status=status)
    settler = through(world, tmp_path)
    assert problem(lambda: settler.settle(Medium("image", f"http://{name}/a.png"))).code == wanted
    assert world.canary.count == 0


def test_an_address_that_leads_into_the_network_is_not_followed(world: World, tmp_path: Path) -> None:
    world.answer = lambda request: (
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/a.png\r\nContent-Length: 0\r\n\r\n"
    )
    settler = through(world, tmp_path)
    assert problem(lambda: settler.settle(Medium("image", "http://ok.example/a.png"))).code == "E-MEDIA-001"
    assert world.canary.count == 0


def test_where_files_are_not_to_be_read_only_bytes_are(tmp_path: Path) -> None:
    """A client of a server could else ask for any file of its machine."""
    (tmp_path / "a.png").write_bytes(png())
    settler = Settler(tmp_path, None, tmp_path / "blobs", Fetcher(Policy()), paths=False)
    for source in (str(tmp_path / "a.png"), "a.png", f"file://{tmp_path}/a.png", ("a.png",)):
        assert problem(lambda source=source: settler.settle(Medium("video", source))).code == "E-MEDIA-011"
    assert settler.settle(Medium("image", png())).facts is not None
    assert problem(lambda: settler.settle(Medium("image", "https://ok.example/a.png"))).code == "E-MEDIA-001"


# --- many ---


def test_a_file_is_looked_at_once(settler: Settler, monkeypatch: pytest.MonkeyPatch) -> None:
    first = settler.settle(Medium("image", "both.png"))
    monkeypatch.setattr(settle, "MEASURES", {})
    assert settler.settle(Medium("image", "both.png")) == first


def test_memory_does_not_grow_with_the_number_of_media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "_REMEMBERED", 50)
    settler = Settler(None, None, tmp_path / "blobs")

    def grown(numbers: range) -> int:
        tracemalloc.start()
        for number in numbers:
            data = base64.b64encode(png(3, 3, number) + b"\0" * 20_000).decode()
            settler.settle(Medium("image", f"data:image/png;base64,{data}"))
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size

    grown(range(60))
    assert grown(range(60, 400)) < 1_000_000  # the addresses alone have 9 MB


def test_a_worker_gets_a_settler_of_its_own(settler: Settler) -> None:
    found = settler.settle(Medium("image", "both.png"))
    copy = pickle.loads(pickle.dumps(settler))  # noqa: S301 - our own bytes, as multiprocessing makes them
    assert copy.settle(Medium("image", "both.png")) == found


def test_what_stands_at_an_address_is_a_fetchers_business(tmp_path: Path) -> None:
    class Library:
        def get(self, url: str) -> Media:
            return Media(png(4), "image/png")

    found = Settler(None, None, tmp_path / "blobs", Library()).settle(Medium("image", "https://any.example/x"))
    assert found.facts is not None
    assert found.facts.width == 4
