"""`tunesmith chat` with real models: both sides of a comparison, and the prompt as it is sent."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.errors import UsageError
from tunesmith.engines.conversation import Conversation

GREEDY = {"temperature": 0, "max_new_tokens": 12}


@pytest.fixture(scope="module", params=["lora", "dora", "full"])
def trained(request: pytest.FixtureRequest, tiny_model: Path, tiny_data: Path, tmp_path_factory) -> dict[str, Any]:
    """Keys of a training that has ended: an adapter that mixes with its base in one batch, one that cannot, weights."""
    keys = {"model_name_or_path": str(tiny_model), "dataset": "new", "dataset_dir": str(tiny_data), "max_steps": 6}
    keys |= {"learning_rate": 2e-2, "use_cpu": True, "output_dir": str(tmp_path_factory.mktemp(request.param) / "out")}
    keys |= {"finetuning_type": "full" if request.param == "full" else "lora", "save_strategy": "no", "do_train": True}
    keys |= {"use_dora": True} if request.param == "dora" else {}
    tunesmith.train(keys)
    return keys


def answer(conversation: Conversation) -> str:
    return conversation.ask("Who are you?", **GREEDY)


@pytest.mark.slow
def test_a_comparison_answers_as_base_and_tuned_do(trained: dict[str, Any], tiny_model: Path) -> None:
    with tunesmith.chat(model_name_or_path=str(tiny_model), use_cpu=True) as base, tunesmith.chat(trained) as tuned:
        wanted = {"base": answer(base), "tuned": answer(tuned)}
    assert wanted["base"] != wanted["tuned"]
    chats = tunesmith.compare(trained)
    try:
        assert {name: answer(conversation) for name, conversation in chats.items()} == wanted
        together = chats["base"].engine is chats["tuned"].engine
        assert together == (trained["finetuning_type"] == "lora" and "use_dora" not in trained)
    finally:
        for conversation in chats.values():
            conversation.close()


def test_nothing_to_compare_is_an_error(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="E-CLI-022"):
        tunesmith.compare(model_name_or_path=str(tiny_model), use_cpu=True)


def test_the_prompt_is_shown_as_it_is_sent(tiny_model: Path) -> None:
    with tunesmith.chat(model_name_or_path=str(tiny_model), use_cpu=True) as conversation:
        assert conversation.prompt() == []
        conversation.system = "Be brief."
        before = conversation.prompt("Who are you?")
        list(conversation.stream("Who are you?", **GREEDY))
        tokenizer = conversation.engine.tokenizer  # type: ignore[attr-defined]
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
        truth = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        assert before == conversation.prompt() == truth


@pytest.mark.slow
def test_a_pipe_is_answered_and_saved_as_a_row_that_trains(tiny_model: Path, tmp_path: Path) -> None:
    row = tmp_path / "row.json"
    lines = f'/system Be brief.\n"""\nWho\nare you?\n"""\nAnd now?\n/save {row}\n'
    command = [sys.executable, "-m", "tunesmith", "chat", f"model_name_or_path={tiny_model}", "use_cpu=true"]
    command += ["max_new_tokens=5", "temperature=0"]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    saved = json.loads(row.read_text())["messages"]
    assert [(one["role"], one["content"]) for one in saved[:2]] == [("system", "Be brief."), ("user", "Who\nare you?")]
    assert "\n".join(one["content"] for one in saved if one["role"] == "assistant") == done.stdout.rstrip("\n")
    keys = {"model_name_or_path": str(tiny_model), "dataset": str(row), "output_dir": str(tmp_path / "out")}
    result = tunesmith.train(keys, max_steps=1, use_cpu=True, do_train=True)
    assert result.metrics["train_trained_tokens"] > 0
