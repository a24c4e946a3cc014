"""docs/serving.md against the code, and its example against `tunesmith api` as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.serving import api
from tunesmith.core import env
from tunesmith.serve import embeddings, request, scores
from tunesmith.serve.app import ROUTES, TASKS
from tunesmith.serve.fields import schema_of
from tunesmith.serve.limits import LIMITS
from tunesmith.serve.parts import PARTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_the_routes_are_those_of_the_code() -> None:
    told = set(re.findall(r"`([A-Z]+ /[^`]*)`", section("Routes")))
    assert told == {f"{method} {path.replace(':path', '')}" for method, path, _ in ROUTES}


def test_fields_that_are_ignored_refused_and_read() -> None:
    text = section("What requests may ask for")
    ignored, refused, table = text.split("\n\n")[:3]
    assert set(re.findall(r"`(\w+)`", ignored)) == set(request.IGNORED)
    names = {*request._REFUSED_IN_CHAT, *request._REFUSED_IN_COMPLETIONS, *embeddings._REFUSED, "best_of", "n"}
    assert set(re.findall(r"`(\w+)`", refused)) == names
    told = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert told == request._CHAT.keys() - {"model", "messages", "modalities"}


def test_the_fields_of_scores() -> None:
    text = section("Reward models")
    told = {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert told == {*scores.EVALUATION.table, *scores.RERANK.table} - {"model"}
    assert text.count(f"{LIMITS.inputs:,}") == 2
    assert all(f"`{task}`" in text for task in set(TASKS.values()))


def test_variables_and_limits() -> None:
    for name, default in re.findall(r"^\| `([A-Z_]+)` \| (?:`(\S+)`)? ?\|", PAGE, re.MULTILINE):
        assert env.TABLE[name].default == default
    numbers = [
        int(number.replace(",", ""))
        for number in re.findall(r"[\d,]*\d", section("Who may ask").rpartition("| limit")[2])
    ]
    assert numbers == [
        LIMITS.body_bytes, LIMITS.header_bytes, LIMITS.json_depth, LIMITS.messages, LIMITS.tools, LIMITS.media,
        LIMITS.media_bytes, LIMITS.media_pixels, LIMITS.media_seconds, LIMITS.prompts, LIMITS.inputs,
        LIMITS.generation_seconds,
    ]  # fmt: skip
    assert f"for {LIMITS.drain_seconds:g} s at most" in PAGE.replace("\n", " ")


def test_parts_of_messages_that_are_media() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(\{.*\})` \| (?:an? )?(\w+)", section("Media"), re.MULTILINE)
    words = {"image": "image", "sound": "audio", "video": "video"}
    assert {name: words[kind] for name, _, kind in rows} == {name: kind for name, (kind, _) in PARTS.items()}
    for name, held, _ in rows:
        assert set(re.findall(r'"(\w+)"', held)) == set(schema_of(PARTS[name][1])["properties"])
    formats = schema_of(PARTS["input_audio"][1])["properties"]["format"]["enum"]
    assert set(re.findall(r"`(\w+)`", section("Media").partition("in base64:")[2].partition("|")[0])) == set(formats)


def get(url: str) -> int:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.slow
def test_the_example_and_the_end(tiny_model: Path, tmp_path: Path) -> None:
    with api(tiny_model) as (process, url, lines):
        assert any(line.startswith("serving tiny-llama at ") for line in lines)
        assert get(f"{url}/ready") == 200
        (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        script = tmp_path / "example.py"
        script.write_text(code.replace("http://127.0.0.1:8000", url), encoding="utf-8")
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.slow
def test_a_server_that_others_can_reach_and_has_no_right_key_does_not_start(tiny_model: Path) -> None:
    for variables in ({"API_HOST": "0.0.0.0"}, {"API_KEY": "short"}):
        command = [sys.executable, "-m", "tunesmith", "api", f"model_name_or_path={tiny_model}"]
        done = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 78, done.stderr
        assert "E-SERVE-00" in done.stderr
        assert "short" not in done.stderr


@pytest.mark.slow
def test_a_running_answer_is_finished_at_sigterm(tiny_model: Path) -> None:
    import openai

    with api(tiny_model, API_KEY="a-key-of-the-tests-1", API_MODEL_NAME="named") as (process, url, _):
        assert get(f"{url}/v1/models") == 401
        with openai.OpenAI(base_url=f"{url}/v1", api_key="a-key-of-the-tests-1") as client:
            wanted: Any = {"model": "named", "prompt": "a cat", "max_tokens": 400, "logit_bias": {"2": -100, "1": -100}}
            chunks = client.completions.create(**wanted, stream=True)
            first = next(chunks)
            process.send_signal(signal.SIGTERM)
            rest = list(chunks)
        assert first.choices[0].finish_reason is None
        assert rest[-1].choices[0].finish_reason in ("stop", "length")
        assert process.wait(30) == 0
