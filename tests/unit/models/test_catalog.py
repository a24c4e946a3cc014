"""The catalog of models: its files, what the field's names lead to, and how a name is looked up."""

from __future__ import annotations

import csv
import re
import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunesmith.models import catalog
from tunesmith.models.catalog import TAGS, all_models, default_template, fallback_template, find, find_id, suggestion
from tunesmith.render.slot_files import load_slots, raw_template, template_names

FOLDER = Path(catalog.__file__).parents[1] / "catalog" / "models"
FILES = sorted(FOLDER.glob("*.yaml"))

TEXT = re.compile(r"\S(.*\S)?")
NAME = re.compile(r"[\w.-]+")
PLACE = re.compile(r"[\w.-]+\.\w+/[\w.-]+/\S")  # an address on the web
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
SIZE = re.compile(r"(E|\d+x)?\d+(\.\d+)?[BM]")
REQUIRED = {"hf", "tags"}
PATTERNS = {
    "hf": REPOSITORY,
    "modelscope": REPOSITORY,
    "openmind": REPOSITORY,
    "template": NAME,
    "size": SIZE,
    "active": SIZE,
    "source": NAME,
}
LISTS = {"tags", "aliases"}

# Where the reference is wrong, by what the same row's other ids and the other sources say.
CORRECTED = {
    ("Gemma-7B", "modelscope"): "AI-ModelScope/gemma-7b",
    ("Gemma-2B-Instruct", "modelscope"): "AI-ModelScope/gemma-2b-it",
    ("Qwen2.5-Math-1.5B-Instruct", "modelscope"): "Qwen/Qwen2.5-Math-1.5B-Instruct",
    ("Qwen2.5-Math-7B-Instruct", "modelscope"): "Qwen/Qwen2.5-Math-7B-Instruct",
    ("Qwen2.5-Math-72B-Instruct", "modelscope"): "Qwen/Qwen2.5-Math-72B-Instruct",
    ("Falcon-H1-1.5B-Deep-Base", "hf"): "tiiuae/Falcon-H1-1.5B-Deep-Base",
}
# Chat models whose group has a template, which the reference withholds because of the spelling of their names.
TEMPLATES_OF_THE_GROUP = {
    "Phi-3.5-MoE-42B-A6.6B-instruct": "phi",
    "Phi-4-3.8B-instruct": "phi4_mini",
    "GLM-4.7-Flash": "glm4_7",
    "Granite-4.0-tiny-preview": "granite4",
    "Hy3-Preview": "hy3",
    "MiMo-V2-Flash": "mimo_v2",
    "MiMo-7B-RL-ZERO": "mimo",
    "VibeThinker-1.5B": "qwen3",
}
# Models whose own template the catalog has as another one than the reference gives them.
OWN_TEMPLATE = {
    "Llama-3.1-8B-Instruct": "llama3_1",
    "Llama-3.1-70B-Instruct": "llama3_1",
    "Llama-3.1-405B-Instruct": "llama3_1",
    "Llama-3.3-70B-Instruct": "llama3_1",
    "Llama-3.2-1B-Instruct": "llama3_2",
    "Llama-3.2-3B-Instruct": "llama3_2",
    "Phi-3.5-4B-instruct": "phi3_5",
    "QwQ-32B-Instruct": "qwq",
    "Devstral-Small-2507-Instruct": "devstral",
    "LFM2.5-1.2B-Instruct": "lfm2_5",
    "MiniCPM5-1B-Chat": "minicpm5",
}


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def faults(file: Any) -> list[str]:
    """Everything in which a file departs from the schema."""
    if not isinstance(file, dict) or set(file) != {"maker", "source", "families"}:
        return ["keys: maker, source, families"]
    found = []
    if not (isinstance(file["maker"], str) and TEXT.fullmatch(file["maker"])):
        found.append("maker must be text")
    sources = file["source"]
    if not (sources and all(NAME.fullmatch(name) and PLACE.match(text) for name, text in sources.items())):
        found.append("source: name -> a public place")
    for family, models in file["families"].items():
        if not (isinstance(family, str) and models):
            found.append(f"{family}: a family is a name with models")
        for name, entry in models.items():
            found += [f"{name}: {fault}" for fault in entry_faults(name, entry, sources)]
    return found


def entry_faults(name: Any, entry: dict[str, Any], sources: dict[str, str]) -> list[str]:
    found = [f"unknown key {key}" for key in entry if key not in PATTERNS and key not in LISTS]
    found += [f"{key} is missing" for key in REQUIRED - set(entry)]
    for key, pattern in PATTERNS.items():
        value = entry.get(key, None if key in entry else "")
        if key in entry and not (isinstance(value, str) and pattern.fullmatch(value)):
            found.append(f"{key}: {value!r}")
    for key in LISTS & set(entry):
        items = entry[key]
        if not (isinstance(items, list) and items and len(set(items)) == len(items)):
            found.append(f"{key} must be a list without repetition")
    tags = entry.get("tags", [])
    if tags != [
        tag for tag in ("base", "instruct", "vision", "video", "audio", "moe", "reasoning", "quantized") if tag in tags
    ]:
        found.append(f"tags {tags}: unknown, or not in the usual order")
    if {"base", "instruct"} <= set(tags):
        found.append("base and instruct at once")
    if not (isinstance(name, str) and NAME.fullmatch(name)):
        found.append("a name has no slash and no blanks")
    if entry.get("source", next(iter(sources))) not in sources:
        found.append("its source is not in the file")
    if entry.get("source") == next(iter(sources)):
        found.append("the first source goes without saying")
    return found


# ---- the files ----


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_follows_the_schema(path: Path) -> None:
    assert faults(read(path)) == []
    assert path.read_text(encoding="utf-8").startswith("# Models of ")


GOOD = {"hf": "a/b", "tags": ["base"]}


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (GOOD, None),
        ({**GOOD, "tag": ["base"]}, "unknown key"),
        ({"hf": "a/b"}, "missing"),
        ({**GOOD, "hf": "b"}, "hf"),
        ({**GOOD, "size": "big"}, "size"),
        ({**GOOD, "size": 7}, "size"),
        ({**GOOD, "template": None}, "template"),
        ({**GOOD, "tags": ["large"]}, "tags"),
        ({**GOOD, "tags": ["base", "instruct"]}, "at once"),
        ({**GOOD, "source": "elsewhere"}, "source"),
        ({**GOOD, "source": "here"}, "without saying"),
    ],
)
def test_the_schema_is_strict(entry: dict[str, Any], fault: str | None) -> None:
    file = {"maker": "M", "source": {"here": "github.com/a/b"}, "families": {"F": {"F-1B": entry}}}
    found = " ".join(faults(file))
    assert fault in found if fault else not found
    assert faults({**file, "extra": 1}) == ["keys: maker, source, families"]


def test_no_name_id_or_alias_is_there_twice() -> None:
    models = all_models()
    words = Counter(word.lower() for model in models for word in (model.name, *model.aliases))
    assert [word for word, count in words.items() if count > 1] == []
    ids = Counter(model.hf.lower() for model in models)
    assert [repository for repository, count in ids.items() if count > 1] == []
    # The last part of an id is a name too; where it is another model's name or part, it would be a guess.
    for model in models:
        found = find(model.hf.rpartition("/")[2])
        assert found is model, f"{model.hf} and {found and found.hf}"


def test_tags_of_the_files_are_those_of_the_code() -> None:
    assert {tag for model in all_models() for tag in model.tags} == set(TAGS)


def test_every_template_is_in_the_catalog_and_can_be_used() -> None:
    named = {model.template for model in all_models() if model.template}
    assert sorted(named - set(template_names())) == []
    for name in named:
        assert load_slots(name).name == name


# ---- the field's names ----


@pytest.fixture(scope="module")
def rows(assets: Path) -> list[dict[str, str]]:
    path = assets.parent / "reference" / "model_ids.tsv"
    if not path.is_file():
        pytest.skip(f"no {path.name} beside the assets")
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_every_name_of_the_reference_is_there_with_its_ids(rows: list[dict[str, str]]) -> None:
    assert len(rows) == 634
    for row in rows:
        model = find(row["name"]) or find_id(row["name"])  # one name of the reference is a whole id
        assert model, row["name"]
        assert model.name == row["name"].removeprefix("Qwen/")
        for hub in ("hf", "modelscope", "openmind"):
            expected = CORRECTED.get((model.name, hub), row[f"{hub}_id"] or None)
            assert model.id_on(hub) == expected, (model.name, hub)
        template = (OWN_TEMPLATE | TEMPLATES_OF_THE_GROUP).get(model.name, row["template"] or None)
        assert model.template == template, model.name
        if row["multimodal"] and model.name != "MedGemma-27B-Instruct":  # google/medgemma-27b-text-it
            assert {"vision", "audio"} & set(model.tags), model.name
        else:
            assert not {"vision", "video", "audio"} & set(model.tags), model.name


def test_corrections_and_additions_are_of_the_reference(rows: list[dict[str, str]]) -> None:
    by_name = {row["name"]: row for row in rows}
    for (name, hub), right in CORRECTED.items():
        assert by_name[name][f"{hub}_id"] not in {"", right}
    for name in TEMPLATES_OF_THE_GROUP:
        assert by_name[name]["template"] == ""
    for name, template in OWN_TEMPLATE.items():
        assert by_name[name]["template"] != template
        assert raw_template(template)["verified"] == "official"


# ---- sizes and tags ----


@pytest.mark.parametrize(
    ("name", "size", "active", "tags"),
    [
        ("Qwen2.5-0.5B", "0.5B", None, {"base"}),
        ("Qwen2.5-7B-Instruct-1M", "7B", None, {"instruct"}),
        ("Qwen3-30B-A3B-Thinking-2507", "30B", "3B", {"instruct", "moe", "reasoning"}),
        ("Qwen2-7B-Instruct-AWQ", "7B", None, {"instruct", "quantized"}),
        ("BLOOM-7B1", "7.1B", None, {"base"}),
        ("Mixtral-8x7B-v0.1-Instruct", "8x7B", None, {"instruct", "moe"}),
        ("Llama-4-Scout-17B-16E", None, "17B", {"base", "moe", "vision"}),
        ("Kimi-VL-A3B-Instruct", None, "3B", {"instruct", "moe", "vision"}),
        ("Gemma-3n-E2B-Instruct", "E2B", None, {"instruct", "vision", "audio"}),
        ("Qwen2-Audio-7B-Instruct", "7B", None, {"instruct", "audio"}),
        ("Granite-3.0-1B-A400M-Base", "1B", "400M", {"base", "moe"}),
        ("GPT-OSS-20B-Thinking", "20B", None, {"instruct", "moe", "reasoning"}),
        ("MedGemma-27B-Instruct", "27B", None, {"instruct"}),
    ],
)
def test_size_and_tags_follow_from_the_name(name: str, size: str | None, active: str | None, tags: set[str]) -> None:
    model = find(name)
    assert model
    assert (model.size, model.active, set(model.tags)) == (size, active, tags)


# ---- lookup ----


@pytest.mark.parametrize(
    ("word", "repository"),
    [
        ("Qwen3-4B-Instruct-2507", "Qwen/Qwen3-4B-Instruct-2507"),
        ("qwen3-4b-instruct-2507", "Qwen/Qwen3-4B-Instruct-2507"),
        ("Qwen3-4B-Instruct", "Qwen/Qwen3-4B-Instruct-2507"),  # an alias
        ("Qwen3-4B", "Qwen/Qwen3-4B"),  # the last part of the id of Qwen3-4B-Thinking
        ("gpt2", "openai-community/gpt2"),
        ("Falcon-H1-1.5B-Deep-Base", "tiiuae/Falcon-H1-1.5B-Deep-Base"),
    ],
)
def test_a_name_leads_to_a_repository(word: str, repository: str) -> None:
    model = find(word)
    assert model
    assert model.hf == repository


def test_an_id_leads_back_on_every_hub() -> None:
    by_hub = [
        find_id(name) for name in ("zai-org/glm-4-9b-chat", "ZhipuAI/GLM-4-9B-chat", "LlamaFactory/glm-4-9b-chat")
    ]
    assert [model and model.name for model in by_hub] == ["GLM-4-9B-Chat"] * 3
    assert find_id("somebody/else") is None
    assert find("no-such-model") is None


def test_a_near_miss_is_answered_with_what_looks_alike() -> None:
    assert "Qwen2.5-7B-Instruct" in str(suggestion("Qwen2.5-7B-Instuct"))
    assert "Qwen/Qwen2.5-7B-Instruct" in str(suggestion("Qwn/Qwen2.5-7B-Instruct"))
    assert str(suggestion("Qwen3-4B-Instuct")).startswith('did you mean "Qwen3-4B-Instruct"'), "an alias"
    assert suggestion("x") is None
    assert suggestion("gpt2") is None, "it is there"


# ---- default template ----


def test_default_template_of_names_ids_and_copies() -> None:
    assert default_template("Qwen3-4B-Thinking") == "qwen3"
    assert default_template("Qwen/Qwen3-4B") == "qwen3"
    assert default_template("somebody/Qwen2.5-7B-Instruct") == "qwen"
    assert default_template("Qwen2.5-7B") is None, "a base model"
    assert default_template("somebody/something") is None


def test_default_template_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    assert default_template(str(folder)) is None
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert default_template(str(folder)) is None
    (folder / "config.json").write_text('{"_name_or_path": "meta-llama/Llama-2-7b-chat-hf"}')
    assert default_template(str(folder)) == "llama2"
    (folder / "config.json").write_text('{"_name_or_path": 1}')
    assert default_template(str(folder)) is None
    (folder / "config.json").write_text("not json")
    assert default_template(str(folder)) is None, "the loader says what is wrong with the file"
    folder.rename(tmp_path / "vicuna-7b-v1.5")
    assert default_template(str(tmp_path / "vicuna-7b-v1.5")) == "vicuna", "downloads keep the repository's name"


def test_only_templates_that_exist_are_fallbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fallback_template("Qwen/Qwen3-4B") == "qwen3"
    assert fallback_template(None) is None
    assert fallback_template("somebody/something") is None
    with monkeypatch.context() as patch:
        patch.setattr("tunesmith.render.slot_files.raw_template", lambda name: {"source": "missing"})
        assert fallback_template("Qwen/Qwen3-4B") is None
    monkeypatch.setattr("tunesmith.render.slot_files.template_names", lambda: ("default",))
    assert fallback_template("Qwen/Qwen3-4B") is None


# ---- the page ----


def test_the_page_is_that_of_the_catalog() -> None:
    root = Path(__file__).resolve().parents[3]
    page = runpy.run_path(str(root / "scripts" / "generate_models_doc.py"))["page"]()
    found = (root / "docs" / "models.md").read_text(encoding="utf-8")
    assert found == page, "run: python scripts/generate_models_doc.py"
    for model in all_models():
        assert model.name in page
