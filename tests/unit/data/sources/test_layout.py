"""Which files of a repository are the subset and the split that were asked for."""

from __future__ import annotations

import pytest

from tunesmith.core.errors import DataError, MissingInputError, TunesmithError
from tunesmith.data.sources.layout import Wanted, choose

CONFIGS = """---
license: mit
configs:
- config_name: en
  default: true
  data_files:
  - split: train
    path: en/train-*.jsonl
  - split: test
    path: [en/test.jsonl, "en/more/**"]
- config_name: de
  data_files: de/*.jsonl
- config_name: fr
  data_dir: fr
---
# A dataset
"""
FILES = ["README.md", "en/train-1.jsonl", "en/train-2.jsonl", "en/test.jsonl", "en/more/a/b.jsonl", "en/more/c.jsonl"]
FILES += ["de/x.jsonl", "de/deep/y.jsonl", "fr/train.csv", "fr/test.csv"]
SHARDS = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/test-00000-of-00001.parquet"]
SFT = ["data/train_sft-00000-of-00001.parquet", "data/test_sft-00000-of-00001.parquet"]

CASES = {
    "the default of the README": (FILES, CONFIGS, {}, ["en/train-1.jsonl", "en/train-2.jsonl"]),
    "a split of the README": (
        FILES,
        CONFIGS,
        {"split": "test"},
        ["en/test.jsonl", "en/more/a/b.jsonl", "en/more/c.jsonl"],
    ),
    "a subset of the README": (FILES, CONFIGS, {"subset": "de"}, ["de/x.jsonl"]),
    "a folder of the README": (FILES, CONFIGS, {"subset": "fr", "split": "test"}, ["fr/test.csv"]),
    "shards": (SHARDS, None, {}, SHARDS[:2]),
    "shards of a split": (SHARDS, None, {"split": "test"}, SHARDS[2:]),
    "splits of other names": (SFT, None, {"split": "train_sft"}, SFT[:1]),
    "files named by splits": (["train.jsonl", "valid.jsonl"], None, {"split": "validation"}, ["valid.jsonl"]),
    "folders named by splits": (["train/a.csv", "train/b.csv", "dev/c.csv"], None, {}, ["train/a.csv", "train/b.csv"]),
    "names that tell nothing": (["a.json", "b.json"], None, {}, ["a.json", "b.json"]),
    "a word within a word": (["trainer.json", "contest.json"], None, {}, ["contest.json", "trainer.json"]),
    "the only split there is": (["test.jsonl"], None, {}, ["test.jsonl"]),
    "subsets as folders": (["en/train.csv", "de/train.csv"], None, {"subset": "de"}, ["de/train.csv"]),
    "a folder": (["a/train.csv", "b/train.csv", "b/test.csv"], None, {"folder": "b"}, ["b/train.csv"]),
    "a folder and a subset": (["b/en/x.csv", "b/de/x.csv"], None, {"folder": "b/", "subset": "en"}, ["b/en/x.csv"]),
    "the commonest kind": (
        ["a.parquet", "b.parquet", "LICENSE.txt", "notes.txt"],
        None,
        {},
        ["a.parquet", "b.parquet"],
    ),
    "no descriptions": (["dataset_info.json", "x.json", ".github/y.json"], None, {}, ["x.json"]),
    "packed files": (["train.jsonl.gz", "test.jsonl.gz"], None, {}, ["train.jsonl.gz"]),
    "a file by name": (["a.json", "b.json"], CONFIGS, {"files": "b.json"}, ["b.json"]),
    "files by pattern": (["a/1.json", "a/2.json", "b/3.json"], None, {"files": "a/*.json"}, ["a/1.json", "a/2.json"]),
    "files by folder": (["a/1.json", "a/x.py", "b/3.json"], None, {"files": "a"}, ["a/1.json"]),
    "a README that is no YAML": (["x.json"], "---\n[\n---\n", {}, ["x.json"]),
    "characters of a pattern": (["a1.csv", "a2.csv", "ab.csv"], None, {"files": "a[0-9].csv"}, ["a1.csv", "a2.csv"]),
    "other characters": (["a1.csv", "ab.csv"], None, {"files": "a[!0-9].csv"}, ["ab.csv"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_chosen(case):
    paths, readme, asked, expected = CASES[case]
    assert choose(paths, readme, Wanted("x", **asked)) == expected


FAULTS = {
    "no such subset": (FILES, CONFIGS, {"subset": "enn"}, "E-DATA-044", 'did you mean "en"'),
    "no such split": (FILES, CONFIGS, {"split": "trian"}, "E-DATA-044", 'did you mean "train"'),
    "several subsets": (
        ["a.csv"],
        CONFIGS.replace("  default: true\n", ""),
        {},
        "E-DATA-044",
        "say which subset: en, de, fr",
    ),
    "no folder of that name": (["en/x.csv"], None, {"subset": "de"}, "E-DATA-044", "subsets: en"),
    "no split of that name": (SHARDS, None, {"split": "dev"}, "E-DATA-044", "splits: test, train"),
    "no folder": (["en/x.csv"], None, {"folder": "de"}, "E-DATA-020", "no folder de/"),
    "a script": (["name.py", "README.md"], None, {}, "E-DATA-043", "refs/convert/parquet"),
    "nothing": (["README.md", "x.bin"], None, {}, "E-DATA-002", "x.bin"),
    "no such file": (["rows.json"], None, {"files": "row.json"}, "E-DATA-020", 'did you mean "rows.json"'),
    "files that went": (["README.md"], CONFIGS, {}, "E-DATA-020", "en/train-*.jsonl"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_what_is_not_there_is_said_with_what_is(case):
    paths, readme, asked, code, said = FAULTS[case]
    with pytest.raises(TunesmithError) as caught:
        choose(paths, readme, Wanted("x", **asked))
    assert caught.value.code == code
    assert isinstance(caught.value, MissingInputError if code == "E-DATA-020" else DataError)
    assert said in str(caught.value)
