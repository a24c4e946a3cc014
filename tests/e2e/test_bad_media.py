"""Media that cannot be used, through `tunesmith train`: the exit code, the code of the error, row and file, one block
and no traceback; and with `on_bad_media: skip` a run that ends and says how many it left out.

Each entry of the table is (kind, how the file is made or what stands in the row, code, words of the message).
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.seeing import coloured, seeing_model
from tests.unit.media.films import make_film
from tunesmith.__main__ import main

Made = bytes | str | Callable[[Path], Any]
DATA = 65


def encoded(kind: str, size: tuple[int, int] = (64, 48)) -> bytes:
    file = BytesIO()
    coloured("red", 0, 64).resize(size).save(file, kind)
    return file.getvalue()


def wrong_checksum() -> bytes:
    found = bytearray(encoded("PNG"))
    found[len(found) // 2] ^= 1
    return bytes(found)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> bytes:
    """A PNG of 50,000 x 50,000 black pixels, in a few hundred kB."""
    head = struct.pack(">IIBBBBB", 50_000, 50_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 6251 * 50_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def sound(*samples: float) -> Callable[[Path], Any]:
    return lambda path: soundfile.write(path, np.array(samples, np.float32), 48_000, "FLOAT", format="WAV")


def cut_film(path: Path) -> None:
    whole = make_film(path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


CASES: dict[str, tuple[str, Made, str, tuple[str, ...]]] = {
    "B52 no such file": ("image", "gone.png", "E-MEDIA-010", ("looked for", "media_dir")),
    "B53 half a JPEG": ("image", encoded("JPEG")[:900], "E-MEDIA-014", ("damaged",)),
    "B53 a wrong checksum": ("image", wrong_checksum(), "E-MEDIA-014", ("damaged",)),
    "B53 nothing": ("image", b"", "E-MEDIA-012", ("no image",)),
    "B53 a web page": ("image", b"<!DOCTYPE html><html></html>", "E-MEDIA-012", ("no image",)),
    "B54 a bomb": ("image", bomb(), "E-MEDIA-016", ("128,000,000 pixels",)),
    "B55 more places than media": ("places", "<image><image>", "E-MEDIA-030", ("2 <image> for 1",)),
    "B56 a strip": ("image", encoded("PNG", (10_000, 1)), "E-MEDIA-017", ("200 times",)),
    "B57 SVG": ("image", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "E-MEDIA-013", ("SVG", "PNG")),
    "B59 no sound": ("audio", sound(), "E-MEDIA-019", ("no samples",)),
    "B59 NaN": ("audio", sound(0.0, np.nan), "E-MEDIA-019", ("NaN",)),
    "B59 a wrong head": ("audio", b"RIFF\xff\xff\xff\xffWAVEfmt ", "E-MEDIA-014", ("damaged",)),
    "B60 no frames": ("video", b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "E-MEDIA-014", ("damaged",)),
    "B60 half a film": ("video", cut_film, "E-MEDIA-014", ("damaged",)),
    "B61 bad base64": ("image", "data:image/png;base64,!!!", "E-MEDIA-003", ("base64",)),
    "B62 a private address": ("image", "https://10.0.0.1/a.png", "E-MEDIA-001", ("10.0.0.1",)),
    "a model without ears": ("audio", sound(*[0.1] * 4800), "E-MEDIA-040", ("takes images",)),
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, stories: Path) -> Path:
    return seeing_model(tmp_path_factory.mktemp("bad media") / "model", stories)


def row_of(folder: Path, number: int, kind: str, made: Made) -> dict[str, Any]:
    """A row with such a medium, which is made in the folder."""
    column = {"places": "image"}.get(kind, kind)
    source = str(made)
    if not isinstance(made, str):
        path = folder / f"medium{number}"
        path.write_bytes(made) if isinstance(made, bytes) else made(path.with_suffix(".mp4" if kind == "video" else ""))
        source = next(folder.glob(f"medium{number}*")).name
    if kind == "places":
        coloured("red", 1).save(folder / "good.png")
        return row(str(made), "good.png")
    return row(f"<{column}>", source, f"{column}s")


def row(places: str, source: str, column: str = "images") -> dict[str, Any]:
    said = [{"role": "user", "content": f"{places}The color is"}, {"role": "assistant", "content": " red"}]
    return {"messages": said, column: [source]}


def train(model: Path, folder: Path, rows: list[dict[str, Any]], *words: str) -> int:
    """The exit code of a run on these rows, a line each, after a good one."""
    coloured("red", 0).save(folder / "good.png")
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in (row("<image>", "good.png"), *rows)))
    keys = {"model_name_or_path": model, "dataset": file, "output_dir": folder / "out", "stage": "sft"}
    keys |= {"do_train": "true", "max_steps": "1", "use_cpu": "true", "fast_path": "auto", "finetuning_type": "full"}
    return main(["train", *(f"{key}={value}" for key, value in keys.items()), *words])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_each_bad_medium_has_its_error(
    model: Path, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, made, code, words = CASES[case]
    found = train(model, tmp_path, [row_of(tmp_path, 1, kind, made)])
    text = capsys.readouterr().err
    told = " ".join(text.split())
    assert found == DATA, text
    assert told.count("error[") == 1, text
    assert f"error[{code}]" in text, text
    assert "rows.jsonl:2" in told, text
    missing = [word for word in words if word not in told]
    assert not missing, f"{missing} not in {text}"
    assert "Traceback" not in text
    assert code == "E-MEDIA-040" or isinstance(made, str) or "got: medium1" in told, text
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.slow
def test_rows_with_bad_media_are_left_out_and_the_summary_says_how_many(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row_of(tmp_path, number, kind, made) for number, (kind, made, *_) in enumerate(CASES.values())]
    assert train(model, tmp_path, rows, "on_bad_media=skip", f"max_bad_rows={len(CASES)}") == 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"rows.jsonl {len(CASES) + 1} {len(CASES)} 1 1 " in told, "rows, dropped, kept, samples"
    report = json.loads((tmp_path / "out" / "data_report.json").read_text())
    dropped = report["datasets"][0]["dropped"]
    assert dropped["the file is damaged"]["rows"] == sum(code == "E-MEDIA-014" for _, _, code, _ in CASES.values())
    assert dropped["there is no such file"]["first"] == [f"{tmp_path / 'rows.jsonl'}:2"]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert report["total"]["dropped"] == record["rows"]["dropped"] == len(CASES)
    assert record["rows"]["kept"] == 1
    assert train(model, tmp_path, rows, "on_bad_media=skip", f"max_bad_rows={len(CASES) - 1}") == DATA
    assert "error[E-DATA-023]" in capsys.readouterr().err


@pytest.mark.slow
def test_forms_of_pictures_that_are_read_train(model: Path, tmp_path: Path) -> None:
    """B56: colours, depths, turns, moving pictures and one pixel go by stated rules (docs/media.md)."""
    made: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "cmyk.jpg": (coloured("red", 1).convert("CMYK"), {}),
        "deep.png": (Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 999), {}),
        "palette.png": (coloured("red", 1).convert("P"), {"transparency": 0}),
        "la.png": (coloured("red", 1).convert("LA"), {}),
        "moving.gif": (coloured("red", 1), {"save_all": True, "append_images": [coloured("blue", 1)]}),
        "one.png": (Image.new("RGB", (1, 1)), {}),
    }
    for name, (image, how) in made.items():
        image.save(tmp_path / name, **how)
    assert train(model, tmp_path, [row("<image>", name) for name in made]) == 0
    report = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert report["total"]["kept"] == len(made) + 1


@pytest.mark.slow
def test_a_model_of_text_refuses_media(stories: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """B58."""
    assert train(stories, tmp_path, [], "template=default") == DATA
    text = capsys.readouterr().err
    assert "error[E-MEDIA-015]" in text
    assert "Traceback" not in text
