"""Checks of rows with media: what cannot be decoded, copies of pictures, numbers."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests.seeing import coloured
from tunesmith.config.data import DataConfig
from tunesmith.core.types import Encoded, Placed
from tunesmith.data.dataset import TokenDataset
from tunesmith.data.html.check_page import check_page
from tunesmith.data.lint.media import MediaStatistics, Spread
from tunesmith.data.lint.quick import quick_lint
from tunesmith.data.lint.run import lint
from tunesmith.data.walk import Walk

NAMES = ("red", "green", "blue", "black")


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(NAMES):
        coloured(name, number).save(tmp_path / f"{number}.png")
    shutil.copy(tmp_path / "0.png", tmp_path / "copy.png")
    Image.new("RGB", (700, 300), (9, 9, 200)).save(tmp_path / "wide.jpg")
    data = (tmp_path / "wide.jpg").read_bytes()
    (tmp_path / "torn.jpg").write_bytes(data[:600] + b"\0" * 200 + data[800:])  # its header and its end are whole
    (tmp_path / "cut.png").write_bytes((tmp_path / "1.png").read_bytes()[:200])
    return tmp_path


def row(*pictures, question="<image>What colour is it?", answer="red."):
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": said, "images": list(pictures)}


def check(folder, *rows, **keys):
    (folder / "rows.json").write_text(json.dumps(rows))
    return lint(DataConfig(dataset=(str(folder / "rows.json"),), **keys), stage="sft").report


def codes(report):
    return {one.code for one in report.findings}


def test_all_bad_media_are_told_with_their_rows_and_files(folder):
    many = row("cut.png", "0.png", "none.png", question="<image>a<image>b<image>c")
    report = check(folder, row("0.png"), many, row("torn.jpg"), row("torn.jpg"), row("1.png", "2.png"))
    told = {one.code: one for one in report.findings}
    assert told.keys() == {"E-MEDIA-010", "E-MEDIA-014", "E-MEDIA-030"}
    damaged, missing = told["E-MEDIA-014"], told["E-MEDIA-010"]
    assert (damaged.count, damaged.total, damaged.severity) == (3, 5, "error")
    assert damaged.kinds == {"torn.jpg": 2, "cut.png": 1}
    assert [place.origin.row for place in damaged.places] == [1, 2, 3]
    assert damaged.places[0].excerpt == "cut.png: it ends within its chunk IDAT"
    assert damaged.places[1].excerpt.startswith("torn.jpg: ")
    assert missing.kinds == {"none.png": 1}
    assert missing.places[0].origin.row == 1, "of the same row, and something else is wrong with it"
    assert told["E-MEDIA-030"].count == 1
    assert report.fails()
    assert "        which: torn.jpg (2), cut.png (1)" in report.lines()
    assert "torn.jpg" in check_page(report, "rows.json", {}, {})
    skipped = check(folder, row("0.png"), many, row("torn.jpg"), on_bad_media="skip", max_bad_rows=2)
    assert {one.severity for one in skipped.findings} == {"warning"}
    assert not skipped.fails()


def test_each_file_is_decoded_once(folder, monkeypatch):
    from tunesmith.media import sizes

    read = []
    plain = sizes.read_medium
    monkeypatch.setattr(
        sizes, "read_medium", lambda medium, limits: read.append(medium.source) or plain(medium, limits)
    )
    check(folder, row("0.png"), row("copy.png"), row("torn.jpg"), row("torn.jpg"), row("wide.jpg"))
    assert sorted(path.rsplit("/", 1)[1] for path in read) == ["0.png", "torn.jpg", "wide.jpg"]


def test_the_same_picture_under_another_name_is_a_copy_and_another_one_is_not(folder):
    same = check(folder, row("0.png"), row("copy.png"), row("1.png"), row("wide.jpg"))
    (copies,) = [one for one in same.findings if one.code == "E-LINT-007"]
    assert copies.count == 1
    others = check(folder, *(row(f"{number}.png", answer=name) for number, name in enumerate(NAMES)))
    assert not codes(others) & {"E-LINT-007", "E-LINT-008", "E-LINT-014"}, "one question about other pictures"
    long = "It is as red as a ripe tomato in the middle of a long and hot summer, I would say"
    near = check(folder, row("0.png", answer=long), row("copy.png", answer=f"{long} so."))
    assert "E-LINT-008" in codes(near)
    apart = check(folder, row("0.png", answer=long), row("1.png", answer=f"{long} so."))
    assert "E-LINT-008" not in codes(apart)


def test_numbers_of_media(folder):
    report = check(folder, row("0.png"), row("copy.png"), row("1.png"), row("wide.jpg"))
    (numbers,) = report.datasets
    assert numbers.media == {"image": MediaStatistics(4, 3, 0, ((32, 32), (32, 32), (700, 300)))}
    line = "4 images (3 different), 32 x 32 to 700 x 300 pixels, half of them up to 32 x 32"
    assert line in report.lines()
    assert report.to_dict()["datasets"][0]["media"]["image"]["different"] == 3
    film = MediaStatistics(1, 1, 96, ((64, 48),) * 3, Spread(8, 8, 8), Spread(1.5, 1.5, 1.5))
    assert film.told("video") == ("1 video (1 different), 64 x 48 pixels, 8 frames, 1.5 s, 96 tokens")
    assert MediaStatistics(2, 2, 0, (), None, Spread(0.5, 1, 1.5)).told("audio") == (
        "2 sounds (2 different), 0.5 to 1.5 s (median 1)"
    )


def test_progress_knows_the_rows_where_media_are_decoded(folder, monkeypatch):
    """A JSON file does not tell how many rows it has; where each takes long, they are counted."""
    monkeypatch.setattr("tunesmith.data.lint.media._BLOCK", 2)
    told = []
    (folder / "rows.json").write_text(json.dumps([row(f"{number}.png") for number in range(4)]))
    lint(DataConfig(dataset=(str(folder / "rows.json"),)), stage="sft", notify=lambda *progress: told.append(progress))
    assert told == [(2, 4), (4, 4)]


def test_other_pictures_of_one_size_are_no_copies_at_the_start_of_a_run(folder):
    """Their tokens are equal, as their sizes are."""
    walk_rows = [row("0.png"), row("1.png"), row("2.png"), row("copy.png")]
    (folder / "rows.json").write_text(json.dumps(walk_rows))
    found: list[Walk] = []
    from tunesmith.data.reading import open_walks

    open_walks(DataConfig(dataset=(str(folder / "rows.json"),)), stage="sft", seed=0, visit=found.append)
    media = [example.messages[0].media[0] for example in found[0]]
    samples = [Encoded([7, 7, 8], [False, False, True], media=(Placed(one, 0, 2),)) for one in media]
    assert quick_lint(TokenDataset.from_encoded(samples[:3]), {}) == []
    (line,) = quick_lint(TokenDataset.from_encoded(samples), {})
    assert line.startswith("1 of 4 training samples are copies")
    assert np.all(TokenDataset.from_encoded(samples).lengths == 3)
