"""Streams of what lies elsewhere: nothing is copied, and each goes on where it was."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from itertools import islice
from typing import Any

import fsspec
import pytest
from pyarrow import Table, parquet

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import MissingInputError, UnavailableError
from tunesmith.data.sources import http
from tunesmith.data.streaming.build import build_stream

ROWS = [{"instruction": f"{number}", "output": f"answer {number}"} for number in range(60)]
EXPECTED = [b"%d\0answer %d\0" % (number, number) for number in range(60)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
CUT = LINES.index(b"\n", 900) + 1
"""Where the second of two files begins."""


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"{name}.jsonl", data)
    return buffer.getvalue()


def table() -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(Table.from_pylist(ROWS), buffer, row_group_size=13)
    return buffer.getvalue()


def stream(renderer: Any, *dataset: Any, position: Any = None, **settings: Any) -> Any:
    settings = {"buffer_size": 16, "preprocessing_num_workers": 0, "streaming": True, **settings}
    return build_stream(DataConfig(dataset=dataset, **settings), renderer, stage="sft", seed=3, position=position).train


def check(renderer: Any, *dataset: Any, **settings: Any) -> None:
    """The first epoch holds all rows in order, and going on from the third window, or in the second epoch, is exact."""
    found = stream(renderer, *dataset, **settings)
    windows = list(islice(found.windows(), 6))
    texts = [[bytes(sample["input_ids"].tolist()) for sample in window.samples] for window in windows]
    assert [text for window in texts[:4] for text in window] == EXPECTED
    for number in (2, 5):
        saved = {"key": found.key, "files": found.files, "window": windows[number].state}
        again = stream(renderer, *dataset, position=json.loads(json.dumps(saved)), **settings)
        (window,) = islice(again.windows(), 1)
        assert (window.epoch, window.number) == (windows[number].epoch, number)
        assert [bytes(sample["input_ids"].tolist()) for sample in window.samples] == texts[number]


@pytest.mark.parametrize("parts", [True, False])
@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.jsonl", LINES),
        ("x.json", json.dumps(ROWS).encode()),
        ("x.jsonl", gzip.compress(LINES)),
        ("x.parquet", table()),
        ("x.zip", zipped(a=LINES[:CUT], b=LINES[CUT:])),
    ],
    ids=["lines", "array", "gzip", "table", "zip"],
)
def test_an_address(server, cache, renderer, caplog, name, data, parts):
    server.parts = parts or name == "x.zip"  # the list of a zip's members is at its end
    server.files[f"/{name}"] = data
    check(renderer, f"{server.address}/{name}")
    assert not list((cache / "data").glob("files/*/*")), "nothing is copied"
    assert "changed" not in caplog.text


def test_a_connection_that_was_closed_is_opened_again(server, cache, renderer, monkeypatch):
    """As servers do while a window is trained on: each answer breaks off after 20 kB."""
    monkeypatch.setattr(http, "PAUSE", 0.0)
    server.files["/x.jsonl"] = LINES + b" " * 100_000 + b"\n" + LINES
    server.cut = 20_000
    found = stream(renderer, f"{server.address}/x.jsonl", buffer_size=60)
    windows = list(islice(found.windows(), 2))
    assert [bytes(sample["input_ids"].tolist()) for window in windows for sample in window.samples] == EXPECTED * 2
    assert sum(method == "GET" for method, *_ in server.asked) > 5


def test_a_server_that_is_gone_is_given_up(server, cache, renderer, monkeypatch):
    pauses: list[float] = []
    monkeypatch.setattr(http.time, "sleep", pauses.append)
    server.files["/x.jsonl"] = LINES + b" " * 5_000_000 + b"\n" + LINES
    server.cut = 2_500_000
    windows = stream(renderer, f"{server.address}/x.jsonl", buffer_size=50).windows()
    next(windows)
    server.refused["/x.jsonl"] = 503
    with pytest.raises(UnavailableError):
        next(windows)
    assert pauses == [0.5, 1.0, 2.0, 4.0]


def test_a_cloud(cache, renderer, monkeypatch):
    """`memory` stands in for s3: a file system that refuses whoever asks without an account."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    for name, data in (("a", LINES[:CUT]), ("b", LINES[CUT:])):
        with system.open(f"/bucket/{name}.jsonl", "wb") as file:
            file.write(data)
    check(renderer, "memory://bucket/*.jsonl")

    def url_to_fs(url: str, **options: Any) -> Any:
        if options.get("anon"):
            raise PermissionError("Access Denied")
        return system, url.removeprefix("s3:/")

    monkeypatch.setattr(fsspec.core, "url_to_fs", url_to_fs)
    check(renderer, "s3://bucket/*.jsonl")
    assert not list((cache / "data").glob("files/*/*"))
    system.store.clear()


def test_the_hub(hub, renderer, tmp_path):
    hub.commit(**{"data/train-0.jsonl": LINES[:CUT], "data/train-1.jsonl": LINES[CUT:]})
    check(renderer, "owner/name")
    assert not list((tmp_path / "hub").rglob("*.jsonl")), "nothing is copied"


def test_another_hub_is_fetched(cache, renderer, tmp_path, monkeypatch):
    import sys
    from types import ModuleType

    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(LINES)
    module = ModuleType("modelscope")
    module.dataset_snapshot_download = lambda *_args, **_keys: str(folder)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", module)
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    check(renderer, "owner/name")


def test_offline_a_stream_asks_nobody(server, cache, renderer):
    server.files["/x.jsonl"] = LINES
    address = f"{server.address}/x.jsonl"
    with pytest.raises(MissingInputError) as caught:
        stream(renderer, address, offline=True)
    assert caught.value.code == "E-DATA-041"
    assert not server.asked
    from tunesmith.data import build_datasets

    build_datasets(DataConfig(dataset=(address,)), renderer, stage="sft", seed=3)  # a run that fetches it
    server.asked.clear()
    check(renderer, address, offline=True)
    assert not server.asked
