"""dataset_info.json, and what the entries of `dataset` stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, MissingInputError, TunesmithError
from tunesmith.data.dataset_info import resolve
from tunesmith.data.sources import open_source


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
    "a repository that is none": ({"hf_hub_url": 3}, "hf_hub_url is 3"),
    "weight": ({"file_name": "x.jsonl", "weight": 0}, "weight is 0"),
    "file type": ({"file_name": "x.jsonl", "file_type": "jsnl"}, 'did you mean "jsonl"'),
    "file type as format": ({"file_name": "x.jsonl", "format": "jsonl"}, "file_type: jsonl"),
    "two formats": ({"file_name": "x.jsonl", "format": "openai", "formatting": "openai"}, "two names of one key"),
    "a key of another place": ({"file_name": "x.jsonl", "path": "x"}, 'unknown key "path"'),
    "ranking": ({"file_name": "x.jsonl", "ranking": "yes"}, "ranking is 'yes'"),
    "merging": ({"file_name": "x.jsonl", "merge_consecutive": 1}, "merge_consecutive is 1"),
    "pictures": ({"file_name": "x.jsonl", "columns": {"prompt": "a", "pictures": "i"}}, 'unknown key "pictures"'),
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
    table({"d": {"file_name": "x.jsonl"}, "other": {"hf_hub_urls": "a/b"}})
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


def test_a_split_of_a_single_file_is_refused(table):
    table({"d": {"file_name": "x.jsonl", "split": "test"}})
    (spec,) = resolve(["d"], "data")
    with pytest.raises(DataError, match='split "test" of a single file') as caught:
        open_source(spec)
    assert caught.value.code == "E-DATA-044"


def test_a_script_is_refused_with_what_to_do(table):
    table({"d": {"script_url": "folder"}})
    with pytest.raises(DataError, match="refs/convert/parquet") as caught:
        resolve(["d"], "data")
    assert caught.value.code == "E-DATA-043"


PLACES = {
    "hub": ({"hf_hub_url": "a/b", "ms_hub_url": "c/d"}, {}, ("hf", "a/b")),
    "modelscope": ({"hf_hub_url": "a/b", "ms_hub_url": "c/d"}, {"USE_MODELSCOPE_HUB": "1"}, ("modelscope", "c/d")),
    "the hub that there is": ({"om_hub_url": "e/f"}, {}, ("openmind", "e/f")),
    "not on the chosen hub": ({"hf_hub_url": "a/b"}, {"USE_MODELSCOPE_HUB": "1"}, ("hf", "a/b")),
    "a cloud": ({"cloud_file_name": "s3://bucket/x.jsonl"}, {}, ("url", "s3://bucket/x.jsonl")),
    "a hub before a file": ({"hf_hub_url": "a/b", "file_name": "x.jsonl"}, {}, ("hf", "a/b")),
}


@pytest.mark.parametrize("case", PLACES)
def test_where_the_rows_of_an_entry_are(table, monkeypatch, case):
    entry, environment, place = PLACES[case]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    table({"d": {**entry, "subset": "s", "split": "test", "folder": "f"}})
    (spec,) = resolve(["d"], "data")
    assert (spec.place, spec.location) == place
    assert (spec.subset, spec.split, spec.folder, spec.format, spec.files) == ("s", "test", "f", "alpaca", None)
    assert bool(spec.notices) == ("file_name" in entry)


SHORT = {
    "d#5": ("file", "data/x.jsonl", None, 5),
    "data/x.jsonl#12": ("file", "data/x.jsonl", None, 12),
    "hub:part": ("hf", "a/b", "part", None),
    "hub:part#7": ("hf", "a/b", "part", 7),
    "owner/name": ("hf", "owner/name", None, None),
    "owner/name:en#3": ("hf", "owner/name", "en", 3),
    "owner/na.me": ("hf", "owner/na.me", None, None),
    "s3://bucket/x.jsonl#3": ("url", "s3://bucket/x.jsonl", None, 3),
    "http://host:80/x.jsonl": ("url", "http://host:80/x.jsonl", None, None),
    "data/sub:part": ("file", "data/sub", "part", None),
    "data/odd#2": ("file", "data/odd#2", None, None),
    "data/odd:part": ("file", "data/odd:part", None, None),
    "data/*.jsonl#2": ("file", "data/*.jsonl", None, 2),
    "sub/*.jsonl": ("file", "data/sub/*.jsonl", None, None),
}


@pytest.mark.parametrize("name", SHORT)
def test_the_short_form_names_a_part(table, write, name):
    table({"d": {"file_name": "x.jsonl"}, "hub": {"hf_hub_url": "a/b"}})
    for path in ("data/sub/y.jsonl", "data/odd#2", "data/odd:part"):
        write(path, '{"a": 1}\n')
    (spec,) = resolve([name], "data")
    assert (spec.place, spec.location, spec.subset, spec.num_samples) == SHORT[name]


@pytest.mark.parametrize(
    "name",
    [
        "x.jsonl#0",
        "C:rows.jsonl",  # drives are no names with subsets
        "C:/rows.jsonl",
        "./owner/name",
        "owner/rows.jsonl",
        "data/rows",  # the folder is there, so the file is missing
        "data/*.csv",
        "a/b/c",
    ],
)
def test_what_is_neither_a_path_nor_a_repository(table, name):
    table({})
    with pytest.raises(MissingInputError) as caught:
        resolve([name], "data")
    assert caught.value.code == "E-DATA-020"
    assert f'"{name}"' in str(caught.value)


def test_a_subset_of_a_single_file_is_refused(table):
    table({})
    with pytest.raises(DataError, match="subset of a single file"):
        resolve(["data/x.jsonl:part"], "data")


def test_a_mapping_is_an_entry_in_place(table):
    table({})
    item = {
        "path": "x.jsonl",
        "name": "mine",
        "format": "sharegpt",
        "columns": {"messages": "talk"},
        "file_type": "jsonl",
        "num_samples": 4,
        "weight": 0.5,
        "trusted_markup": True,
        "ranking": True,
    }
    (spec,) = resolve([item], "data")
    assert (spec.name, spec.location, spec.format) == ("mine", "data/x.jsonl", "sharegpt")
    assert spec.columns == {"messages": "talk"}
    assert (spec.file_type, spec.num_samples, spec.weight) == ("jsonl", 4, 0.5)
    assert spec.trusted_markup
    assert spec.ranking


@pytest.mark.parametrize(
    ("item", "place"),
    [
        ({"path": "owner/name:en#3"}, ("hf", "owner/name", "en", 3, None)),
        ({"path": "owner/name", "subset": "de", "num_samples": 2}, ("hf", "owner/name", "de", 2, None)),
        ({"path": "s3://bucket/x.csv"}, ("url", "s3://bucket/x.csv", None, None, None)),
        ({"path": "data/x.jsonl", "columns": {"prompt": "q"}}, ("file", "data/x.jsonl", None, None, "alpaca")),
        ({"file_name": "x.jsonl"}, ("file", "data/x.jsonl", None, None, "alpaca")),
        ({"ms_hub_url": "owner/name"}, ("modelscope", "owner/name", None, None, "alpaca")),
    ],
)
def test_a_mapping_may_name_any_place(table, item, place):
    table({})
    (spec,) = resolve([item], "data")
    assert (spec.place, spec.location, spec.subset, spec.num_samples, spec.format) == place


def test_faults_of_mappings_are_told_with_all_others(table):
    table({})
    items = [{"path": "x.jsonl", "colums": {}}, {"format": "alpaca"}, {"path": "x.jsnl"}, "nothing"]
    with pytest.raises(DataError) as caught:
        resolve(items, "data")
    fixes = [problem.fix for problem in caught.value.problems]
    assert fixes[0] == 'did you mean "columns"?'
    assert "file_name" in fixes[1]
    assert fixes[2] == 'did you mean "x.jsonl"?'
    assert len(fixes) == 4
    assert caught.value.problems[0].where == 'dataset, "x.jsonl"'


def test_the_table_may_be_a_mapping(write):
    write("rows.jsonl", [{"instruction": "a", "output": "b"}])
    (spec,) = resolve(["d"], {"d": {"file_name": "rows.jsonl"}})
    assert (spec.location, spec.format) == ("rows.jsonl", "alpaca")
    with pytest.raises(DataError, match='dataset_dir, entry "d"'):
        resolve(["d"], {"d": {"file": "rows.jsonl"}})


def test_online_makes_every_name_a_repository(write):
    write("squad", "a file that does not matter")
    specs = resolve(["squad", "owner/name:en#3"], "ONLINE")
    assert [(spec.place, spec.location, spec.subset, spec.num_samples) for spec in specs] == [
        ("hf", "squad", None, None),
        ("hf", "owner/name", "en", 3),
    ]
