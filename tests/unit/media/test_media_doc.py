"""docs/media.md: its tables are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tunesmith.media import audio, frames, images, packets, settle

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "media.md").read_text(encoding="utf-8")


def table(title: str) -> dict[str, str]:
    """The rows of the first table under a heading, without its head."""
    part = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| (.+?) \| (.+?) \|$", part, re.MULTILINE)[1:])


def test_types_are_those_that_are_read() -> None:
    told = table("What is read")
    assert {name for name, by in told.items() if name.startswith("image/")} == {*images.FORMATS, "image/heic"}
    assert {name for name, by in told.items() if by == "soundfile"} == audio.LIBSNDFILE
    assert {name for name, by in told.items() if by == "PyAV"} == packets.DEMUXERS.keys() - {"image/gif"}


def test_limits_are_those_of_the_code() -> None:
    limits = (
        images.MOST_BYTES,
        images.MOST_PIXELS,
        images.MOST_RATIO,
        packets.MOST_FRAMES,
        frames.MOST_PICTURES,
        audio.MOST_SECONDS,
        audio.MOST_CHANNELS,
        settle.MOST_FETCHED,
    )
    assert tuple(table("Limits").values()) == tuple(f"{limit:,}" for limit in limits)
    assert "between {:,} and {:,} Hz".format(*audio.RATES) in PAGE


def test_errors_are_those_that_are_explained() -> None:
    errors = yaml.safe_load((ROOT / "src/tunesmith/catalog/errors/media.yaml").read_text(encoding="utf-8"))
    told = {code: entry["title"] for code, entry in errors.items() if "E-MEDIA-010" <= code < "E-MEDIA-030"}
    assert {code: title for code, title in table("Errors").items() if code in told} == told
