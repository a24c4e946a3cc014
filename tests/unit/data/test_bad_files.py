"""Files that people feed to a fine-tuning tool by mistake, one folder of fixtures each: what is said, with which code
and which place; and those that are read all the same.

The numbers are those of the corpus; `tests/assets/make_bad_files.py` writes the files and shows what is wrong.
"""

from __future__ import annotations

import logging
import os
import shutil
import tracemalloc
from pathlib import Path

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.core.log import get_logger
from tunesmith.data.dataset_info import resolve
from tunesmith.data.reading import load_datasets
from tunesmith.data.rows import Broken, parse
from tunesmith.data.sources import decode, open_source, packed, window

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "bad_data"
COLOURS = ["Name red.", "Name blue.", "Name green."]

REFUSED: dict[str, tuple[int, str, tuple[str, ...]]] = {
    # dataset: exit code, code, and what the message holds
    "B01/empty.json": (65, "E-DATA-001", ("B01/empty.json", "write the file again")),
    "B01/blank.jsonl": (65, "E-DATA-001", ("B01/blank.jsonl", "only blank lines")),
    "B02/empty_list.json": (65, "E-DATA-002", ("the list of rows is empty",)),
    "B02/header.csv": (65, "E-DATA-002", ("a header and no rows",)),
    "B03/cut.json": (65, "E-DATA-003", ("cut.json:15:13", "cut off", "begins in line 12", "224 bytes in all")),
    "B03/cut_behind_a_row.json": (65, "E-DATA-003", ("cut_behind_a_row.json:16:3", "expected , or ]", "cut off")),
    "B04/broken_line.jsonl": (65, "E-DATA-003", ("broken_line.jsonl:10", "1 of 13 rows", '"output" "y"')),
    "B06/latin1.jsonl": (65, "E-DATA-004", ("latin1.jsonl:4", "0xf9 at position 19", "iconv -f ISO-8859-1")),
    "B06/latin1.csv": (65, "E-DATA-004", ("latin1.csv:4", "0xf9 at position 2 ")),
    "B07/utf16.jsonl": (65, "E-DATA-004", ("utf16.jsonl:1", "iconv -f UTF-16")),
    "B07/utf16.json": (65, "E-DATA-004", ("utf16.json:1", "iconv -f UTF-16")),
    "B08/commas.jsonl": (65, "E-DATA-003", ("3 of 3 rows", "commas.jsonl:1, :2, :3")),
    "B08/comma_at_the_end.json": (65, "E-DATA-003", ("comma_at_the_end.json:17:1",)),
    "B09/damaged.jsonl": (65, "E-DATA-005", ("cannot be unpacked (gzip)", "get the file again")),
    "B10/alpaca_trian.jsonl": (66, "E-DATA-020", ('did you mean "B10/alpaca_train.jsonl"',)),
    "B11/rows.xlsx": (65, "E-DATA-006", ('".xlsx"', ".jsonl", "file_type")),
    "B12": (65, "E-DATA-026", ("2 jsonl, 1 unknown", "notes.md")),
    "B15/nested.json": (65, "E-DATA-007", ('under "data"', "{path: ", "field: data}")),
    "B15/two.json": (65, "E-DATA-007", ('under "train" and "test"',)),
    "B18/goood": (66, "E-DATA-020", ('did you mean "good"',)),
    "B19/nowhere": (65, "E-DATA-021", ('entry "nowhere"', "file_name", "hf_hub_url", "ms_hub_url", "cloud_file_name")),
    "B20/slip": (65, "E-DATA-021", ('"sharegptt"', 'did you mean "sharegpt"? one of: alpaca, ')),
    "B21/no_rows.parquet": (65, "E-DATA-002", ("holds no rows",)),
    "B21/wrong_magic.parquet": (65, "E-DATA-009", ("Parquet", "magic")),
    "B21/no_footer.parquet": (65, "E-DATA-009", ("Parquet", "get the file again")),
    "B21/damaged_footer.parquet": (65, "E-DATA-009", ("Parquet",)),
    "B22/open_quote.csv": (65, "E-DATA-010", ("open_quote.csv:4", "a quote is written twice")),
    "B22/quote_inside.csv": (65, "E-DATA-010", ("quote_inside.csv:4", "a quote is written twice")),
    "B22/ragged.csv": (65, "E-DATA-010", ("ragged.csv:4, :5", "2 of 4 rows", "1 instead of 2 fields")),
    "B22/semicolons.csv": (65, "E-DATA-010", ("separated by ';'", "save it with commas")),
}


def config(dataset: str) -> DataConfig:
    """The dataset named behind a folder of the corpus; the folder's own table is used."""
    folder, _, name = dataset.partition("/")
    if not (FOLDER / folder / "dataset_info.json").exists():
        name = dataset
    return DataConfig(dataset=(name,), dataset_dir=str(FOLDER / folder))


def fail(data: DataConfig) -> TunesmithError:
    with pytest.raises(TunesmithError) as caught:
        load_datasets(data, stage="sft", seed=1)
    return caught.value


def questions(item: object) -> list[object]:
    """The first column of the rows that an item of `dataset:` stands for."""
    (spec,) = resolve([item], FOLDER)  # type: ignore[list-item]
    rows = [parse(row.values) for file in open_source(spec) for row in file.rows()]
    return [row if isinstance(row, Broken) else row["instruction"] for row in rows]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)


@pytest.mark.parametrize("dataset", REFUSED)
def test_a_bad_file_is_refused_with_its_place(dataset):
    exit_code, code, said = REFUSED[dataset]
    error = fail(config(dataset))
    assert (error.exit_code, error.code) == (exit_code, code)
    assert len(error.problems) == 1
    assert [words for words in said if words not in str(error)] == []


READ = {
    "B05/mark.jsonl": COLOURS,
    "B05/mark.json": COLOURS,
    "B05/mark.csv": COLOURS[:2],
    "B08/crlf.jsonl": COLOURS,
    "B08/crlf.csv": COLOURS[:2],
    "B09/gzip.jsonl": COLOURS,
    "B09/zstd.jsonl": COLOURS,
    "B09/zip.jsonl": COLOURS,
    "B12/*.jsonl": COLOURS * 2,
    "B17/rows.jsonl": COLOURS,
}


@pytest.mark.parametrize("dataset", READ)
def test_a_file_that_only_looks_bad_is_read(dataset):
    assert questions(dataset) == READ[dataset]


def test_b05_a_mark_is_noted(caplog):
    decode._say_mark.cache_clear()
    get_logger().propagate = True
    with caplog.at_level(logging.INFO, logger=get_logger().name):
        questions("B05/mark.jsonl")
    assert "B05/mark.jsonl begins with a byte order mark" in caplog.text


def test_b09_a_bomb_is_refused(monkeypatch):
    monkeypatch.setattr(packed, "UNSUSPICIOUS", 1_000_000)
    monkeypatch.setattr(decode, "LONGEST_ROW", 10**9)
    with pytest.raises(DataError, match="swell") as caught:
        questions("B09/bomb.jsonl")
    assert caught.value.code == "E-DATA-005"


def test_b10_the_nearest_files_of_that_folder_are_named():
    error = fail(DataConfig(dataset=("./B10/alpaca_trian.jsonl", "B10/zzz.jsonl"), dataset_dir="none"))
    assert 'did you mean "B10/alpaca_train.jsonl"' in error.problems[0].fix
    assert "write the path of a file" in error.problems[1].fix


def test_b11_the_type_can_be_said():
    assert fail(config("B11/rows.log")).code == "E-DATA-006"
    assert questions({"path": "B11/rows.log", "file_type": "jsonl"}) == COLOURS


def test_b13_an_empty_folder(tmp_path):
    (tmp_path / ".hidden").write_text("x")
    error = fail(DataConfig(dataset=(str(tmp_path),)))
    assert error.code == "E-DATA-002"
    assert str(tmp_path) in str(error)


def test_b14_what_cannot_be_read_is_said_and_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("gone.jsonl")
    shutil.copy(FOLDER / "B17" / "rows.jsonl", tmp_path / "locked.jsonl")
    (tmp_path / "locked.jsonl").chmod(0)
    opened = Path.open

    def refuse(self: Path, *args: object, **keywords: object) -> object:
        """As the system does for everybody but root."""
        if self.name == "locked.jsonl":
            raise PermissionError(13, "Permission denied")
        return opened(self, *args, **keywords)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    names = ("pipe.jsonl", "link.jsonl", "locked.jsonl")
    error = fail(DataConfig(dataset=tuple(str(tmp_path / name) for name in names)))
    assert [problem.code for problem in error.problems] == ["E-DATA-025"] * 3
    told = str(error)
    assert all(words in told for words in ("not a regular file", "its goal: gone.jsonl", "EACCES", "chmod +r"))


@pytest.mark.parametrize("field", ["data"])
def test_b15_the_rows_under_a_key_can_be_read(field):
    assert questions({"path": "B15/nested.json", "field": field}) == COLOURS
    assert questions({"path": "B15/two.json", "field": "test"}) == COLOURS


@pytest.mark.parametrize("name", ["B16/one_line.jsonl", "B16/one_row.json"])
def test_b16_a_row_without_end_is_not_read_whole(monkeypatch, name):
    """The limit of 100 MB and the file of more than that are both made a thousandth of it."""
    monkeypatch.setattr(decode, "LONGEST_ROW", 10_000)
    for module in (decode, window):
        monkeypatch.setattr(module, "BLOCK", 1_000)
    tracemalloc.start()
    with pytest.raises(DataError, match="more than 10,000 bytes") as caught:
        questions(name)
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.code == "E-DATA-008"
    assert caught.value.problems[0].where == {"B16/one_line.jsonl": f"{name}:1", "B16/one_row.json": f"{name}:2"}[name]
    assert peak < 200_000  # a file of 50,000 bytes, and what reading takes anyway


def test_b16_the_limit_is_far_above_any_row_that_is_meant():
    assert decode.LONGEST_ROW == 100_000_000


def test_b17_a_table_is_not_needed_and_its_absence_is_said_where_it_would_be():
    assert len(load_datasets(DataConfig(dataset=("B17/rows.jsonl",), dataset_dir="none"), stage="sft", seed=1)) == 1
    error = fail(DataConfig(dataset=("my_data",), dataset_dir="none"))
    assert error.code == "E-DATA-020"
    assert "write the path of a file, or make none/dataset_info.json with an entry for the name" in str(error)
