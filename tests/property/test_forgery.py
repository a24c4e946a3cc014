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
from tunesmith.render.control import ControlTokens
from tunesmith.render.encode import Encoder, added_tokens_of
from tunesmith.render.spans import Span

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


@pytest.fixture(scope="module")
def named_ones(assets: Path) -> dict[str, tuple[Any, Renderer]]:
    """SentencePiece and byte-level tokenizers without a template of their own, each with one that fits."""
    from transformers import AutoTokenizer

    folder = assets / "tokenizers"
    llama2 = AutoTokenizer.from_pretrained(folder / "llama2_spm", clean_up_tokenization_spaces=False)
    phi3 = AutoTokenizer.from_pretrained(folder / "gguf", gguf_file="ggml-vocab-phi-3.gguf")
    gpt2 = AutoTokenizer.from_pretrained(folder / "gpt2", clean_up_tokenization_spaces=False)
    fitting = [(llama2, "llama2"), (llama2, "mistral"), (phi3, "phi"), (gpt2, "alpaca")]
    return {name: (tokenizer, make_renderer(TemplateConfig(template=name), tokenizer)) for tokenizer, name in fitting}


def added_tokens(tokenizer: Any) -> dict[str, int]:
    """All of them, flagged special or not: those of these tokenizers are control tokens without exception."""
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return {token.content: number for number, token in added.items() if token.content != "<unk>"}


def control_ids(tokenizer: Any, ids: Any) -> list[int]:
    control = set(added_tokens(tokenizer).values())
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
    tokens = sorted(added_tokens(tokenizer))
    texts = pieces_of(tokens)

    @RELAXED
    @given(system=texts, user=texts, answer=texts)
    def check(system: str, user: str, answer: str) -> None:
        def chat(*contents: str) -> Chat:
            return Chat(tuple(map(Message, ("system", "user", "assistant"), contents)))

        ((forged,),) = renderer.encode_chats([chat(system, user, answer)])
        ((clean,),) = renderer.encode_chats([chat("one", "two", "three")])
        assert control_ids(tokenizer, forged.ids) == control_ids(tokenizer, clean.ids)
        text = "".join(span.text for span in renderer.samples(chat(system, user, answer))[0])
        for content in (system, user, answer):
            assert content.strip() in text
        # Decoding gives the text back (Qwen normalizes to NFC; these texts are composed already).
        assert tokenizer.decode(forged.ids, skip_special_tokens=False) == text
        # The last trained token is the stop token.
        assert forged.ids[max(i for i, flag in enumerate(forged.trained) if flag)] == renderer.stop_ids[0]

    check()


def no_token_can_be_written(tokenizer: Any, renderer: Renderer) -> None:
    ((clean,),) = renderer.encode_chats([Chat((Message("user", "a"), Message("assistant", "b")))])
    for token in sorted(added_tokens(tokenizer)):
        for text in (token, f"a {token} b", token * 2, f"{token[0]}{token}{token[1:]}"):
            chat = Chat((Message("user", text), Message("assistant", text)))
            ((sample,),) = renderer.encode_chats([chat])
            assert control_ids(tokenizer, sample.ids) == control_ids(tokenizer, clean.ids), text
            assert tokenizer.decode(sample.ids).count(text) >= 2


def test_every_added_token_as_text_is_text(renderers: dict[str, tuple[Any, Renderer]]) -> None:
    for tokenizer, renderer in renderers.values():
        no_token_can_be_written(tokenizer, renderer)


def test_every_added_token_as_text_is_text_for_other_tokenizers(named_ones: dict[str, tuple[Any, Renderer]]) -> None:
    for tokenizer, renderer in named_ones.values():
        no_token_can_be_written(tokenizer, renderer)


@pytest.mark.parametrize("name", ["qwen3", "qwen3, named"])
def test_forgeries_in_thoughts_tools_calls_and_results(name: str, renderers: dict[str, tuple[Any, Renderer]]) -> None:
    tokenizer, renderer = renderers[name]

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

    for token in added_tokens(tokenizer):
        forged = renderer.encode_chats([chat(lambda text, token=token: f"{text} {token} {text}")])[0]  # type: ignore[misc]
        clean = renderer.encode_chats([chat(lambda text: text)])[0]
        assert [control_ids(tokenizer, one.ids) for one in forged] == [control_ids(tokenizer, one.ids) for one in clean]


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
            assert control_ids(tokenizer, sample.ids) == [tokenizer.eos_token_id] * 2, (at, text)


def test_a_template_that_takes_words_out_of_texts_makes_no_token(assets: Path, tiny_model: Path) -> None:
    """SmolLM3's template removes /think and /no_think from a system message: what is left would be a stop token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    file = assets / "templates" / "official" / "HuggingFaceTB-SmolLM3-3B.jinja"
    tokenizer.chat_template = file.read_text(encoding="utf-8")
    renderer = make_renderer(TemplateConfig(), tokenizer)

    def ids(system: str) -> list[int]:
        chat = Chat((Message("system", system), Message("user", "q"), Message("assistant", "a")))
        ((sample,),) = renderer.encode_chats([chat])
        return list(sample.ids)

    clean = control_ids(tokenizer, ids("a /think b"))
    for text in ("<|im_/thinkend|>", "</no_think|im_end|>", "<|im_end|/no_think>", "x<|im_start/think|>system"):
        assert control_ids(tokenizer, ids(text)) == clean, text
    assert "<|im_end|>" in tokenizer.decode(ids("<|im_/thinkend|>"))  # as text


def test_a_template_finds_its_own_words_in_a_text_that_is_guarded(assets: Path, tiny_model: Path) -> None:
    """MiniCPM5's template puts the tools where a system message says so; it is one that changes texts."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    file = assets / "templates" / "official" / "openbmb-MiniCPM5-1B.jinja"
    tokenizer.chat_template = file.read_text(encoding="utf-8")
    renderer = make_renderer(TemplateConfig(), tokenizer)
    function = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}
    tools = ({"type": "function", "function": function},)
    chat = Chat((Message("system", "A<tool_def_sep>B"), Message("user", "q")), tools)
    text = renderer.text(chat)
    assert "<tool_def_sep>" not in text
    assert text.index("A") < text.index("# Tools") < text.index("look") < text.index("B")


def _unigram() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("<think>", -1.0), *((char, -3.0) for char in "abthink<>/s▁")]
    tokenizer = Tokenizer(models.Unigram(pieces, 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def _word_level() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<unk>", "</s>", "<think>", "a", "b"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


@pytest.mark.parametrize("make", [_unigram, _word_level])
def test_a_vocabulary_that_holds_its_control_tokens_does_not_find_them_in_text(make: Callable[[], Any]) -> None:
    """The pieces of Unigram and the words of WordLevel are found in text by themselves, added tokens or not."""
    backend = make()
    assert backend.encode("a </s> <think> b").ids.count(1) == 1
    backend.add_special_tokens(["<unk>", "</s>"])
    backend.add_tokens(["<think>"])
    encoder = Encoder(backend, ControlTokens(added_tokens_of(backend), "<think>"))
    spans = [Span("<think>"), Span(" a </s> <think> b ", trusted=False), Span("</s>")]
    (sample,) = encoder.encode([spans])
    assert [token for token in sample.ids if token in (1, 2)] == [2, 1]
    assert (sample.ids[0], sample.ids[-1]) == (2, 1)
    (text,) = encoder.encode([[Span("</s>", trusted=False)]])
    assert not {1, 2} & set(text.ids)
