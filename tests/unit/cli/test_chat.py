"""The chat loop, with an engine that repeats what it was told."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.api import Conversation
from tunesmith.cli.chat import talk
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.types import Message


class Parrot:
    """Answers with the roles and texts it has seen, in two pieces. "stop" is interrupted after the first."""

    def __init__(self, thought: str = "") -> None:
        self.thought = thought
        self.closed = False
        self.seen: list[list[Message]] = []
        self.renderer = SimpleNamespace(
            parse=lambda text: Message("assistant", text.split("</think>")[-1]),
            text=lambda chat, open_reply: "<assistant>",
            template=SimpleNamespace(thinking=("<think>\n", "\n</think>\n\n")),
        )

    def stream(self, messages: list[Message], tools: Any = (), **sampling: Any) -> Iterator[str]:
        self.seen.append(list(messages))
        yield self.thought
        yield f"{len(messages)}:"
        if messages[-1].content == "stop":
            raise KeyboardInterrupt
        if messages[-1].content == "fail":
            raise DataError(Problem("E-ENGINE-002", "no room"))
        yield messages[-1].content.upper()

    def close(self) -> None:
        self.closed = True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*lines: str, engine: Parrot | None = None, **settings: Any) -> Conversation:
    conversation = Conversation(engine or Parrot())
    talk(conversation, iter(lines), **settings)
    return conversation


def test_each_line_is_answered_with_the_history(capsys: pytest.CaptureFixture[str]) -> None:
    run("hello", "", "again\n")
    assert capsys.readouterr().out == "1:HELLO\n3:AGAIN\n"


@pytest.mark.parametrize("word", ["/clear", "clear"])
def test_clear_forgets(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("hello", word, "again")
    assert capsys.readouterr().out == "1:HELLO\n1:AGAIN\n"


@pytest.mark.parametrize("word", ["/exit", "exit", "/quit"])
def test_exit_leaves(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    run("hello", word, "again")
    assert capsys.readouterr().out == "1:HELLO\n"


def test_a_sentence_that_begins_like_a_command_is_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    run("exit is a word")
    assert capsys.readouterr().out == "1:EXIT IS A WORD\n"


def test_system_sets_the_system_message() -> None:
    engine = Parrot()
    run("/system Be brief.", "hello", engine=engine)
    assert engine.seen[0] == [Message("system", "Be brief."), Message("user", "hello")]


def test_an_unknown_command_is_not_sent(capsys: pytest.CaptureFixture[str]) -> None:
    engine = Parrot()
    run("/sytsem x", engine=engine)
    assert engine.seen == []
    assert "/sytsem" in capsys.readouterr().err


def test_ctrl_c_stops_the_answer_and_keeps_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    conversation = run("stop", "go on")
    assert capsys.readouterr().out == "1:\n3:GO ON\n"
    assert [message.content for message in conversation.messages] == ["stop", "1:", "go on", "3:GO ON"]


def test_thoughts_are_not_written_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    run("hello", engine=Parrot("<think>\nhmm\n</think>\n\n"))
    assert capsys.readouterr().out == "1:HELLO\n"


def test_thoughts_are_dimmed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    run("hello", engine=Parrot("<think>hmm</think>"))
    assert screen.getvalue() == "\x1b[2mhmm\x1b[0m1:HELLO\n"


def test_no_colour_means_no_escape_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    run("hello", engine=Parrot("<think>hmm</think>"))
    assert screen.getvalue() == "hmm1:HELLO\n"


def test_the_speed_is_told_where_it_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    run("hello", interactive=True)
    assert "tokens/s)" in capsys.readouterr().err


def test_an_error_ends_a_pipe_but_not_a_talk(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError):
        run("fail", "hello")
    capsys.readouterr()
    run("fail", "hello", interactive=True)
    captured = capsys.readouterr()
    assert "error[E-ENGINE-002]" in captured.err
    assert captured.out.endswith("1:HELLO\n")  # what failed is not remembered


def test_a_conversation_closes_its_engine() -> None:
    engine = Parrot()
    with Conversation(engine, system="Be kind.") as conversation:
        assert conversation.ask("hello") == "2:HELLO"
        conversation.clear()
        assert conversation.messages == []
    assert engine.closed
