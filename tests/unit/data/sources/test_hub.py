"""Datasets of the hubs, against a server on this machine that speaks as the Hugging Face hub does."""

from __future__ import annotations

import json
import sys
from io import BytesIO
from types import ModuleType
from zipfile import ZipFile

import pytest
from pyarrow import BufferOutputStream, Table, parquet

from tunesmith.core.errors import DataError, MachineError, MissingInputError, TunesmithError, UnavailableError
from tunesmith.data.dataset_info import resolve
from tunesmith.data.rows import parse
from tunesmith.data.sources import open_source
from tunesmith.data.spec import DatasetSpec

ROWS = [{"a": "1"}, {"a": "zwei"}, {"a": "三"}]


def lines(*rows: dict[str, str]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def spec(location: str = "owner/name", **keys) -> DatasetSpec:
    return DatasetSpec("d", location, "hf", **keys)


def rows(one: DatasetSpec, **how) -> list[object]:
    return [parse(row.values) for file in open_source(one, **how) for row in file.rows()]


def fetched(hub) -> list[str]:
    """Names of the files of the repository that were given out."""
    return [path.rsplit("/", 1)[-1] for method, path, _range in hub.asked if method == "GET" and "/resolve/" in path]


@pytest.mark.parametrize("streaming", [False, True])
def test_the_files_of_a_split_are_read(hub, streaming):
    hub.commit(**{"train.jsonl": lines(*ROWS), "test.jsonl": lines({"a": "t"}), "x.bin": b"no"})
    assert rows(spec(), streaming=streaming) == ROWS
    assert rows(spec(split="test"), streaming=streaming) == [{"a": "t"}]
    assert "x.bin" not in fetched(hub)
    (file,) = open_source(spec(split="test"), streaming=streaming)
    assert str(next(iter(file.rows())).origin) == "hf://datasets/owner/name/test.jsonl:1"


def test_the_readme_tells_subsets(hub):
    readme = (
        "---\nconfigs:\n- config_name: de\n  data_files: d/*.jsonl\n- config_name: en\n  data_files: e.jsonl\n---\n"
    )
    hub.commit(**{"README.md": readme.encode(), "d/x.jsonl": lines({"a": "de"}), "e.jsonl": lines({"a": "en"})})
    assert rows(spec(subset="de")) == [{"a": "de"}]
    with pytest.raises(DataError, match="say which subset: de, en"):
        open_source(spec())


def test_a_commit_is_fetched_once(hub):
    hub.commit(**{"train.jsonl": lines(*ROWS)})
    rows(spec())
    rows(spec())
    assert fetched(hub) == ["train.jsonl"]


@pytest.mark.parametrize("streaming", [False, True])
def test_another_commit_is_other_data(hub, streaming):
    hub.commit(**{"train.jsonl": lines(*ROWS)})
    (first,) = open_source(spec(), streaming=streaming)
    hub.commit(**{"train.jsonl": lines({"a": "new"})})
    (second,) = open_source(spec(), streaming=streaming)
    assert first.digest() != second.digest()
    assert hub.sha in second.digest()
    assert [parse(row.values) for row in second.rows()] == [{"a": "new"}]


def test_a_table_streams_from_the_hub_in_parts(hub):
    buffer = BufferOutputStream()
    parquet.write_table(Table.from_pylist([{"a": f"{i}" * 50} for i in range(50_000)]), buffer, row_group_size=100)
    data = buffer.getvalue().to_pybytes()
    hub.commit(**{"data/train-00000-of-00001.parquet": data})
    (file,) = open_source(spec(), streaming=True)
    read = iter(file.rows())
    assert [next(read).values["a"] for _ in range(2)] == ["0" * 50, "1" * 50]
    read.close()
    asked = [range_ for method, path, range_ in hub.asked if method == "GET" and "/resolve/" in path]
    assert asked
    assert all(asked), "only parts were asked for"
    assert not list(hub_cache_files())


def hub_cache_files():
    from pathlib import Path

    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).rglob("*.parquet")


def test_offline_uses_what_was_fetched_and_asks_nobody(hub):
    hub.commit(**{"train.jsonl": lines(*ROWS), "test.jsonl": lines({"a": "t"})})
    with pytest.raises(MissingInputError, match="not fetched before") as caught:
        open_source(spec(), offline=True)
    assert caught.value.code == "E-DATA-041"
    assert "hf download owner/name --repo-type dataset" in caught.value.problems[0].fix
    assert not hub.asked
    rows(spec())
    hub.asked.clear()
    assert rows(spec(), offline=True) == ROWS
    assert rows(spec(), offline=True, streaming=True) == ROWS
    with pytest.raises(MissingInputError, match=r"not fetched: test\.jsonl") as caught:
        open_source(spec(split="test"), offline=True)
    assert f"hf download owner/name test.jsonl --repo-type dataset --revision {hub.sha}" in str(caught.value)
    assert not hub.asked


def test_the_variable_of_the_hub_means_offline_too(hub, monkeypatch):
    hub.commit(**{"train.jsonl": lines(*ROWS)})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingInputError) as caught:
        open_source(spec())
    assert caught.value.code == "E-DATA-041"
    assert not hub.asked


def test_what_the_hubs_own_tools_fetched_serves_offline(hub, cache):
    from huggingface_hub import hf_hub_download

    hub.commit(**{"train.jsonl": lines(*ROWS)})
    hf_hub_download("owner/name", "train.jsonl", repo_type="dataset", endpoint=hub.address)
    assert not (cache / "data").exists()
    assert rows(spec(), offline=True) == ROWS


def test_a_hub_that_is_down_leaves_what_was_fetched(hub, monkeypatch, caplog):
    hub.commit(**{"train.jsonl": lines(*ROWS)})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(UnavailableError) as caught:
        open_source(spec())
    assert caught.value.code == "E-DATA-040"
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    rows(spec())
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert rows(spec()) == ROWS
    assert "read as it was fetched last" in caplog.text


def test_a_dataset_that_is_not_there_is_said_so(hub):
    with pytest.raises(MissingInputError) as caught:
        open_source(spec("owner/other"))
    assert caught.value.code == "E-DATA-020"
    assert "hf://datasets/owner/other" in str(caught.value)
    assert "HF_TOKEN" in str(caught.value)


def test_a_script_is_refused(hub):
    hub.commit(**{"name.py": b"print(1)", "README.md": b"# x"})
    with pytest.raises(DataError, match="refs/convert/parquet") as caught:
        open_source(spec())
    assert caught.value.code == "E-DATA-043"
    assert fetched(hub) == ["README.md"]


def test_the_table_of_a_repository_names_files_in_it(hub):
    table = {"d": {"file_name": "part/x.jsonl"}, "w": {"hf_hub_url": "other/one"}}
    hub.commit(**{"dataset_info.json": json.dumps(table).encode(), "part/x.jsonl": lines(*ROWS), "y.jsonl": b"x"})
    first, second = resolve(["d", "w"], "REMOTE:owner/name")
    assert (first.place, first.location, first.files) == ("hf", "owner/name", "part/x.jsonl")
    assert (second.location, second.files) == ("other/one", None)
    assert rows(first) == ROWS
    hub.commit(**{"dataset_info.json": b'{"e": {"file": "x"}}'})
    with pytest.raises(DataError, match=r'owner/name/dataset_info\.json, entry "e"') as caught:
        resolve(["e"], "REMOTE:owner/name")
    assert caught.value.code == "E-DATA-021"


def test_a_repository_without_a_table_is_said_so(hub):
    hub.commit(**{"x.jsonl": lines(*ROWS)})
    with pytest.raises(MissingInputError, match=r'no file "dataset_info\.json"'):
        resolve(["d"], "REMOTE:owner/name")


# --- other hubs, and folders laid out like a repository ---


@pytest.fixture
def folder(tmp_path):
    for name, data in {
        "README.md": "---\nconfigs:\n- config_name: default\n  data_files: train.jsonl\n- config_name: de\n"
        "  data_files:\n  - split: test\n    path: de.jsonl\n---\n",
        "train.jsonl": lines(*ROWS).decode(),
        "de.jsonl": '{"a": "de"}\n',
    }.items():
        (tmp_path / "repository").mkdir(exist_ok=True)
        (tmp_path / "repository" / name).write_text(data, encoding="utf-8")
    return tmp_path / "repository"


@pytest.mark.parametrize(("subset", "split", "expected"), [(None, "train", ROWS), ("de", "test", [{"a": "de"}])])
def test_a_local_copy_of_a_repository_has_its_subsets_and_splits(folder, subset, split, expected):
    assert rows(DatasetSpec("d", str(folder), subset=subset, split=split)) == expected
    (file,) = open_source(DatasetSpec("d", str(folder), subset="de", split="test"))
    assert file.name == f"{folder}/de.jsonl"


@pytest.mark.parametrize(
    ("hub_name", "module", "function", "asked_for"),
    [
        ("modelscope", "modelscope", "dataset_snapshot_download", {"revision": "master", "cache_dir": None}),
        (
            "openmind",
            "openmind.utils.hub",
            "snapshot_download",
            {"revision": "main", "cache_dir": None, "repo_type": "dataset"},
        ),
    ],
)
def test_other_hubs_give_a_folder(folder, cache, monkeypatch, hub_name, module, function, asked_for):
    asked = []

    def download(repository, **words):
        asked.append((repository, words))
        return str(folder)

    parts = module.split(".")
    for index in range(len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[: index + 1]), ModuleType(parts[index]))
    monkeypatch.setattr(sys.modules[module], function, download, raising=False)
    one = DatasetSpec("d", "owner/name", hub_name)  # type: ignore[arg-type]
    assert rows(one) == ROWS
    assert asked == [("owner/name", asked_for)]
    with pytest.raises(MissingInputError) as caught:
        open_source(one, offline=True)
    assert caught.value.code == "E-DATA-041"
    assert len(asked) == 1


@pytest.mark.parametrize(("hub_name", "package"), [("modelscope", "modelscope"), ("openmind", "openmind")])
def test_a_missing_package_of_a_hub_is_named(cache, monkeypatch, hub_name, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MachineError) as caught:
        open_source(DatasetSpec("d", "owner/name", hub_name))  # type: ignore[arg-type]
    assert caught.value.code == "E-DATA-042"
    assert f"pip install {package}" in str(caught.value)


def test_a_hub_that_fails_is_explained(cache, monkeypatch):
    module = ModuleType("modelscope")

    def download(_repository, **_words):
        raise ValueError("no such dataset")

    module.dataset_snapshot_download = download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "modelscope", module)
    with pytest.raises(TunesmithError, match="no such dataset") as caught:
        open_source(DatasetSpec("d", "owner/name", "modelscope"))
    assert caught.value.code == "E-DATA-040"


def test_files_of_a_benchmark_are_chosen_by_their_names(hub):
    """And fetched once, unless they are asked for again; without files of their own, archives are looked into."""
    from dataclasses import replace

    from tunesmith.evaluate.benchmarks import all_benchmarks
    from tunesmith.evaluate.questions import read_subject, source_of

    benchmark = replace(all_benchmarks()["mmlu"], hub="owner/name")
    subject = next(one for one in benchmark.subjects if one.key == "anatomy")
    row = b"q,1,2,3,4,B\n"
    hub.commit(**{"dev/anatomy_dev.csv": row, "test/anatomy_test.csv": row * 2, "x/train.csv": b"no"})

    def questions(**how) -> int:
        source = source_of(benchmark, "test", None, **how)
        return len(read_subject(source, subject, ("test",)))

    assert questions(offline=False, again=False) == questions(offline=True, again=False) == 2
    assert sorted(fetched(hub)) == ["anatomy_dev.csv", "anatomy_test.csv"]
    assert questions(offline=False, again=True) == 2
    assert sorted(fetched(hub)) == ["anatomy_dev.csv", "anatomy_dev.csv", "anatomy_test.csv", "anatomy_test.csv"]
    with BytesIO() as packed:
        with ZipFile(packed, "w") as archive:
            archive.writestr("test/anatomy.csv", row * 3)
        hub.repository.clear()
        hub.commit(**{"data.zip": packed.getvalue(), "mmlu.py": b"a script"})
    assert questions(offline=False, again=False) == 3
