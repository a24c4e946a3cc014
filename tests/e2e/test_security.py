"""Names that a shell would read as more than names, and secrets that nothing may show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.serving import api

pytestmark = pytest.mark.slow

HOSTILE = ["""it's a "b"; touch canary &&""", "$(touch canary)`touch canary`", "-x \u00fc\u202e*?"]
"""Names of folders and files. None of them is a command."""


def tunesmith(*words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tunesmith", *words]
    environment = {
        **os.environ,
        "TUNESMITH_HOME": str(cwd / "home"),
        "TUNESMITH_CACHE": str(cwd / "cache"),
        **variables,
    }
    how: Any = {"cwd": cwd, "env": environment, "capture_output": True, "text": True, "timeout": 240, "check": False}
    return subprocess.run(command, **how)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_a_name(name: str, tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Of a model, a dataset, a config and an output folder, on the command line and in a config, through a run, a queue
    and a merge (S10)."""
    shutil.copytree(tiny_model, tmp_path / name / "model")
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / name / "rows.jsonl").write_text(json.dumps(row) + "\n")
    keys = {"model_name_or_path": f"./{name}/model", "dataset": f"./{name}/rows.jsonl", "output_dir": f"./{name}/out"}
    keys |= {"max_steps": 1, "use_cpu": True, "save_strategy": "no", "run_name": name}
    config = tmp_path / name / "run.yaml"
    config.write_text(yaml.safe_dump(keys, allow_unicode=True))
    done = tunesmith("train", f"./{name}/run.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / name / "out"
    assert (out / "adapter_config.json").is_file()
    for words in (
        ["runs", "show", f"./{name}/out"],
        ["export", f"./{name}/run.yaml", f"export_dir=./{name}/merged", f"--output_dir=./{name}/out"],
        ["queue", "add", "--no-start", f"./{name}/run.yaml", f"output_dir=./{name}/queued"],
    ):
        done = tunesmith(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = tunesmith("queue", "run", "--once", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name / "queued" / "adapter_config.json").is_file()
    assert not list(tmp_path.rglob("canary"))


SECRETS = {
    "HF_TOKEN": "hf_CANARYenvironment0000000000000001",
    "API_KEY": "CANARY-api-key-0000000000002",
    "REMOTE_API_KEY": "CANARY-remote-key-00000000003",
    "WANDB_API_KEY": "CANARYwandb000000000000000000000000000004",
    "AWS_SECRET_ACCESS_KEY": "CANARYaws00000000000000000000000000000005",
    "OPENAI_API_KEY": "sk-CANARYopenai00000000000000000006",
}
KEYS = {
    "hf_hub_token": "hf_CANARYconfig00000000000000000000007",
    "ms_hub_token": "CANARY-ms-token-0000000000000008",
    "om_hub_token": "CANARY-om-token-0000000000000009",
    "hub_token": "hf_CANARYhub000000000000000000000010",
}
IN_AN_ADDRESS = "https://someone:CANARYpassword011@127.0.0.1:9/rows.jsonl?token=CANARYquery012"


def test_no_secret_is_shown_or_kept(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> None:
    """Twelve secrets by every way that one can be given; commands that work and commands that fail (S11)."""
    keys = {"model_name_or_path": str(tiny_model), "dataset": "new", "dataset_dir": str(tiny_data), "max_steps": 1}
    keys |= {"output_dir": str(tmp_path / "out"), "use_cpu": True, "save_strategy": "steps", "save_steps": 1}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({**keys, **KEYS}))
    ways = [
        ["config", "show", "run.yaml"],
        ["config", "show", "run.yaml", "--json"],
        ["config", "check", "run.yaml", "learning_rate=fast"],
        ["config", "check", "run.yaml", f"hf_hub_tokn={KEYS['hf_hub_token']}"],
        ["env"],
        ["train", "run.yaml"],
        ["train", "run.yaml", "learning_rate=1"],  # a resume that is refused
        ["train", "run.yaml", f"dataset={IN_AN_ADDRESS}", "output_dir=other"],
        ["train", "run.yaml", "model_name_or_path=nobody/nothing", "output_dir=other"],
        ["runs", "ls"],
        ["runs", "show", "out"],
        ["runs", "show", "out", "--json"],
        ["export", "run.yaml", "export_dir=merged"],
        ["predict", "run.yaml", "output_dir=predicted", "max_new_tokens=2"],
        ["chat", "infer_backend=remote", "remote_url=http://127.0.0.1:9/v1", "remote_retries=0"],
        ["queue", "add", "--no-start", "run.yaml", f"hub_token={KEYS['hub_token']}", "output_dir=queued"],
        ["queue", "ls", "--json"],
        ["train", "run.yaml", "--debug", "model_name_or_path=nowhere", f"hf_hub_token={KEYS['hf_hub_token']}"],
    ]
    said = []
    for words in ways:
        done = tunesmith(*words, cwd=tmp_path, **SECRETS)
        assert done.returncode != 70, done.stderr
        said.append((" ".join(words[:2]), done.stdout + done.stderr))
    for words, text in said:
        assert "CANARY" not in text, (words, text)
    kept = [
        path
        for path in tmp_path.rglob("*")
        if path.is_file() and path != config and "home" not in path.parts and b"CANARY" in path.read_bytes()
    ]
    assert not kept
    for path in (tmp_path / "home").rglob("*"):  # what a job was told, in a folder that is its user's alone
        if path.is_file() and b"CANARY" in path.read_bytes():
            assert (tmp_path / "home" / "queue").stat().st_mode & 0o077 == 0, path
            assert path.is_relative_to(tmp_path / "home" / "queue")


def test_a_server_shows_no_secret(tiny_model: Path, tmp_path: Path) -> None:
    given = {**SECRETS, "TUNESMITH_HOME": str(tmp_path)}
    with api(tiny_model, f"hf_hub_token={KEYS['hf_hub_token']}", **given) as (_, url, lines):
        said = []
        for path, key in [
            ("/health", ""),
            ("/metrics", SECRETS["API_KEY"]),
            ("/v1/models", "wrong"),
            ("/openapi.json", SECRETS["API_KEY"]),
        ]:
            asked = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {key}"})
            try:
                with urllib.request.urlopen(asked, timeout=20) as answer:
                    said.append(answer.read().decode() + str(answer.headers))
            except urllib.error.HTTPError as error:
                said.append(error.read().decode() + str(error.headers))
                error.close()
    assert "CANARY" not in "".join([*said, *lines])
