"""Which files hold the questions of a benchmark, and what a row of them says."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, MissingInputError, TunesmithError
from tunesmith.evaluate.benchmarks import all_benchmarks
from tunesmith.evaluate.questions import Question, read_subject, source_of

MMLU, CMMLU = all_benchmarks()["mmlu"], all_benchmarks()["cmmlu"]
ANATOMY = next(subject for subject in MMLU.subjects if subject.key == "anatomy")
LAW = next(subject for subject in all_benchmarks()["ceval"].subjects if subject.key == "law")
FOUND = [Question("Which, if any?", ("one", "two, three", "4", "5"), "C")]
PLAIN = '"Which, if any?",one,"two, three",4,5,C\n'
HEADED = '\ufeff,Question,A,B,C,D,Answer\n0,"Which, if any?",one,"two, three",4,5,C\n'
LINE = json.dumps({"question": "Which, if any?", "choices": ["one", "two, three", "4", "5"], "answer": 2}) + "\n"


def read(folder: Path, split: str = "test") -> list[Question]:
    source = source_of(MMLU, split, str(folder), offline=True, again=False)
    return read_subject(source, ANATOMY, MMLU.splits[split])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test/anatomy_test.csv", PLAIN),
        ("mmlu/test/anatomy.csv", HEADED),
        ("mmlu_test/anatomy.csv", HEADED),
        ("anatomy_test.csv", PLAIN),
        ("anatomy/test-00000-of-00001.jsonl", LINE),
        ("anatomy/test.json", f"[{LINE}]"),
        ("test/anatomy.tsv", "question\tA\tB\tC\tD\tanswer\nWhich, if any?\tone\ttwo, three\t4\t5\tc\n"),
    ],
)
def test_every_layout_is_known(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read(tmp_path) == FOUND


def test_parquet_in_shards(tmp_path: Path) -> None:
    from pyarrow import Table, parquet

    (tmp_path / "anatomy").mkdir()
    for number in range(2):
        row = {"question": f"q{number}", "subject": "anatomy", "choices": ["a", "b", "c", "d"], "answer": number}
        parquet.write_table(Table.from_pylist([row]), tmp_path / "anatomy" / f"test-0000{number}-of-00002.parquet")
    assert [one.answer for one in read(tmp_path)] == ["A", "B"]


def test_files_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("test/anatomy_test.csv", PLAIN)
        archive.writestr("test/other_test.csv", "broken")
    assert read(tmp_path) == FOUND


def test_a_subject_is_no_part_of_another_name(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "professional_law_val.csv").write_text(PLAIN)
    (tmp_path / "val" / "logic_val.csv").write_text(PLAIN)
    source = source_of(all_benchmarks()["ceval"], "validation", str(tmp_path), offline=True, again=False)
    assert source.of(LAW, ("validation", "val")) == []


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("q,1,2,3,4,E\n", "not one of the four"),
        ("q,1,2,3,4,\n", "no answer"),
        ("q,1,2,3\n", "not four options"),
        (",1,2,3,4,A\n", "no question"),
    ],
)
def test_a_row_that_is_no_question_is_told_with_its_place(tmp_path: Path, content: str, what: str) -> None:
    (tmp_path / "anatomy_test.csv").write_text(PLAIN + content)
    with pytest.raises(DataError, match=f"(?s)E-EVAL-003.*{what}.*anatomy_test.csv:2"):
        read(tmp_path)


def test_a_file_that_is_no_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "anatomy_test.csv").write_bytes(b"\xff\xfe\x00q")
    with pytest.raises(DataError, match="E-EVAL-003"):
        read(tmp_path)


def test_folders_without_questions_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingInputError, match=r"(?s)E-EVAL-002.*test/abstract_algebra_test\.csv"):
        read(tmp_path)
    with pytest.raises(MissingInputError, match="no such folder"):
        read(tmp_path / "nowhere")
    monkeypatch.setenv("USE_MODELSCOPE_HUB", "1")
    with pytest.raises(MissingInputError, match="Hugging Face hub only"):
        source_of(MMLU, "test", None, offline=False, again=False)


def test_offline_without_a_copy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path))
    with pytest.raises(TunesmithError, match="E-DATA-041"):
        source_of(MMLU, "test", None, offline=True, again=False)


def test_the_files_of_cmmlu(assets: Path) -> None:
    folder = assets / "data" / "eval" / "cmmlu_dev"
    source = source_of(CMMLU, "dev", str(folder), offline=True, again=False)
    counts = [len(read_subject(source, subject, ("dev",))) for subject in CMMLU.subjects]
    assert len(counts) == 67
    assert set(counts) == {5}
