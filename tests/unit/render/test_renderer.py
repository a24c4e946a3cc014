"""Choosing a template, stop tokens, pre-training texts, prompts and parsing, on the project's own tiny model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import DataError, UsageError
from tunesmith.core.types import Chat, Message, Origin, Text, ToolCall
from tunesmith.render import Renderer, RenderError, Span, make_renderer
from tunesmith.render.replies import parse_reply
from tunesmith.render.slot_files import load_slots, parse_slots, template_names

CHAT = Chat((Message("user", "q"), Message("assistant", "a")))


@pytest.fixture
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def renderer(tokenizer: Any) -> Renderer:
    return make_renderer(TemplateConfig(), tokenizer)


def test_left_out_and_auto_are_the_models_own_template(tokenizer: Any) -> None:
    for template in (None, "auto"):
        renderer = make_renderer(TemplateConfig(template=template), tokenizer, fallback="alpaca")
        assert (renderer.name, renderer.notices) == ("auto", [])
        assert renderer.text(CHAT) == tokenizer.apply_chat_template(
            [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], tokenize=False
        )


def test_a_setting_that_the_models_template_does_not_know_is_said(tokenizer: Any) -> None:
    (notice,) = make_renderer(TemplateConfig(preserve_thinking=True), tokenizer).notices
    assert "preserve_thinking has no effect" in notice


def test_without_a_template_of_its_own_the_family_or_default_is_used_and_said(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    renderer = make_renderer(TemplateConfig(), tokenizer)
    assert renderer.name == "default"
    assert "no chat template" in renderer.notices[0]
    assert make_renderer(TemplateConfig(), tokenizer, fallback="chatml").name == "chatml"


def test_an_unknown_template_is_an_error_with_suggestions(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="E-RENDER-008") as caught:
        make_renderer(TemplateConfig(template="lama3"), tokenizer)
    assert 'did you mean "llama3"' in str(caught.value)
    assert "tunesmith template list" in str(caught.value)


def test_a_template_that_the_tokenizer_does_not_fit_is_an_error_naming_those_that_do(tokenizer: Any) -> None:
    with pytest.raises(RenderError, match="E-RENDER-009") as caught:
        make_renderer(TemplateConfig(template="llama3"), tokenizer)
    assert "<|eot_id|>" in str(caught.value)
    assert "chatml" in str(caught.value)
    assert ", gemma," not in str(caught.value)


def test_a_tokenizer_without_offsets_is_refused() -> None:
    with pytest.raises(RenderError, match="E-RENDER-006"):
        make_renderer(TemplateConfig(), SimpleNamespace(chat_template="x"))


def test_two_templates_in_one_model(tokenizer: Any) -> None:
    """Some models have a second chat template for tools."""
    plain = tokenizer.chat_template
    tool_use = "{% if tools %}{{ '<|im_start|>' + tools[0].function.name + '<|im_end|>' }}{% endif %}" + plain
    tokenizer.chat_template = {"default": plain, "tool_use": tool_use}
    renderer = make_renderer(TemplateConfig(), tokenizer)
    tool = {"type": "function", "function": {"name": "weather"}}
    assert renderer.text(Chat(CHAT.messages, (tool,))) == "<|im_start|>weather<|im_end|>" + renderer.text(CHAT)


def test_stop_ids_are_the_end_of_text_and_what_follows_an_answer(tokenizer: Any) -> None:
    assert make_renderer(TemplateConfig(), tokenizer).stop_ids == (tokenizer.eos_token_id,)
    tokenizer.eos_token = "<|endoftext|>"
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for template in (None, "chatml"):
        stops = make_renderer(TemplateConfig(template=template), tokenizer).stop_ids
        assert set(stops) == {tokenizer.eos_token_id, stop}


def test_one_error_names_all_chats_that_do_not_fit(renderer: Renderer) -> None:
    bad = [Chat((Message("user", "q", trained=True),), origin=Origin("f.json", row, row + 1)) for row in range(3)]
    with pytest.raises(RenderError) as caught:
        renderer.encode_chats([CHAT, bad[0], CHAT, bad[1], bad[2]])
    assert caught.value.failed == (1, 3, 4)
    assert [problem.where for problem in caught.value.problems] == ["f.json:1", "f.json:2", "f.json:3"]


def test_rows_that_cannot_be_encoded_are_named_too(renderer: Renderer) -> None:
    """A tokenizer that makes a control token from text: here one whose letter z is declared to be one."""
    renderer._encoder.forbidden |= set(renderer._encoder.encode([[Span("z")]])[0].ids)
    evil = Chat((Message("user", "z"), Message("assistant", "a")), origin=Origin("f.json", 0, 9))
    unfit = Chat((Message("user", "q", trained=True),))
    with pytest.raises(RenderError) as caught:
        renderer.encode_chats([CHAT, evil, CHAT, unfit])
    assert caught.value.failed == (1, 3)
    assert [problem.code for problem in caught.value.problems] == ["E-RENDER-010", "E-RENDER-007"]
    assert caught.value.problems[0].where == "f.json:9"
    assert renderer.statistics.chats == 0
    with pytest.raises(RenderError) as caught:
        renderer.encode_texts([Text("a"), Text("z")])
    assert caught.value.failed == (1,)


def test_many_chats_keep_their_order(renderer: Renderer) -> None:
    chats = [
        Chat((Message("user", f"q{row}"), Message("assistant", f"a{row}")), origin=Origin("f", row))
        for row in range(1100)
    ]
    encoded = renderer.encode_chats(chats)
    assert [sample.origin.row for samples in encoded for sample in samples] == list(range(1100))
    assert encoded[1099] == renderer.encode_chats(chats[1099:])[0]
    assert renderer.encode_chats([]) == []


def test_a_prompt_ends_with_the_opening_of_a_reply(renderer: Renderer, tokenizer: Any) -> None:
    ids = renderer.encode_prompt(CHAT.messages[:1])
    assert tokenizer.decode(ids) == "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n"
    assert renderer.text(Chat(CHAT.messages[:1]), open_reply=True) == tokenizer.decode(ids)


def test_pretraining_text_ends_with_the_end_of_text(renderer: Renderer, tokenizer: Any) -> None:
    (found,) = renderer.encode_texts([Text("Once <|im_end|> upon", Origin("t.txt", 0))])
    assert all(found.trained)
    assert list(found.ids).count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(found.ids) == "Once <|im_end|> upon" + tokenizer.eos_token
    assert found.origin == Origin("t.txt", 0)


def test_pretraining_text_begins_as_the_tokenizer_begins_it(stories: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    (found,) = make_renderer(TemplateConfig(), tokenizer).encode_texts([Text("Once upon a time")])
    assert list(found.ids) == [*tokenizer("Once upon a time").input_ids, tokenizer.eos_token_id]
    assert found.ids[0] == tokenizer.bos_token_id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hi.", Message("assistant", "Hi.")),
        ("Hi.<|im_end|>", Message("assistant", "Hi.")),
        ("<think>\nt\n</think>\n\nHi.", Message("assistant", "Hi.", reasoning="t")),
        ("<think>\n\n</think>\n\nHi.", Message("assistant", "Hi.")),
        ("t\n</think>\n\nHi.", Message("assistant", "Hi.", reasoning="t")),  # the prompt opened the thought
        ("<think>\ncut off", Message("assistant", "", reasoning="cut off")),
        (
            'Ok.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call><tool_call>{"name": "g"}</tool_call>',
            Message("assistant", "Ok.", tool_calls=(ToolCall("f", {"a": 1}), ToolCall("g", {}))),
        ),
        ("<tool_call>\n{broken}\n</tool_call>", Message("assistant", "<tool_call>\n{broken}\n</tool_call>")),
    ],
)
def test_model_text_becomes_a_message(renderer: Renderer, text: str, message: Message) -> None:
    assert renderer.parse(text) == message


def test_calls_are_read_in_the_form_of_the_named_template() -> None:
    text = "<think>\nlook\n</think>\n\n<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n</function>\n"
    text += "</tool_call>"
    found = parse_reply(text + "<|im_end|>", ("<think>", "</think>"), ("<|im_end|>",), "qwen3_5")
    assert found == Message("assistant", "", reasoning="look", tool_calls=(ToolCall("f", {"a": "x"}),))


def test_every_template_of_the_catalog_is_well_formed() -> None:
    assert {"alpaca", "chatml", "default", "empty", "gemma", "llama3", "mistral", "qwen", "qwen3"} <= set(
        template_names()
    )
    for name in template_names():
        assert load_slots(name).name == name


def test_a_template_with_mistakes_lists_them_all() -> None:
    raw = {
        "sistem": "x",
        "system": "{{content}}",
        "user": "no place",
        "assistant": {"open": "{{content}}", "body": "{{content}}", "close": "{{end}}", "cloze": ""},
        "thinking": {"history": "forget"},
        "trim": "yes",
    }
    with pytest.raises(RenderError) as caught:
        parse_slots("mine", raw)
    told = str(caught.value)
    for words in (
        'did you mean "system"',
        "user: must hold {{content}} once",
        "assistant.cloze: unknown key",
        "open: must hold {{content}} nowhere",
        "unknown place {{end}}",
        "writes none of the stop tokens",
        "history: unknown value 'forget'",
        "trim: must be true or false",
    ):
        assert words in told, words


def test_a_chat_template_that_cannot_be_parsed_is_an_error_with_its_line(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}\n{{ m.content "
    with pytest.raises(DataError, match="E-RENDER-013") as caught:
        make_renderer(TemplateConfig(), tokenizer)
    assert "line 2" in str(caught.value)


def test_trusted_markup_makes_control_tokens_of_look_alikes(renderer: Renderer, tokenizer: Any) -> None:
    stop = tokenizer.eos_token

    def count(trusted: bool) -> tuple[int, int]:
        chat = Chat((Message("user", f"a {stop} b"), Message("assistant", f"c {stop} d")), trusted_markup=trusted)
        ((sample,),) = renderer.encode_chats([chat])
        (text,) = renderer.encode_texts([Text(f"e {stop} f", trusted_markup=trusted)])
        ends = [list(one.ids).count(tokenizer.eos_token_id) for one in (sample, text)]
        assert sample.trained[-1] or sample.trained[-2]
        return ends[0], ends[1]

    chats, texts = count(False)
    assert count(True) == (chats + 2, texts + 1)


def test_calls_parsed_out_of_text_are_text_again_where_a_template_has_no_calls(renderer: Renderer) -> None:
    written = 'Look: <tool_call>{"name": "f", "arguments": {}}</tool_call>'
    reply = Message("assistant", "Look:", tool_calls=(ToolCall("f", {}),), written=written)
    assert "tool_calls" not in renderer.template.template.source  # type: ignore[attr-defined]
    ((sample,),) = renderer.encode_chats([Chat((Message("user", "q"), reply))])
    ((same,),) = renderer.encode_chats([Chat((Message("user", "q"), Message("assistant", written)))])
    assert (sample.ids, sample.trained) == (same.ids, same.trained)
    assert written in renderer.text(Chat((Message("user", "q"), reply)))
