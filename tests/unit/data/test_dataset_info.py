"""dataset_info.json, and what the entries of `dataset` stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, MissingInputError, TunesmithError
from tunesmith.data.dataset_info import resolve


@pytest.fixture
def table(write):
    def write_table(entries):
        write("data/x.jsonl", [{"instruction": "a", "output": "b"}])
        write("data/dataset_info.json", entries)

    return write_table


def test_a_name_of_the_table(table):
    table({"d": {"file_name": "x.jsonl", "columns": {"prompt": "q", "query": None, "response": "a"}, "num_samples": 3}})
    (spec,) = resolve(["d"], "data")
    assert (spec.name, spec.path, spec.format, spec.num_samples) == ("d", Path("data/x.jsonl"), "alpaca", 3)
    assert spec.columns == {"prompt": "q", "response": "a"}
    assert spec.tags is None


@pytest.mark.parametrize("name", ["data/x.jsonl", "x.jsonl", "./data/x.jsonl"])
def test_a_path_needs_no_table_and_may_start_here_or_in_dataset_dir(table, name):
    table({})
    Path("data/dataset_info.json").unlink()
    (spec,) = resolve([name], "data")
    assert spec.path.resolve() == Path("data/x.jsonl").resolve()
    assert spec.format is None


def test_a_name_wins_over_a_path_and_says_so(table, write):
    table({"d": {"file_name": "x.jsonl"}})
    write("d/y.jsonl", [])
    (spec,) = resolve(["d"], "data")
    assert spec.path == Path("data/x.jsonl")
    assert "(the path is ./d)" in spec.notices[0]
    assert resolve(["./d"], "data")[0].path == Path("d")


def test_a_path_here_wins_over_one_in_dataset_dir_and_says_so(table, write):
    table({})
    write("x.jsonl", [])
    (spec,) = resolve(["x.jsonl"], "data")
    assert spec.path == Path("x.jsonl")
    assert "the one here is used" in spec.notices[0]


def test_unknown_names_are_told_together_with_the_nearest(table):
    table({"alpaca_en": {"file_name": "x.jsonl"}})
    with pytest.raises(MissingInputError) as caught:
        resolve(["alpaca_eng", "x.json", "zzz"], "data")
    fixes = [problem.fix for problem in caught.value.problems]
    assert fixes[:2] == ['did you mean "alpaca_en"?', 'did you mean "x.jsonl"?']
    assert fixes[2] == "entries: alpaca_en"


FAULTS = {
    "unknown key": ({"file_name": "x.jsonl", "colums": {}}, 'did you mean "columns"?'),
    "unknown column": ({"file_name": "x.jsonl", "columns": {"promt": "a"}}, 'did you mean "prompt"?'),
    "unknown tag": ({"file_name": "x.jsonl", "tags": {"user": "a"}}, 'unknown key "user" in tags'),
    "unknown formatting": ({"file_name": "x.jsonl", "formatting": "sharegptt"}, 'did you mean "sharegpt"?'),
    "no file": ({}, 'add "file_name"'),
    "a hub": ({"hf_hub_url": "a/b"}, "hf_hub_url is not supported by this version"),
    "a cloud": ({"cloud_file_name": "s3://a"}, "cloud_file_name is not supported"),
    "ranking": ({"file_name": "x.jsonl", "ranking": "yes"}, "ranking is 'yes'"),
    "merging": ({"file_name": "x.jsonl", "merge_consecutive": 1}, "merge_consecutive is 1"),
    "images": ({"file_name": "x.jsonl", "columns": {"prompt": "a", "images": "i"}}, '"images" is not supported'),
    "split": ({"file_name": "x.jsonl", "split": "test"}, 'split "test"'),
    "samples": ({"file_name": "x.jsonl", "num_samples": 0}, "num_samples is 0"),
    "trust": ({"file_name": "x.jsonl", "trusted_markup": "yes"}, "trusted_markup is 'yes'"),
    "tags that lack": (
        {"file_name": "x.jsonl", "formatting": "sharegpt", "tags": {"role_tag": "r", "user_tag": "u"}},
        "tags lacks content_tag, assistant_tag",
    ),
    "not an object": ("x.jsonl", "not an object"),
    "columns not an object": ({"file_name": "x.jsonl", "columns": ["a"]}, "columns is not an object"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_faulty_entries(table, case):
    entry, said = FAULTS[case]
    table({"d": entry})
    with pytest.raises(DataError) as caught:
        resolve(["d"], "data")
    assert {problem.code for problem in caught.value.problems} == {"E-DATA-021"}
    assert said in str(caught.value)
    assert 'data/dataset_info.json, entry "d"' in str(caught.value)


def test_faults_of_entries_that_are_not_used_do_not_matter(table):
    table({"d": {"file_name": "x.jsonl"}, "other": {"hf_hub_url": "a/b"}})
    assert len(resolve(["d"], "data")) == 1


@pytest.mark.parametrize(("text", "code"), [(b"{", "E-DATA-003"), (b"[]", "E-DATA-021"), (b"\xff", "E-DATA-003")])
def test_a_broken_table(write, text, code):
    write("data/dataset_info.json", text)
    with pytest.raises(TunesmithError) as caught:
        resolve(["d"], "data")
    assert caught.value.code == code


def test_keys_of_hubs_are_said_to_mean_nothing_for_a_file(table):
    table({"d": {"file_name": "x.jsonl", "subset": "a", "folder": "b", "split": "train"}})
    assert "subset and folder mean nothing" in resolve(["d"], "data")[0].notices[0]
