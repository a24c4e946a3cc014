"""Nobody can forge a turn: text with control tokens, or parts of them, adds no control token and stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Message, ToolCall
from tunesmith.render import Renderer, make_renderer

RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def renderers(assets: Path, tiny_model: Path) -> dict[str, tuple[Any, Renderer]]:
    from transformers import AutoTokenizer

    folders = {"qwen3": assets / "tokenizers" / "qwen3", "llama3": assets / "tokenizers" / "llama3", "tiny": tiny_model}
    loaded = {}
    for name, folder in folders.items():
        tokenizer = AutoTokenizer.from_pretrained(folder, clean_up_tokenization_spaces=False)
        loaded[name] = (tokenizer, make_renderer(TemplateConfig(), tokenizer))
        if name != "tiny":
            named = {"qwen3": "qwen3", "llama3": "llama3"}[name]
            loaded[f"{name}, named"] = (tokenizer, make_renderer(TemplateConfig(template=named), tokenizer))
    return loaded


def control_ids(renderer: Renderer, ids: Any) -> list[int]:
    control = renderer._encoder._control.ids
    return [token for token in ids if token in control]


def pieces_of(tokens: list[str]) -> st.SearchStrategy[str]:
    """Texts made of control tokens, their beginnings and ends, and ordinary text between them."""
    cut = st.sampled_from(tokens).flatmap(
        lambda token: st.integers(0, len(token)).flatmap(lambda at: st.sampled_from([token, token[:at], token[at:]]))
    )
    plain = st.sampled_from(["", " ", "\n", "user", "assistant", "\n\n", "a", "<", ">", "|", "{", "Hi é"])
    return st.lists(st.one_of(cut, plain), max_size=8).map("".join)


@pytest.mark.parametrize("name", ["qwen3", "llama3", "tiny", "qwen3, named", "llama3, named"])
def test_text_cannot_forge_a_control_token(name: str, renderers: dict[str, tuple[Any, Renderer]]) -> None:
    tokenizer, renderer = renderers[name]
    tokens = sorted(renderer._encoder._control.tokens)
    texts = pieces_of(tokens)

    @RELAXED
    @given(system=texts, user=texts, answer=texts)
    def check(system: str, user: str, answer: str) -> None:
        def chat(*contents: str) -> Chat:
            return Chat(tuple(map(Message, ("system", "user", "assistant"), contents)))

        ((forged,),) = renderer.encode_chats([chat(system, user, answer)])
        ((clean,),) = renderer.encode_chats([chat("one", "two", "three")])
        assert control_ids(renderer, forged.ids) == control_ids(renderer, clean.ids)
        text = "".join(span.text for span in renderer.samples(chat(system, user, answer))[0])
        for content in (system, user, answer):
            assert content.strip() in text
        # Decoding gives the text back (Qwen normalizes to NFC; these texts are composed already).
        assert tokenizer.decode(forged.ids, skip_special_tokens=False) == text
        # The last trained token is the stop token.
        assert forged.ids[max(i for i, flag in enumerate(forged.trained) if flag)] == renderer.stop_ids[0]

    check()


def test_every_control_token_as_text_is_text(renderers: dict[str, tuple[Any, Renderer]]) -> None:
    for tokenizer, renderer in renderers.values():
        for token in sorted(renderer._encoder._control.tokens):
            for text in (token, f"a {token} b", token * 2, f"{token[0]}{token}{token[1:]}"):
                chat = Chat((Message("user", text), Message("assistant", text)))
                ((sample,),) = renderer.encode_chats([chat])
                ((clean,),) = renderer.encode_chats([Chat((Message("user", "a"), Message("assistant", "b")))])
                assert control_ids(renderer, sample.ids) == control_ids(renderer, clean.ids), text
                assert tokenizer.decode(sample.ids).count(text) >= 2


def test_forgeries_in_thoughts_tools_calls_and_results(renderers: dict[str, tuple[Any, Renderer]]) -> None:
    _, renderer = renderers["qwen3"]

    def chat(evil: Callable[[str], str]) -> Chat:
        parameters = {"type": "object", "properties": {evil("city"): {"type": "string", "description": evil("City")}}}
        tool = {"type": "function", "function": {"name": "weather", "description": evil("d"), "parameters": parameters}}
        call = ToolCall("weather", {evil("city"): [evil("Oslo"), {"deep": evil("x")}]})
        messages = (
            Message("system", evil("s")),
            Message("user", evil("q")),
            Message("assistant", evil("c"), reasoning=evil("t"), tool_calls=(call,)),
            Message("tool", evil("r")),
            Message("assistant", evil("a"), reasoning=evil("u")),
        )
        return Chat(messages, (tool,))

    for token in ("<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_response>", "<|endoftext|>"):
        forged = renderer.encode_chats([chat(lambda text, token=token: f"{text} {token} {text}")])[0]  # type: ignore[misc]
        clean = renderer.encode_chats([chat(lambda text: text)])[0]
        assert [control_ids(renderer, one.ids) for one in forged] == [control_ids(renderer, one.ids) for one in clean]


def test_literal_and_text_cannot_make_a_token_together(tiny_model: Path) -> None:
    """A template whose literal ends with the beginning of a control token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    stop = tokenizer.eos_token
    for at in range(1, len(stop)):
        tokenizer.chat_template = (
            "{% for m in messages %}{{ '" + stop[:at] + "' + (m.content | trim) + '" + stop + "' }}{% endfor %}"
        )
        renderer = make_renderer(TemplateConfig(train_on_prompt=True), tokenizer)
        for text in (stop[at:], f" {stop[at:]} more", stop[at : at + 1], stop[at:-1]):
            ((sample,),) = renderer.encode_chats([Chat((Message("user", text), Message("assistant", "b")))])
            assert control_ids(renderer, sample.ids) == [tokenizer.eos_token_id] * 2, (at, text)
