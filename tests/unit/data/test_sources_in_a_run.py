"""What `dataset:` may hold, through the data of a whole run."""

from __future__ import annotations

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import DataError, MissingInputError, UnavailableError
from tunesmith.data import build_datasets


def built(renderer, *items, **settings):
    return build_datasets(DataConfig(dataset=items, **settings), renderer, stage="sft", seed=1).train


def test_items_of_all_forms_are_read_together(write, renderer):
    write("data/x.jsonl", [{"instruction": "a", "output": "b"}])
    write("data/dataset_info.json", {"d": {"file_name": "x.jsonl"}})
    write("rows.log", '{"question": "q", "reply": "r"}\n')
    write("nested.json", {"version": 1, "data": [{"instruction": "n", "output": "o"}] * 2, "more": [1, 2]})
    write("many/1.jsonl", [{"instruction": "1", "output": "a"}])
    write("many/2.jsonl", [{"instruction": "2", "output": "b"}])
    mapping = {"path": "rows.log", "file_type": "jsonl", "columns": {"prompt": "question", "response": "reply"}}
    train = built(renderer, "d", mapping, {"path": "nested.json", "field": "data"}, "many/*.jsonl#1")
    texts = [bytes(sample["input_ids"].tolist()) for sample in train]
    assert texts[:4] == [b"a\0b\0", b"q\0r\0", b"n\0o\0", b"n\0o\0"]
    assert texts[4] in (b"1\0a\0", b"2\0b\0")
    assert len(texts) == 5


@pytest.mark.parametrize(
    ("content", "field", "said"),
    [
        ({"data": [], "rows": []}, "row", 'did you mean "rows"'),
        ({"data": []}, "data", "list of rows is empty"),
        ([{"a": 1}], "data", "leave field out"),
        ({"data": {"a": 1}}, "data", 'no list of rows under "data"'),
    ],
)
def test_a_field_that_holds_no_rows_is_an_error(write, renderer, content, field, said):
    with pytest.raises(DataError, match=said):
        built(renderer, {"path": write("x.json", content), "field": field})


def test_a_field_is_for_json(write, renderer):
    write("x.csv", "a\n1\n")
    with pytest.raises(DataError, match="`field` names a key"):
        built(renderer, {"path": "x.csv", "field": "data"})


def test_offline_no_network_is_asked(write, renderer, tmp_path, monkeypatch):
    write("keep.txt", "an empty folder to work in")
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path / "cache" / "data"))
    address = "http://127.0.0.1:1/x.jsonl"  # nobody listens there
    with pytest.raises(UnavailableError) as caught:
        built(renderer, address)
    assert (caught.value.code, caught.value.exit_code) == ("E-DATA-040", 69)
    with pytest.raises(MissingInputError) as caught:
        built(renderer, address, "owner/name", offline=True)
    assert [(problem.code, problem.where) for problem in caught.value.problems] == [
        ("E-DATA-041", address),
        ("E-DATA-041", "hf://datasets/owner/name"),
    ]
