"""Media of rows as people look at them: sizes, tokens, a picture in the page."""

from __future__ import annotations

import json
from base64 import b64decode
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.seeing import coloured, seeing_model
from tests.unit.data.html.test_pages import read
from tunesmith.cli.preview import as_dict, head, marked, summary, token_lines
from tunesmith.config import load_config
from tunesmith.core.types import MediaFacts, Medium, Placed
from tunesmith.data.html.preview_page import preview_page
from tunesmith.data.preview import preview, split_pieces
from tunesmith.data.shown_media import SIDE, ShownMedium, thumbnails
from tunesmith.media.settle import MEASURES
from tunesmith.media.sizes import Size
from tunesmith.models.renderer import renderer_of
from tunesmith.models.tokenizer import load_tokenizer

PATCHES = 16
EVIL = '"><script>alert(1)</script>.png'


@pytest.fixture(scope="module")
def seen(tmp_path_factory, stories):
    """Two rows: a small picture with a hostile name, and a wide one twice; and their preview."""
    folder = tmp_path_factory.mktemp("seen")
    name = EVIL.replace("/", "")
    coloured("red", 0).save(folder / name)
    Image.new("RGB", (900, 300), (30, 50, 220)).save(folder / "wide.png")
    said = {"role": "assistant", "content": " red"}
    rows = [
        {"messages": [{"role": "user", "content": "<image>The color is"}, said], "images": [name]},
        {"messages": [{"role": "user", "content": "<image>and <image> are"}, said], "images": ["wide.png"] * 2},
    ]
    (folder / "rows.json").write_text(json.dumps(rows))
    model = seeing_model(folder / "model", stories)
    keys = {"model_name_or_path": str(model), "dataset": str(folder / "rows.json")}
    config = load_config(None, keys, verb="preview")
    tokenizer = load_tokenizer(config.model)
    return preview(config.data, renderer_of(config, tokenizer), tokenizer, stage="sft", rows=2), tokenizer


def test_the_tokens_of_a_medium_are_one_piece_with_a_reason(seen):
    first, second = seen[0].rows
    assert marked(first) == "[image 16 tokens] The color is⟦ red<s>⟧"
    assert marked(second) == "[image 16 tokens] and [image 16 tokens]  are⟦ red<s>⟧"
    assert [piece.why for piece in first.pieces if not piece.trained] == [
        "media",
        *["prompt"] * (len(first.pieces) - 4),
    ]
    assert [len(piece.ids) for piece in second.pieces if piece.why == "media"] == [PATCHES, PATCHES]
    assert sum(len(piece.ids) for piece in second.pieces) == second.tokens
    assert next(token_lines(first)).split(maxsplit=2) == ["16", "ids", "[image 16 tokens]" + " " * 25 + "media"]


def test_sizes_are_those_of_the_file_of_the_processor_and_of_the_model(seen):
    wide, again = seen[0].rows[1].media
    assert (wide.start, again.start) == (0, again.end - PATCHES)
    assert (wide.given.width, wide.given.height) == (900, 300), "within image_max_pixels"
    assert wide.tensors == {"pixel_values": (1, 3, 32, 32)}
    told = "image, 900 x 300 pixels, 16 tokens; its processor gets 900 x 300, the model pixel_values 1 x 3 x 32 x 32"
    assert head(seen[0].rows[1]).splitlines()[1:3] == [f"  {wide.name}", f"    {told}"]
    plain = as_dict(seen[0], "auto")
    assert plain["rows"][1]["media"][0] | {"digest": "", "source": ""} == {
        "kind": "image",
        "source": "",
        "width": 900,
        "height": 300,
        "frames": 0,
        "fps": 0.0,
        "seconds": 0.0,
        "digest": "",
        "given": {"width": 900, "height": 300},
        "tensors": {"pixel_values": [1, 3, 32, 32]},
        "start": 0,
        "end": 16,
        "tokens": 16,
        "cut": False,
    }
    json.dumps(plain)
    assert summary(seen[0], None)[0].startswith(
        f"shown: 2 of 2 rows, {sum(r.tokens for r in seen[0].rows)} tokens (48 "
    )


def test_the_page_has_small_pictures_and_no_markup_of_names(seen):
    found, _ = seen
    pictures = thumbnails(one for row in found.rows for one in row.media)
    assert len(pictures) == 2, "the same file once"
    text = preview_page(found, "run.yaml", [], pictures)
    reader = read(text)
    assert "img-src data:;" in text
    assert "script" not in reader.tags
    assert EVIL.replace("/", "") in "".join(reader.texts)
    assert len(reader.sources) == 3
    drawn = [Image.open(BytesIO(b64decode(source.partition(",")[2]))) for source in reader.sources]
    assert [one.size for one in drawn] == [(32, 32), (SIDE, SIDE // 3), (SIDE, SIDE // 3)]
    assert np.abs(np.asarray(drawn[1].convert("RGB"), int) - (30, 50, 220)).max() < 10
    assert 'width="96" height="96"' in text, "a small one is drawn larger"


def test_what_cannot_be_drawn_is_told(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    medium = Medium("image", str(tmp_path / "a.png"), MEASURES["image"](tmp_path / "a.png"))
    (tmp_path / "a.png").write_bytes(b"other")
    sound = Medium("audio", "a.wav", MediaFacts(seconds=2.5, digest="1"))
    (found,) = thumbnails([ShownMedium(medium, 0, 1), ShownMedium(sound, 0, 1)]).values()
    assert not found.address
    assert found.why.startswith("the file is another than when the data was prepared")


def test_films_and_sounds_are_told_by_frames_and_seconds(assets):
    data = assets / "data" / "multimodal" / "mllm_demo_data"
    film = Medium("video", str(data / "1.mp4"), MEASURES["video"](str(data / "1.mp4")))
    facts = film.facts
    shown = ShownMedium(film, 3, 13, Size(64, 48, (0, 7, 14), 30.0), {"pixel_values_videos": (1, 3)}, cut=True)
    assert shown.told == (
        f"video, {facts.width:,} x {facts.height:,} pixels, {facts.frames:,} frames at {facts.fps:.4g} a second, "
        f"{facts.seconds:,.2f} s, 10 tokens behind cutoff_len; its processor gets 3 frames of 64 x 48, "
        "the model pixel_values_videos 1 x 3"
    )
    assert shown.to_dict()["given"] == {"width": 64, "height": 48, "frames": 3, "fps": 30.0}
    (picture,) = thumbnails([shown]).values()
    with Image.open(BytesIO(b64decode(picture.address.partition(",")[2]))) as drawn:
        assert max(drawn.size) <= SIDE
    sound = Medium("audio", "a.wav", MediaFacts(seconds=2.5, digest="1"))
    told = ShownMedium(sound, 0, 25, Size(samples=40_000), {"input_features": (1, 80)}).told
    assert told.startswith("audio, 2.50 s, 25 tokens; its processor gets 40,000 samples, the model input_features")
    frames = replace(film, source=("1.png", "2.png"), facts=MediaFacts(8, 8, 2))
    assert ShownMedium(frames, 0, 1).name == "1.png and 1 more"


def test_half_a_character_before_a_medium_stands_alone():
    """Bytes as tokens: the first two of three stand before a medium, which takes three tokens."""
    ids = [*"€".encode()[:2], 0, 0, 0, *b"a"]
    medium = SimpleNamespace(kind="image")
    found = split_pieces(
        ids, [False] * 6, lambda some: bytes(some).decode("utf-8", "replace"), None, [Placed(medium, 2, 5)]
    )
    assert [(piece.text, len(piece.ids), piece.why) for piece in found] == [
        ("\ufffd", 2, None),
        ("[image 3 tokens]", 3, "media"),
        ("a", 1, None),
    ]
