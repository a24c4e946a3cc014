"""The run rule: ids of whole-text encoding, masks from characters, blanks that control tokens swallow."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tunesmith.core.types import Origin
from tunesmith.render.control import ControlTokens
from tunesmith.render.encode import Encoder, added_tokens_of
from tunesmith.render.errors import RenderError
from tunesmith.render.spans import Span, cut_at, join_text, merge

TEXTS = ["the cat sat on the mat", "user assistant system", "  two  blanks\n\nand lines\n", "café e\u0301 naïve"] * 4


def byte_level(**normalizer: Any) -> Tokenizer:
    """A tokenizer as GPT-2, Llama 3 and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer.get("nfc"):
        tokenizer.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_special_tokens(["<s>", "<end>"])
    return tokenizer


def encoder_of(tokenizer: Tokenizer, literals: str = "") -> Encoder:
    return Encoder(tokenizer, ControlTokens(added_tokens_of(tokenizer), literals))


def whole(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def test_ids_equal_encoding_the_whole_text_at_once() -> None:
    tokenizer = byte_level()
    spans = [
        Span("<s>user\n"),
        Span("\n the cat\n", trusted=False),
        Span("<end>\n<s>assistant\n"),
        Span(" \n\nsat on", trained=True, trusted=False),
        Span("<end>", trained=True),
        Span("\n"),
    ]
    (found,) = encoder_of(tokenizer).encode([spans], [Origin("a.json", 1)])
    assert list(found.ids) == whole(tokenizer, join_text(spans))
    assert found.origin == Origin("a.json", 1)


def test_a_token_is_trained_if_any_of_its_characters_is() -> None:
    tokenizer = byte_level()
    assert len(whole(tokenizer, "the")) == 1
    (found,) = encoder_of(tokenizer).encode([[Span("on t"), Span("he", trained=True), Span(" mat")]])
    assert list(found.trained) == [index == 1 for index in range(len(found.ids))]
    # A control token closes the trained part cleanly: what follows it is not trained.
    (found,) = encoder_of(tokenizer).encode([[Span("on"), Span("the<end>", trained=True), Span("mat")]])
    kept = [token for token, flag in zip(found.ids, found.trained, strict=True) if flag]
    assert tokenizer.decode(kept, skip_special_tokens=False).endswith("the<end>")


def test_several_trained_parts_in_one_run() -> None:
    spans = [Span("a"), Span("b", trained=True), Span(" c "), Span("d", trained=True), Span(" e")]
    (found,) = encoder_of(byte_level()).encode([spans])
    assert sum(found.trained) == 2
    # longer than what is remembered of short runs, and twice, so that both ways give the same
    long = [Span("the cat sat on the mat " * 3), Span("cat", trained=True), Span(" sat ")]
    (first,), (second,) = (encoder_of(byte_level()).encode([long]) for _ in range(2))
    assert first == second
    assert sum(first.trained) >= 1


def test_a_combining_mark_that_composes_belongs_to_the_token_before_it() -> None:
    """NFC joins e and its accent; the accent is then in no token's range, but it may be all that is trained."""
    tokenizer = byte_level(nfc=True)
    (found,) = encoder_of(tokenizer).encode([[Span("x e"), Span("\u0301", trained=True), Span(" x")]])
    assert list(found.ids) == whole(tokenizer, "x e\u0301 x")
    assert any(found.trained)
    assert not found.trained[0]
    assert not found.trained[-1]


def test_untrusted_text_makes_no_control_token() -> None:
    tokenizer = byte_level()
    (found,) = encoder_of(tokenizer).encode([[Span("<s>"), Span("a <end> <s> b", trusted=False), Span("<end>")]])
    control = [token for token in found.ids if token >= tokenizer.token_to_id("<s>")]
    assert control == [tokenizer.token_to_id("<s>"), tokenizer.token_to_id("<end>")]
    assert tokenizer.decode(found.ids, skip_special_tokens=False) == "<s>a <end> <s> b<end>"


def test_added_tokens_that_are_not_control_stay_tokens() -> None:
    """Gemma 3 has thousands, `\\n\\n` among them. Those that the template writes are control, blanks never are."""
    tokenizer = byte_level()
    tokenizer.add_tokens(["\n\n", "<html>", "<think>"])
    encoder = encoder_of(tokenizer, literals="<think>\n\n")
    spans = [Span("<s>a\n\n"), Span("<html> <think>\n\nb", trusted=False)]
    (found,) = encoder.encode([spans])
    assert tokenizer.token_to_id("<html>") in found.ids
    assert list(found.ids).count(tokenizer.token_to_id("\n\n")) == 2
    assert tokenizer.token_to_id("<think>") not in found.ids


def test_a_control_token_swallows_blanks_as_the_tokenizer_says() -> None:
    """Phi-3's tokens take the blanks behind them; other models have tokens that take those before."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens(
        [AddedToken("<r>", rstrip=True, special=True), AddedToken("<l>", lstrip=True, special=True)]
    )
    for text in ("a<r> \n b<l>c", "a  <l> c <r>", "<r>  <l>", " <l><r> ", "x<end> <l> <r> y"):
        (found,) = encoder_of(tokenizer).encode([[Span(text)]])
        assert list(found.ids) == whole(tokenizer, text), text
    # Blanks of an answer that the header's token swallows do not make the header trained.
    (found,) = encoder_of(tokenizer).encode([[Span("<r>\n"), Span(" b", trained=True)]])
    assert not found.trained[0]


def test_metaspace_first_puts_its_blank_before_the_first_character_only() -> None:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    for text in ("the cat</s>the mat", "<s>the cat</s> the", "</s>", "the"):
        (found,) = encoder_of(tokenizer).encode([[Span(text)]])
        assert list(found.ids) == whole(tokenizer, text), text


def test_a_tokenizer_whose_model_makes_control_tokens_from_text_is_refused() -> None:
    """Merges may lead to a special token."""
    vocabulary = {"<unk>": 0, "<": 1, "e": 2, ">": 3, "<e": 4, "<e>": 5}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("<", "e"), ("<e", ">")], unk_token="<unk>"))
    tokenizer.add_special_tokens(["<e>", "<unk>"])
    encoder = encoder_of(tokenizer)
    assert list(encoder.encode([[Span("e<e>")]])[0].ids) == [2, 5]
    assert list(encoder.encode([[Span("e?", trusted=False)]])[0].ids) == [2, 0]  # unknown words are no forgery
    with pytest.raises(RenderError, match="E-RENDER-010"):
        encoder.encode([[Span("e<e>", trusted=False)]])


def test_the_given_tokenizer_is_left_as_it_was() -> None:
    tokenizer = byte_level()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    before = tokenizer.to_str()
    encoder_of(tokenizer).encode([[Span("a <end> b", trusted=False)]])
    assert tokenizer.to_str() == before


def test_spans_are_cut_and_merged() -> None:
    spans = cut_at("abcdef", [(1, 3)], [(2, 4)])
    assert spans == [Span("a"), Span("b", True), Span("c", True, False), Span("d", False, False), Span("ef")]
    assert cut_at("", []) == []
    assert merge([Span("a"), Span(""), Span("b"), Span("c", True)]) == [Span("ab"), Span("c", True)]
