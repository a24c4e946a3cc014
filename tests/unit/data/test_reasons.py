"""Why a token is not trained."""

from __future__ import annotations

from tunesmith.core.types import Chat, Message, Text
from tunesmith.data.reasons import REASONS, message_ranges, reason_at

CHAT = Chat(
    (
        Message("system", "Be brief."),
        Message("user", "user"),
        Message("assistant", "Yes.", trained=False),
        Message("user", "And now?"),
        Message("tool", "42"),
        Message("assistant", "No.", reasoning="It is late."),
    )
)
RENDERED = (
    "<s>system\nBe brief.</s><s>user\nuser</s><s>assistant\nYes.</s><s>user\nAnd now?</s><s>tool\n42</s>"
    "<s>assistant\n<think>It is late.</think>No.</s>"
)


def told(chat: Chat | Text, rendered: str, label: str = "") -> list[tuple[str, str]]:
    return [(rendered[one.start : one.end], one.why) for one in message_ranges(rendered, chat, label)]


def test_messages_are_found_in_their_order() -> None:
    assert told(CHAT, RENDERED) == [
        ("Be brief.", "system"),
        ("user", "prompt"),
        ("Yes.", "weight"),
        ("And now?", "prompt"),
        ("42", "tool"),
        ("It is late.", "template"),
        ("No.", "template"),
    ]
    ranges = message_ranges(RENDERED, CHAT)
    assert RENDERED[ranges[1].start - 1] == "\n"  # the message, not the header that has the same word
    assert {one.why for one in ranges} <= set(REASONS)


def test_earlier_answers_are_history_and_in_a_pair_given() -> None:
    chat = Chat(
        [Message("user", "a b"), Message("assistant", "c d"), Message("user", "e f"), Message("assistant", "g")]
    )
    assert told(chat, "a b|c d|e f|g")[1] == ("c d", "history")
    pair = Chat(
        [
            Message("user", "a b"),
            Message("assistant", "c d", trained=False),
            Message("user", "e f"),
            Message("assistant", "g"),
        ]
    )
    assert told(pair, "a b|c d|e f|g", "chosen")[1] == ("c d", "given")


def test_a_text_that_the_template_changes_is_the_templates() -> None:
    chat = Chat([Message("user", "HELLO there"), Message("assistant", "ok")])
    assert told(chat, "hello there|ok") == [("ok", "template")]
    assert told(Text("all of it"), "all of it") == []


def test_a_token_belongs_to_what_it_mostly_lies_in() -> None:
    ranges = message_ranges("x: one two", Chat([Message("user", "one two")]))
    assert [reason_at(ranges, *where) for where in ((0, 2), (2, 6), (1, 4), (6, 10))] == [
        "template",
        "prompt",
        "prompt",
        "prompt",
    ]
    assert reason_at([], 0, 5) == "template"
