"""Masks of chat templates that make it hard: none has marks, and each does something that no simple rule foresees."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render.auto import AutoTemplate
from tunesmith.render.control import ControlTokens
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import JinjaTemplate, compile_template
from tunesmith.render.spans import Span, join_text

WORDS = ("<|u|>", "<|a|>", "<|end|>", "<think>", "</think>", "</s>")
OPEN = "{% if add_generation_prompt %}{{ '<|a|>' }}{% endif %}"


def auto(source: str, eos: str = "<|end|>", **settings: Any) -> AutoTemplate:
    flags = {"lstrip": False, "rstrip": False, "single_word": False}
    added = [{"id": i, "content": word, "special": "think" not in word, **flags} for i, word in enumerate(WORDS)]
    template = compile_template(source)
    control = ControlTokens(added, "\0".join(template.literals))
    return AutoTemplate(template, control, TemplateConfig(**settings), {"eos_token": eos})


def shown(samples: list[list[Span]]) -> list[str]:
    """Each sample with what is trained in ⟦brackets⟧."""
    return ["".join(f"⟦{span.text}⟧" if span.trained else span.text for span in merged(spans)) for spans in samples]


def merged(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in spans:
        if joined and joined[-1].trained == span.trained:
            joined[-1] = Span(joined[-1].text + span.text, span.trained)
        else:
            joined.append(Span(span.text, span.trained))
    return joined


CHAT = Chat((Message("user", "q1"), Message("assistant", " a1\n"), Message("user", "q2"), Message("assistant", "a2")))
HEADER = "{{ '<|u|>' if m.role == 'user' else '<|a|>' }}"

# name: (template, what it must give for CHAT)
NASTY = {
    "no marks, and the stop token only between turns": (
        "{% for m in messages %}"
        + HEADER
        + "{{ m.content }}{% if not loop.last %}<|end|>{% endif %}{% endfor %}"
        + OPEN,
        ["<|u|>q1<|end|><|a|>⟦ a1\n<|end|>⟧<|u|>q2<|end|><|a|>⟦a2<|end|>⟧"],
    ),
    "replies of the past are marked as such": (
        "{% for m in messages %}"
        + HEADER
        + "{% if m.role == 'assistant' and not loop.last %}(old) {% endif %}{{ m.content }}<|end|>{% endfor %}"
        + OPEN,
        ["<|u|>q1<|end|><|a|>⟦ a1\n<|end|>⟧", "<|u|>q1<|end|><|a|>(old)  a1\n<|end|><|u|>q2<|end|><|a|>⟦a2<|end|>⟧"],
    ),
    "blanks are trimmed once something follows": (
        "{% for m in messages %}"
        + HEADER
        + "{{ m.content if loop.last else m.content | trim }}<|end|>{% endfor %}"
        + OPEN,
        ["<|u|>q1<|end|><|a|>⟦ a1\n<|end|>⟧", "<|u|>q1<|end|><|a|>a1<|end|><|u|>q2<|end|><|a|>⟦a2<|end|>⟧"],
    ),
    "the text is built from the end": (
        "{% set ns = namespace(text='') %}{% for m in messages | reverse %}"
        "{% set ns.text = ('<|u|>' if m.role == 'user' else '<|a|>') + m.content + '<|end|>' + ns.text %}{% endfor %}"
        "{{ ns.text }}" + OPEN,
        ["<|u|>q1<|end|><|a|>⟦ a1\n<|end|>⟧<|u|>q2<|end|><|a|>⟦a2<|end|>⟧"],
    ),
    "every header tells how many messages there are": (
        "{% for m in messages %}" + HEADER + "{{ loop.index ~ '/' ~ messages | length ~ ':' }}{{ m.content }}<|end|>"
        "{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|a|>' ~ (messages | length + 1) ~ '/' ~ (messages | length + 1) ~ ':' }}{% endif %}",
        [
            "<|u|>1/2:q1<|end|><|a|>2/2:⟦ a1\n<|end|>⟧",
            "<|u|>1/4:q1<|end|><|a|>2/4: a1\n<|end|><|u|>3/4:q2<|end|><|a|>4/4:⟦a2<|end|>⟧",
        ],
    ),
    "old questions are forgotten": (
        "{% for m in messages %}{% if loop.revindex <= 2 or m.role == 'assistant' %}"
        + HEADER
        + "{{ m.content }}<|end|>{% endif %}{% endfor %}"
        + OPEN,
        ["<|u|>q1<|end|><|a|>⟦ a1\n<|end|>⟧", "<|a|> a1\n<|end|><|u|>q2<|end|><|a|>⟦a2<|end|>⟧"],
    ),
}


@pytest.mark.parametrize("name", NASTY)
def test_masks_of_nasty_templates_are_exact(name: str) -> None:
    source, expected = NASTY[name]
    assert shown(auto(source).samples(CHAT)) == expected


def test_where_a_reply_cannot_be_told_it_is_an_error_with_its_place() -> None:
    """Never a guess: the error names the message and shows the text around."""
    source = "{% for m in messages %}<|u|>{{ m.content }}{{ '!' if loop.last else '?' }}<|end|>{% endfor %}"
    with pytest.raises(RenderError, match="E-RENDER-002") as caught:
        auto(source).samples(CHAT)
    assert "message 2, a reply" in str(caught.value)
    assert "<|u|>q1?<|end|>" in str(caught.value)


def test_thoughts_that_the_template_strips_stay_with_the_reply_that_is_learnt() -> None:
    source = (
        "{% for m in messages %}"
        + HEADER
        + "{% set text = m.content %}{% if m.role == 'assistant' and not loop.last %}"
        "{% set text = text.split('</think>')[-1].lstrip('\\n') %}{% endif %}{{ text }}<|end|>{% endfor %}" + OPEN
    )
    thinking = Chat(
        (
            Message("user", "q1"),
            Message("assistant", "a1", reasoning="t1"),
            Message("user", "q2"),
            Message("assistant", "a2", reasoning="t2"),
        )
    )
    assert shown(auto(source).samples(thinking)) == [
        "<|u|>q1<|end|><|a|>⟦<think>\nt1\n</think>\n\na1<|end|>⟧",
        "<|u|>q1<|end|><|a|>a1<|end|><|u|>q2<|end|><|a|>⟦<think>\nt2\n</think>\n\na2<|end|>⟧",
    ]


def test_a_reply_that_the_template_leaves_out_is_an_error() -> None:
    source = "{% for m in messages %}" + HEADER + "{{ m.content.text }}<|end|>{% endfor %}" + OPEN
    with pytest.raises(RenderError, match="E-RENDER-016"):
        auto(source).samples(CHAT)


# How many times a chat is rendered.

CHATML = "{% for m in messages %}" + HEADER + "{{ m.content }}<|end|>{% endfor %}" + OPEN


def long_chat(turns: int, **last: Any) -> Chat:
    messages: list[Message] = []
    for turn in range(turns):
        messages += [Message("user", f"question {turn}"), Message("assistant", f"answer {turn}")]
    messages[-1] = Message("assistant", messages[-1].content, **last)
    return Chat(messages)


@pytest.fixture
def renders(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of messages of each render."""
    counted: list[int] = []
    render = JinjaTemplate.render

    def counting(self: JinjaTemplate, **variables: Any) -> str:
        counted.append(len(variables["messages"]))
        return render(self, **variables)

    monkeypatch.setattr(JinjaTemplate, "render", counting)
    return counted


def test_a_long_chat_costs_a_handful_of_renders(renders: list[int]) -> None:
    """Whole, before the last reply (closed and open, the latter twice), and the first reply as the last (two)."""
    template = auto(CHATML)
    assert template.stops
    assert template.closing  # asked once per template, not per chat
    renders.clear()
    (spans,) = template.samples(long_chat(20))
    assert len(renders) <= 6
    told = [span.text for span in merged(spans) if span.trained]
    assert told == [f"answer {turn}<|end|>" for turn in range(20)]


def test_a_chat_of_mixed_replies_is_asked_once_per_kind(renders: list[int]) -> None:
    template = auto(CHATML)
    assert template.stops
    assert template.closing
    renders.clear()
    chat = long_chat(20)
    messages = list(chat.messages)
    messages[7] = Message("assistant", " blanks around ")
    messages[11] = Message("assistant", "with a thought", reasoning="thought")
    (spans,) = template.samples(Chat(messages))
    assert len(renders) <= 10
    assert [span.text for span in merged(spans) if span.trained][3] == " blanks around <|end|>"


def test_one_reply_that_changes_later_splits_the_chat(renders: list[int]) -> None:
    """All replies but one are written alike for ever: the one of another kind is asked, too, and found out."""
    source = CHATML.replace(
        "{{ m.content }}", "{{ m.content | trim if not loop.last and m.role == 'assistant' else m.content }}"
    )
    messages = list(long_chat(6).messages)
    messages[5] = Message("assistant", "blank behind ")
    samples = auto(source).samples(Chat(messages))
    assert len(samples) == 6
    assert shown(samples)[2].endswith("⟦blank behind <|end|>⟧")


def test_quick_and_slow_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    call = ToolCall("f", {"a": 1}, "abcdefghi")
    source = (
        "{% for m in messages %}"
        + HEADER
        + "{{ m.content }}{% for c in m.tool_calls or [] %}[{{ c.function.name }}]{% endfor %}<|end|>\n{% endfor %}"
        + OPEN
    )
    messages = list(long_chat(5).messages)
    messages[3] = Message("assistant", "", tool_calls=(call,))
    chat = Chat(messages)
    quick = shown(auto(source).samples(chat))
    monkeypatch.setattr("tunesmith.render.auto.quick_regions", lambda *_: None)
    assert shown(auto(source).samples(chat)) == quick
    assert join_text(auto(source).prompt(chat, False)) == "".join(quick).replace("⟦", "").replace("⟧", "")
