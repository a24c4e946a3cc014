"""Answers of a prediction are kept one by one, and found again by whoever goes on."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.core.errors import StorageError
from tunesmith.evaluate.answers import FOLDER, Answers, claim
from tunesmith.models.digest import weights_digest

OF = {"weights": "w", "sampling": {"top_p": 0.7, "seed": 1}}


def answer(text: str) -> dict[str, str]:
    return {"predict": text}


def test_answers_of_all_processes_are_found(tmp_path: Path) -> None:
    claim(tmp_path, OF)
    for rank in range(3):
        with Answers(tmp_path, rank) as answers:
            answers.add(rank, answer("\u2028 é\n" * rank))
            answers.add(10 + rank, answer("b"))
    claim(tmp_path, OF)
    found = Answers(tmp_path, 0).known
    assert found == {rank: answer("\u2028 é\n" * rank) for rank in range(3)} | dict.fromkeys((10, 11, 12), answer("b"))


@pytest.mark.parametrize("cut", range(1, 24))
def test_a_torn_line_is_asked_again(cut: int, tmp_path: Path) -> None:
    """Wherever in the last line a crash comes."""
    claim(tmp_path, OF)
    with Answers(tmp_path, 0) as answers:
        answers.add(0, answer("a"))
        answers.add(7, answer("bé"))
    file = tmp_path / FOLDER / "0.jsonl"
    last = len(file.read_bytes().splitlines(keepends=True)[-1])
    assert cut < last
    os.truncate(file, file.stat().st_size - cut)
    with Answers(tmp_path, 0) as answers:
        assert answers.known == {0: answer("a")}
        answers.add(7, answer("c"))
    assert Answers(tmp_path, 1).known == {0: answer("a"), 7: answer("c")}


def test_what_follows_a_hole_does_not_count(tmp_path: Path) -> None:
    """After a power cut a file may be as long as it was, with zeros in it."""
    claim(tmp_path, OF)
    with Answers(tmp_path, 0) as answers:
        for row in range(3):
            answers.add(row, answer("a"))
    file = tmp_path / FOLDER / "0.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + bytes(len(lines[1])) + lines[2])
    assert Answers(tmp_path, 0).known == {0: answer("a")}


def test_answers_to_other_questions_are_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    claim(tmp_path, OF)
    with Answers(tmp_path, 0) as answers:
        answers.add(0, answer("a"))
    with caplog.at_level(logging.INFO, "tunesmith"):
        claim(tmp_path, {**OF, "sampling": {"top_p": 0.8, "seed": 1}})
    assert Answers(tmp_path, 0).known == {}
    assert caplog.messages == [
        "predicting: the answers from before are to other questions, and all are asked: sampling"
    ]


def test_a_full_disk_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes a part of the line, and nothing more."""
    claim(tmp_path, OF)
    real, calls = os.write, []

    def write(handle: int, data: Any) -> int:
        calls.append(1)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, bytes(data)[:5])

    with monkeypatch.context() as patch, Answers(tmp_path, 0) as answers:
        patch.setattr(os, "write", write)
        with pytest.raises(StorageError, match=r"E-TRAIN-093.*No space left"):
            answers.add(0, answer("a"))
    with Answers(tmp_path, 0) as answers:
        assert answers.known == {}
        answers.add(0, answer("b"))
    assert Answers(tmp_path, 0).known == {0: answer("b")}


def test_the_digest_of_weights_changes_with_any_bit() -> None:
    def model() -> Any:
        torch.manual_seed(0)
        made = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
        made.register_buffer("scale", torch.tensor(2.0))
        return made

    first = weights_digest(model())
    assert weights_digest(model()) == first
    changed = model()
    with torch.no_grad():
        bits = changed[0].weight.view(torch.int32)
        bits[2, 1] ^= 1
    assert weights_digest(changed) != first
    assert weights_digest(model().to(torch.bfloat16)) != first
    renamed = torch.nn.ModuleDict({"a": model()[0]})
    other = torch.nn.ModuleDict({"b": model()[0]})
    assert weights_digest(renamed) != weights_digest(other)
    turned = model()
    turned[0].weight.data = turned[0].weight.data.reshape(3, 4)
    assert weights_digest(turned) != first
