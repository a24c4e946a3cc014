"""`tunesmith models`: what is listed, found and shown, and that it fits a terminal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tunesmith.__main__ import main
from tunesmith.models.catalog import all_models


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Exit code, standard output and standard error of `tunesmith models ...`."""

    def call(*words: str) -> tuple[int, str, str]:
        code = main(["models", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def names(text: str) -> list[str]:
    """First words of the lines of a table, without wrapped lines and the count."""
    return [line.split()[0] for line in text.splitlines()[:-1] if not line.startswith(" ")]


def test_list_shows_every_model_in_eighty_columns(run: Any) -> None:
    code, out, _ = run("list")
    assert code == 0
    assert names(out) == [model.name for model in all_models()]
    assert out.splitlines()[-1] == f"{len(all_models())} models"
    assert max(map(len, out.splitlines())) <= 80


def test_list_says_template_and_tags(run: Any) -> None:
    _, out, _ = run("list", "--family", "Qwen3-Next")
    assert out.splitlines() == [
        "Qwen3-Next-80B-A3B-Thinking  qwen3          moe reasoning",
        "Qwen3-Next-80B-A3B-Instruct  qwen3_nothink  moe",
        "2 models",
    ]


def test_json_has_everything(run: Any) -> None:
    _, out, _ = run("list", "--json")
    rows = json.loads(out)
    assert len(rows) == len(all_models())
    (row,) = [row for row in rows if row["name"] == "Gemma-2-2B-Instruct"]
    assert row.pop("source").startswith("github.com/hiyouga/LlamaFactory")
    assert row == {
        "name": "Gemma-2-2B-Instruct",
        "family": "Gemma-2",
        "maker": "Google",
        "hf": "google/gemma-2-2b-it",
        "modelscope": "LLM-Research/gemma-2-2b-it",
        "openmind": "LlamaFactory/gemma-2-2b-it",
        "template": "gemma2",
        "size": "2B",
        "tags": ["instruct"],
    }


@pytest.mark.parametrize(
    "words",
    [
        ["--tag", "vision", "--tag", "moe"],
        ["--tag=vision,moe"],
        ["tag=Vision", "--tag", "MOE", "--json"],
    ],
)
def test_every_tag_must_be_there(run: Any, words: list[str]) -> None:
    _, out, _ = run("list", *words)
    found = [row["name"] for row in json.loads(out)] if "--json" in words else names(out)
    assert found == [model.name for model in all_models() if {"vision", "moe"} <= set(model.tags)]
    assert found


def test_templates_and_families_are_found_in_any_case(run: Any) -> None:
    assert names(run("list", "--template", "VICUNA")[1]) == ["Vicuna-v1.5-7B-Chat", "Vicuna-v1.5-13B-Chat"]
    assert names(run("list", "--family", "qwq")[1]) == ["QwQ-32B-Preview-Instruct", "QwQ-32B-Instruct"]


def test_search_looks_at_names_makers_and_ids(run: Any) -> None:
    assert names(run("search", "coder", "7b", "--tag", "instruct", "--family", "Qwen2.5-Coder")[1]) == [
        "Qwen2.5-Coder-7B-Instruct"
    ]
    assert names(run("search", "QWEN3-4B-INSTRUCT")[1]) == ["Qwen3-4B-Instruct-2507"]
    assert names(run("search", "upstage", "instruct")[1]) == ["SOLAR-10.7B-Instruct-v1.0"]
    assert names(run("search", "LLM-Research/Phi-4-mini")[1]) == ["Phi-4-3.8B-instruct"]


def test_nothing_found_is_exit_code_1_with_a_suggestion(run: Any) -> None:
    code, out, err = run("search", "Qwen2.5-7B-Instuct")
    assert (code, out) == (1, "0 models\n")
    assert '"Qwen2.5-7B-Instruct"' in err
    assert run("search", "no-such-thing", "--json")[:2] == (1, "[]\n")


@pytest.mark.parametrize("name", ["Qwen3-4B-Instruct", "qwen3-4b-instruct-2507", "Qwen/Qwen3-4B-Instruct-2507"])
def test_show_takes_names_aliases_and_ids(run: Any, name: str) -> None:
    code, out, _ = run("show", name)
    assert code == 0
    facts = dict(line.strip().split("  ", 1) for line in out.splitlines()[1:-1])
    assert out.splitlines()[0] == "Qwen3-4B-Instruct-2507"
    assert facts["Hugging Face"].strip() == "Qwen/Qwen3-4B-Instruct-2507"
    assert facts["also called"].strip() == "Qwen3-4B-Instruct"
    assert facts["template"].strip() == "qwen3_nothink"
    assert json.loads(run("show", name, "--json")[1])["hf"] == "Qwen/Qwen3-4B-Instruct-2507"


def test_everything_that_is_shown_fits(run: Any) -> None:
    for model in all_models()[::20]:
        assert max(map(len, run("show", model.name)[1].splitlines())) <= 80, model.name
    for words in (["--help"], ["list", "--help"], ["search", "--help"], ["show", "--help"]):
        assert max(map(len, run(*words)[1].splitlines())) <= 80, words


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["show", "Qwen2.5-7B-Instuct"], "E-CLI-017", '"Qwen2.5-7B-Instruct"'),
        (["show", "zzz"], "E-CLI-017", "models search"),
        (["show"], "E-CLI-016", "which model?"),
        (["show", "a", "b"], "E-CLI-016", "which model?"),
        (["search"], "E-CLI-016", "which words?"),
        (["list", "qwen"], "E-CLI-002", "models search qwen"),
        (["list", "--tag", "visoin"], "E-CLI-018", 'did you mean "vision"'),
        (["list", "--template", "qwen9"], "E-CLI-018", 'did you mean "qwen'),
        (["list", "--family", "xyz"], "E-CLI-018", "one of: "),
        (["list", "--tga", "vision"], "E-CLI-003", 'did you mean "--tag"'),
        (["list", "--tag"], "E-CLI-003", "needs a value"),
        (["show", "--tag", "x"], "E-CLI-003", "unknown option"),
        (["shwo"], "E-CLI-001", 'did you mean "show"'),
    ],
)
def test_mistakes_are_named_with_a_way_out(run: Any, words: list[str], code: str, told: str) -> None:
    status, _, err = run(*words)
    assert status == 2
    assert code in err
    assert told in err
