"""Nobody can forge a turn under any template: the catalog's, and the official Jinja files under `auto`.

A chat with attempts in every place has the same control tokens, in the same order, as the chat with plain words there,
and all its text. That holds for every added token of a tokenizer, flagged special or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.forging import FORMS, chat_of, control_words, forgeries, tokenizer_with
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, ToolCall
from tunesmith.render import Renderer, make_renderer
from tunesmith.render.errors import RenderError
from tunesmith.render.jinja import compile_template
from tunesmith.render.slot_files import load_slots, template_names
from tunesmith.render.slots import SlotTemplate
from tunesmith.render.spans import join_text
from tunesmith.render.tools import get_dialect

MAY_REFUSE = {"values", "names"}
"""Places where a tool form may have no room for markup: it says so, and what cannot be parsed back is not trained."""


def usable() -> list[str]:
    names = []
    for name in template_names():
        try:
            load_slots(name)
        except RenderError:  # one without a source
            continue
        names.append(name)
    return names


def named(name: str, tiny_model: Path) -> tuple[Renderer, Any, list[str]]:
    slots = load_slots(name)
    texts = [*SlotTemplate(slots, TemplateConfig(), None, None).literals, *slots.stop]
    if slots.dialect:
        dialect = get_dialect(slots.dialect)
        written = dialect.write_calls([ToolCall("f", {"a": "b"}, "abcdefghi")])
        offered = dialect.write_tools(chat_of(str, "offered").tools)
        texts += [text for text, trusted in (*written, *offered) if trusted]
    words = control_words(texts)
    tokenizer = tokenizer_with(words, tiny_model)
    return make_renderer(TemplateConfig(template=name), tokenizer), tokenizer, words


def official(file: Path, tiny_model: Path) -> tuple[Renderer, Any, list[str]]:
    source = file.read_text(encoding="utf-8")
    words = control_words(compile_template(source).literals)
    tokenizer = tokenizer_with(words, tiny_model, source)
    return make_renderer(TemplateConfig(), tokenizer), tokenizer, words


def encoded(renderer: Renderer, chats: Sequence[Chat]) -> dict[int, list[Sequence[int]]]:
    """Ids of the samples of every chat that is not refused, by its position."""
    refused: Sequence[int] = ()
    try:
        found = renderer.encode_chats(chats)
    except RenderError as error:
        refused = error.failed
        found = renderer.encode_chats([chat for index, chat in enumerate(chats) if index not in refused])
    kept = [index for index in range(len(chats)) if index not in refused]
    return {index: [sample.ids for sample in samples] for index, samples in zip(kept, found, strict=True)}


def no_forgery(renderer: Renderer, tokenizer: Any, words: Sequence[str], rounds: int) -> Mapping[str, tuple[int, int]]:
    """By form: how many chats were encoded, of how many. A form that the template does not take is left out."""
    counts = {}
    for form in FORMS:
        clean = encoded(renderer, [chat_of(str, form)])
        if not clean:
            continue
        wanted = controls(tokenizer, clean[0])
        chats = [chat_of(evil, form) for evil in forgeries(words, rounds, len(form))]
        found = encoded(renderer, chats)
        assert len(found) == len(chats) or form in MAY_REFUSE, form
        for index, samples in found.items():
            assert controls(tokenizer, samples) == wanted, (form, chats[index])
            if index % 5 == 0:
                texts = [words_of(join_text(spans)) for spans in renderer.samples(chats[index])]
                assert [words_of(decode(tokenizer, ids)) for ids in samples] == texts
        counts[form] = (len(found), len(chats))
    return counts


def controls(tokenizer: Any, samples: Sequence[Sequence[int]]) -> list[list[str]]:
    name = tokenizer.backend_tokenizer.id_to_token
    return [[name(token) for token in ids if token in tokenizer.control] for ids in samples]


def decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False)
    return text


def words_of(text: str) -> str:
    """Without blanks: some tokens swallow those beside them."""
    return "".join(text.split())


PARTS = 4


@pytest.mark.parametrize("name", usable())
def test_no_named_template_can_be_forged(name: str, tiny_model: Path) -> None:
    counts = no_forgery(*named(name, tiny_model), rounds=2)
    assert {"plain", "thoughts"} <= counts.keys()
    # DeepSeek V3.1's form writes calls, and refuses a list of tools.
    assert ({"offered", "called"} <= counts.keys()) == (load_slots(name).dialect not in (None, "deepseek_v3_1"))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_official_template_can_be_forged(part: int, assets: Path, tiny_model: Path) -> None:
    taken = 0
    files = official_files(assets)[part::PARTS]
    for file in files:
        counts = no_forgery(*official(file, tiny_model), rounds=2)
        taken += "plain" in counts or "called" in counts
    assert taken >= len(files) - 1  # Firefunction's template needs a date that no chat has


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_no_template_can_be_forged_by_many_texts(part: int, assets: Path, tiny_model: Path) -> None:
    refused, tried = 0, 0
    for make in [
        *(named(name, tiny_model) for name in usable()[part::PARTS]),
        *(official(file, tiny_model) for file in official_files(assets)[part::PARTS]),
    ]:
        counts = no_forgery(*make, rounds=25)
        tried += sum(of for _, of in counts.values())
        refused += sum(of - taken for taken, of in counts.values())
    assert tried > 10_000  # chats, of four to eleven texts each
    assert refused / tried < 0.1  # only names in calls, and a few values


def official_files(assets: Path) -> list[Path]:
    return sorted((assets / "templates" / "official").glob("*.jinja"))
