"""The chat loop, with an engine that repeats what it was told."""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.cli.chat import messages_of, talk
from tunesmith.cli.chat_commands import COMMANDS
from tunesmith.core.errors import DataError, OutputError, Problem, TunesmithError, UsageError
from tunesmith.core.types import PLACE, Message, ToolCall
from tunesmith.engines.conversation import Conversation


class Parrot:
    """Answers with the roles and texts it has seen, in two pieces. "stop" is interrupted after the first."""

    def __init__(self, thought: str = "") -> None:
        self.thought = thought
        self.closed = False
        self.seen: list[list[Message]] = []
        self.sampling: list[dict[str, Any]] = []
        self.thought_marks = ("<think>", "</think>")

    def parse(self, text: str, tools: Any = ()) -> Message:
        said = text.split("</think>")[-1]
        calls = (ToolCall("look", {"at": said}),) if tools and "CALL" in said else ()
        return Message("assistant", said, tool_calls=calls)

    def thinks_first(self, messages: list[Message]) -> bool:
        return False

    def stream(self, messages: list[Message], tools: Any = (), **sampling: Any) -> Generator[str, None, int]:
        self.seen.append(list(messages))
        self.sampling.append(sampling)
        yield self.thought
        yield f"{len(messages)}:"
        if messages[-1].content == "stop":
            raise KeyboardInterrupt
        if messages[-1].content.lstrip(PLACE) == "fail":
            raise DataError(Problem("E-ENGINE-002", "no room"))
        yield messages[-1].content.upper()
        return 7

    def close(self) -> None:
        self.closed = True


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run(*lines: str, engine: Parrot | None = None, **settings: Any) -> Conversation:
    conversation = Conversation(engine or Parrot())
    talk({"": conversation}, messages_of(lines), **settings)
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
    run("/sytsem x", engine=engine, interactive=True)
    assert engine.seen == []
    assert 'did you mean "/system"?' in capsys.readouterr().err
    with pytest.raises(UsageError, match="E-CLI-019"):  # in a pipe nobody would see it
        run("/sytsem x", engine=engine)


def test_a_space_before_a_slash_sends_it(capsys: pytest.CaptureFixture[str]) -> None:
    run(" /usr/bin is a folder")
    assert capsys.readouterr().out == "1:/USR/BIN IS A FOLDER\n"


@pytest.mark.parametrize(
    ("lines", "messages"),
    [
        (['"""', "one", "", "two", '"""', "three"], ["one\n\ntwo", "three"]),
        (['"""one', 'two"""'], ["one\ntwo"]),
        (['"""one"""'], ["one"]),
        (["one\\", "  two\\", "three"], ["one\n  two\nthree"]),
        (['"""', "the input ends"], ["the input ends"]),
        (["one\\"], ["one"]),
        (["", "  ", "one\r\n"], ["one"]),
        (['"""', "/exit", '"""'], ["/exit"]),
    ],
)
def test_messages_of_several_lines(lines: list[str], messages: list[str]) -> None:
    assert list(messages_of(lines)) == messages


def test_a_question_is_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    conversation = run("hello", "again", "/retry", "/retry")
    assert capsys.readouterr().out == "1:HELLO\n3:AGAIN\n3:AGAIN\n3:AGAIN\n"
    assert len(conversation.messages) == 4
    assert run("/retry").messages == []
    assert "nothing was asked yet" in capsys.readouterr().err


TOOLS = [{"type": "function", "function": {"name": "look", "description": "", "parameters": {"type": "object"}}}]


def test_a_call_gets_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    engine = Parrot()
    conversation = run(f"/tools {tmp_path / 'tools.json'}", "call it", "/result 42", engine=engine)
    assert "(tools: look)" in capsys.readouterr().err
    assert [message.role for message in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert conversation.messages[2] == Message("tool", "42", name="look")
    with pytest.raises(UsageError, match="E-ENGINE-042"):
        run("hello", "/result 42")


def test_a_conversation_is_saved_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chat.json"
    saved = run("/system Be brief.", "hello", f"/save {file}")
    assert [one["role"] for one in json.loads(file.read_text())["messages"]] == ["system", "user", "assistant"]
    capsys.readouterr()
    loaded = run(f"/load {file}", "more")
    assert loaded.system == "Be brief."
    assert loaded.messages[:2] == saved.messages
    assert capsys.readouterr().out == "4:MORE\n"


def test_a_saved_question_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "chat.json"
    file.write_text(json.dumps({"messages": [{"role": "user", "content": "well?"}]}))
    run(f"/load {file}")
    assert capsys.readouterr().out == "1:WELL?\n"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "E-ENGINE-043"),
        ("{", "E-ENGINE-044"),
        ("[]", "E-ENGINE-044"),
        ('{"messages": 3}', "E-ENGINE-044"),
        ('{"messages": [{"role": "user", "content": 3}]}', "E-ENGINE-044"),
    ],
)
def test_a_file_that_is_no_conversation(content: str | None, code: str, tmp_path: Path) -> None:
    file = tmp_path / "chat.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TunesmithError, match=code):
        run("hello", f"/load {file}")
    with pytest.raises(UsageError, match="E-CLI-021"):
        run("/save")


def test_a_conversation_that_cannot_be_saved_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="E-ENGINE-041"):
        run("hello", f"/save {tmp_path}/nowhere/chat.json")


def test_the_adapter_is_chosen_for_each_answer() -> None:
    engine = Parrot()
    run("hello", "/adapter pirate", "hello", "/adapter off", "hello", engine=engine)
    assert engine.sampling == [{}, {"adapter": "pirate"}, {}]


@pytest.fixture
def picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from PIL import Image

    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (20, 10)).save(tmp_path / "a cat.png")
    return tmp_path / "a cat.png"


def test_a_picture_goes_with_the_next_message(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = Parrot()
    conversation = run(f"/image {picture}", f"/image '{picture}'", "what?", "/retry", "and now?", engine=engine)
    assert "(image: 20 x 10; it goes with the next message)" in capsys.readouterr().err
    asked, again, later = (messages[-1] for messages in engine.seen)
    assert asked.content == f"{PLACE}{PLACE}what?"
    assert [(medium.kind, medium.source) for medium in asked.media] == [("image", str(picture))] * 2
    assert again == asked
    assert later == Message("user", "and now?")
    assert conversation.shown == []


def test_what_is_shown_can_be_taken_back(picture: Path) -> None:
    engine = Parrot()
    run(f"/image {picture}", "/image", "one", f"/image {picture}", "/clear", "two", engine=engine)
    assert not any(message.media for messages in engine.seen for message in messages)


def test_a_picture_stays_until_it_has_an_answer(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conversation = Conversation(Parrot())
    conversation.show("image", str(picture))
    talk({"": conversation}, messages_of(["fail"]), interactive=True)
    assert len(conversation.shown) == 1
    assert "no room" in capsys.readouterr().err


def test_a_conversation_with_pictures_is_saved_and_goes_on(picture: Path) -> None:
    saved, engine = picture.parent / "chat.json", Parrot()
    before = run(f"/image {picture}", f"see {PLACE}", f"/save {saved}", engine=engine).messages
    row = json.loads(saved.read_text())
    part = row["messages"][0]["content"][1]
    assert part == {"type": "image", "image": str(picture)}
    part["image"] = picture.name  # from the folder of the file on
    saved.write_text(json.dumps(row))
    after = run(f"/load {saved}", "again", engine=engine).messages
    assert after[0] == before[0]
    assert engine.seen[-1][0].media == before[0].media


def test_media_that_cannot_be_shown_are_told(picture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine: Any = Parrot()
    (picture.parent / "text.png").write_text("no picture")
    for name, code in (("nowhere.png", "E-MEDIA-010"), ("text.png", "E-MEDIA-0"), ("", "")):
        run(f"/image {picture.parent / name if name else ''}", engine=engine, interactive=True)
        assert code in capsys.readouterr().err
    engine.renderer = SimpleNamespace(media=None)
    with pytest.raises(UsageError, match="E-MEDIA-061"):
        run(f"/image {picture}", engine=engine)


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    run("/help")
    told = capsys.readouterr().err
    assert all(f"  {name} " in told for name in COMMANDS if name.startswith("/") and name != "/quit")
    assert max(len(line) for line in told.splitlines()) <= 80


def test_two_are_asked_at_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    engines = {"base": Parrot(), "tuned": Parrot("<think>hmm</think>")}
    chats = {name: Conversation(engine) for name, engine in engines.items()}  # type: ignore[arg-type]
    talk(chats, messages_of(["hello", "/retry", f"/save {tmp_path / 'chat.json'}"]))
    assert capsys.readouterr().out == "base: 1:HELLO\ntuned: 1:HELLO\n" * 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["chat.base.json", "chat.tuned.json"]
    with pytest.raises(UsageError, match="E-CLI-020"):
        talk(chats, messages_of(["/adapter x"]))
    with pytest.raises(DataError, match="E-ENGINE-002"):
        talk(chats, messages_of(["fail"]))
    assert all(len(chat.messages) == 2 for chat in chats.values())


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
    assert re.search(r"\(7 tokens, [\d.]+ tokens/s, the first after [\d.]+ s\)", capsys.readouterr().err)


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


@pytest.mark.parametrize("again", range(20))
def test_columns_on_a_terminal_end_when_all_have_answered(again: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    chats = {name: Conversation(Parrot(name[0])) for name in ("base", "tuned")}  # type: ignore[arg-type]
    talk(chats, messages_of(["hello"]))
    assert "b1:HELLO" in screen.getvalue()
    assert "t1:HELLO" in screen.getvalue()
