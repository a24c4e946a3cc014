"""The programs of examples/api, run as they are: against an engine that says what was written down, and a real one."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.seeing import seeing_model
from tests.serving import ScriptedEngine, say, serving
from tunesmith.config import load_config
from tunesmith.engines import make_engine
from tunesmith.render import make_renderer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("torch_one_thread")]
EXAMPLES = ROOT / "examples" / "api"


def run(name: str, url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / name), "--base-url", f"{url}/v1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def with_tools(tiny_model: Path, replies: Iterator[str]) -> ScriptedEngine:
    engine = ScriptedEngine(tiny_model, lambda request: [next(replies)])
    engine.renderer = make_renderer(replace(engine.config.template, template="qwen"), engine.tokenizer)
    return engine


def call(**arguments: Any) -> str:
    told = json.dumps({"name": "grade_point_average", "arguments": arguments})
    return f"<tool_call>\n{told}\n</tool_call>"


def test_a_call_that_is_wrong_is_corrected_by_the_model(tiny_model: Path) -> None:
    replies = iter(
        [
            call(grades=["A", "E"], hours=[3, 1]),
            call(grades=["A", "B"], hours=[3]),
            call(grades=["A", "B"], hours=[3, 1]),
            "It is 3.75.",
        ]
    )
    engine = with_tools(tiny_model, replies)
    with serving(engine) as (url, _):
        ended = run("tool_call.py", url, "--model", "tiny", "What is my GPA?")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "It is 3.75.\n"
    prompts = [engine.tokenizer.decode(list(request.prompt)) for request in engine.requests]
    assert "there is no grade 'E'; the grades are A, B, C, D, F" in prompts[1]
    assert "there are 2 grades and 1 hours; give as many hours as grades" in prompts[2]
    assert '"result": 3.75' in prompts[3]


def test_a_model_that_never_answers_is_given_up(tiny_model: Path) -> None:
    engine = with_tools(tiny_model, iter([call(grades=[], hours=[])] * 9))
    with serving(engine) as (url, _):
        ended = run("tool_call.py", url, "--model", "tiny", "What is my GPA?")
    assert ended.returncode == 1
    assert "has not answered" in ended.stderr
    assert "without any grade there is no average" in ended.stderr


@pytest.mark.parametrize(
    ("name", "arguments", "word"),
    [
        ("other", "{}", "no function 'other'"),
        ("grade_point_average", "{", "no JSON"),
        ("grade_point_average", '{"grades": ["A"]}', "grades and hours"),
        ("grade_point_average", '{"grades": "A", "hours": [1]}', "lists"),
        ("grade_point_average", '{"grades": ["A"], "hours": ["x"]}', "numbers above 0"),
        ("grade_point_average", '{"grades": ["A"], "hours": [0]}', "numbers above 0"),
        ("grade_point_average", '{"grades": [["A"]], "hours": [1]}', "no grade"),
    ],
)
def test_every_mistake_has_its_words(name: str, arguments: str, word: str) -> None:
    spec = importlib.util.spec_from_file_location("tool_call_example", EXAMPLES / "tool_call.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert word in module.result_of(name, arguments)["error"]
    assert module.result_of("grade_point_average", '{"grades": ["A", "F"], "hours": [1, 3]}') == {"result": 1.0}


def test_a_stream_is_printed(tiny_model: Path) -> None:
    with serving(ScriptedEngine(tiny_model, say("<think>\nhm\n</think>\n\n", "Fish ", "and milk."))) as (url, _):
        ended = run("streaming.py", url, "--model", "tiny", "What does a cat like?")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "Fish and milk."
    assert ended.stderr.startswith("hm")
    assert "tokens)" in ended.stderr


def test_each_adapter_answers(tiny_model: Path) -> None:
    engine = ScriptedEngine(tiny_model, lambda request: [f"I am {request.adapter}."])
    engine.known = {"poet": "somewhere", "clerk": "elsewhere"}
    with serving(engine) as (url, _):
        ended = run("adapters.py", url, "Who are you?")
    assert ended.stdout == "--- tiny\nI am None.\n--- poet\nI am poet.\n--- clerk\nI am clerk.\n", ended.stderr


def test_a_small_model_is_held_to_the_form(tiny_model: Path) -> None:
    engine = make_engine(load_config({"model_name_or_path": str(tiny_model), "use_cpu": True}, verb="api"))
    with serving(engine) as (url, _):
        ended = run("structured_output.py", url, "--model", "tiny", "A cat of three years.")
        short = run("structured_output.py", url, "--model", "tiny", "--max-tokens", "2", "A cat of three years.")
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[1].rstrip(",") in ("cat", "dog", "bird")
    assert "raise --max-tokens" in short.stderr


def test_a_picture_is_asked_about(tiny_model: Path, stories: Path, tmp_path: Path) -> None:
    model = seeing_model(tmp_path / "sees", stories)
    engine = make_engine(load_config({"model_name_or_path": str(model), "use_cpu": True}, verb="api"))
    asked = "--model", "tiny", "--max-tokens", "3", "The color is"
    with serving(engine) as (url, _):
        ended = run("picture.py", url, *asked)
    assert ended.returncode == 0, ended.stderr
    assert 16 < int(ended.stdout.splitlines()[-1].split()[0]) < 30
    with serving(ScriptedEngine(tiny_model, say("A square."))) as (url, _):
        ended = run("picture.py", url, *asked)
    assert ended.returncode == 1
    assert ended.stderr.startswith("unsupported_content_type: ")
