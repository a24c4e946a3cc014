"""What a model reads of every kind of example."""

from __future__ import annotations

from tunesmith.core.errors import Problem
from tunesmith.core.types import Chat, Feedback, Message, Origin, Preference, Prompt, Text
from tunesmith.data.sequences import Reading, encode_examples, views

PLACE = Origin("x.jsonl", 3, 4)
ASKED = (Message("user", "a"), Message("assistant", "b"), Message("user", "c"))
GOOD, BAD = (Message("assistant", "good"),), (Message("assistant", "bad"),)


def test_a_pair_is_two_chats_of_which_only_the_answers_are_trained() -> None:
    chosen, rejected = views(Preference(ASKED, GOOD, BAD, origin=PLACE, trusted_markup=True))
    assert (chosen.label, rejected.label) == ("chosen", "rejected")
    for view, answer in ((chosen, "good"), (rejected, "bad")):
        assert isinstance(view.content, Chat)
        assert [message.content for message in view.content.messages] == ["a", "b", "c", answer]
        assert [message.trained for message in view.content.messages] == [None, False, None, True]
        assert view.content.replies_only
        assert (view.content.origin, view.content.trusted_markup) == (PLACE, True)


def test_labels_of_the_other_kinds() -> None:
    assert [view.label for view in views(Feedback(ASKED, GOOD, False))] == ["disliked"]
    assert [view.label for view in views(Feedback(ASKED, GOOD, True))] == ["liked"]
    assert [(view.label, view.open) for view in views(Prompt(ASKED))] == [("prompt", True)]
    assert [(view.label, view.open) for view in views(Text("t"))] == [("", False)]


def test_what_cannot_be_rendered_does_not_spoil_the_others(renderer) -> None:
    bad = Preference((Message("user", "unrenderable"),), GOOD, BAD)
    found = encode_examples(renderer, [Preference(ASKED, GOOD, BAD), bad, Preference(ASKED, BAD, GOOD)])
    assert isinstance(found[1], Problem)
    first, last = found[0], found[2]
    assert isinstance(first, list)
    assert isinstance(last, list)
    assert [bytes(reading.samples[0].ids) for reading in first] == [b"a\0b\0c\0good\0", b"a\0b\0c\0bad\0"]
    assert [bytes(reading.samples[0].ids) for reading in last] == [b"a\0b\0c\0bad\0", b"a\0b\0c\0good\0"]


def test_texts_and_prompts(renderer) -> None:
    (reading,) = encode_examples(renderer, [Text("hi")])[0]
    assert isinstance(reading, Reading)
    assert all(reading.samples[0].trained)
    (open_one,) = encode_examples(renderer, [Prompt(ASKED)])[0]
    assert (bytes(open_one.samples[0].ids), any(open_one.samples[0].trained)) == (b"a\0b\0c\0>", False)
    assert encode_examples(renderer, []) == []
