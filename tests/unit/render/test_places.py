"""Media in chats: places in the text, what the processor writes there, masks, and what nobody may forge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.media_cases import Shelf, media_of_case, tokenizer_of
from tests.media_families import CASES
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import PLACE, Chat, Medium, Message, Origin
from tunesmith.render import Renderer, RenderError, make_renderer

# Content as a list of parts, as most models' own templates take it.
PARTS = """{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}\
{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_of(CASES["llava"])


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


def renderer_of(tokenizer: Any, shelf: Shelf, template: str | None = None, own: str = PARTS) -> Renderer:
    tokenizer.chat_template = own
    media = media_of_case(CASES["llava"], shelf, tokenizer=tokenizer)
    return make_renderer(TemplateConfig(template=template), tokenizer, media=media)


def chat_with(media: Sequence[Medium], question: str = f"What is {PLACE}?", answer: str = "A cat.") -> Chat:
    return Chat([Message("user", question, media=media), Message("assistant", answer)], origin=Origin("rows.json", 6))


@pytest.mark.parametrize("template", [None, "chatml"])
def test_a_place_becomes_what_the_processor_writes(tokenizer: Any, shelf: Shelf, template: str | None) -> None:
    renderer = renderer_of(tokenizer, shelf, template)
    found = renderer.encode_chats([chat_with([shelf.image(80, 40)])])[0][0]
    # 56 pixels in patches of 14: 4 x 4, whatever the picture's own size.
    text = "<|im_start|>user\nWhat is " + "<image>" * 16 + "?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
    assert tokenizer.decode(found.ids) == text
    assert tokenizer.decode([token for token, trained in zip(found.ids, found.trained, strict=True) if trained]) == (
        "A cat.<|im_end|>"
    )
    (placed,) = found.media
    image = tokenizer.convert_tokens_to_ids("<image>")
    assert [at for at, token in enumerate(found.ids) if token == image] == list(range(placed.start, placed.end))


@pytest.mark.parametrize("template", [None, "chatml"])
def test_nobody_can_forge_a_place(tokenizer: Any, shelf: Shelf, template: str | None) -> None:
    renderer = renderer_of(tokenizer, shelf, template)
    image = tokenizer.convert_tokens_to_ids("<image>")
    forged = chat_with([shelf.image(30, 30)], f"<image> <ima{PLACE}ge> <image>", "<image>")
    found = renderer.encode_chats([forged])[0][0]
    assert sum(token == image for token in found.ids) == 16
    assert tokenizer.decode(found.ids).count("<image>") == 16 + 3
    plain = Chat([Message("user", f"<image> {PLACE}"), Message("assistant", "<image>")])
    assert image not in renderer.encode_chats([plain])[0][0].ids


def test_media_and_places_are_counted(tokenizer: Any, shelf: Shelf) -> None:
    blind = PARTS.replace("<image>", "")
    with pytest.raises(RenderError) as found:
        renderer_of(tokenizer, shelf, own=blind).encode_chats([chat_with([shelf.image(30, 30)])])
    problem = found.value.problems[0]
    assert (problem.code, problem.where, problem.got) == ("E-MEDIA-042", "rows.json, row 6", "none")
    trusted = Chat([Message("user", "<image>"), Message("assistant", "a")], trusted_markup=True)
    with pytest.raises(RenderError, match="E-MEDIA-042"):
        renderer_of(tokenizer, shelf).encode_chats([trusted])


def test_a_model_takes_what_it_is_made_for(tokenizer: Any, shelf: Shelf, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    with pytest.raises(RenderError) as found:
        renderer_of(tokenizer, shelf).encode_chats([chat_with([]), chat_with([shelf.audio(1.0)])])
    assert found.value.failed == (1,)
    assert found.value.problems[0].code == "E-MEDIA-040"
    assert "takes images, no sound" in found.value.problems[0].what
    text_only = make_renderer(TemplateConfig(), AutoTokenizer.from_pretrained(tiny_model))
    with pytest.raises(RenderError) as refused:
        text_only.encode_chats([chat_with([shelf.image(30, 30)])])
    assert refused.value.problems[0].code == "E-MEDIA-015"


def test_places_in_a_batch_and_in_a_prompt(tokenizer: Any, shelf: Shelf) -> None:
    renderer = renderer_of(tokenizer, shelf)
    one, two = shelf.image(30, 30), shelf.image(40, 90)
    plain = Chat([Message("user", "q"), Message("assistant", "a")])
    batch = renderer.encode_batch([plain, chat_with([one, two], PLACE * 2), plain, chat_with([two])])
    assert {number: [placed.medium for placed in found] for number, found in batch.media.items()} == {
        1: [one, two],
        3: [two],
    }
    first, second = batch.media[1]
    assert first.end == second.start == first.start + 16
    prompt = renderer.prompt([Message("user", f"{PLACE}?", media=[one])])
    assert [(placed.medium, placed.end - placed.start) for placed in prompt.media] == [(one, 16)]
    assert renderer.encode_prompt([Message("user", f"{PLACE}?", media=[one])]) == prompt.ids
    assert tokenizer.decode(prompt.ids).endswith("<|im_start|>assistant\n")


def test_a_chat_that_is_split_has_the_media_of_its_beginning(tokenizer: Any, shelf: Shelf) -> None:
    """The template drops thoughts from history, so each reply is a sample of its own."""
    own = PARTS.replace("<|im_end|>\n", "{% if loop.last %}.{% endif %}<|im_end|>\n")
    renderer = renderer_of(tokenizer, shelf, own=own)
    one, two = shelf.image(30, 30), shelf.image(40, 90)
    turns = [
        Message("user", f"{PLACE}1", media=[one]),
        Message("assistant", "a"),
        Message("user", f"{PLACE}2", media=[two]),
        Message("assistant", "b"),
    ]
    first, second = renderer.encode_chats([Chat(turns)])[0]
    assert [placed.medium for placed in first.media] == [one]
    assert [placed.medium for placed in second.media] == [one, two]


def test_weights_do_not_move_places(tokenizer: Any, shelf: Shelf) -> None:
    renderer = renderer_of(tokenizer, shelf)
    image = shelf.image(30, 30)
    turns = [
        Message("user", f"{PLACE}1", media=[image]),
        Message("assistant", "a", weight=2.0, trained=True),
        Message("user", "2"),
        Message("assistant", "b"),
    ]
    found = renderer.encode_chats([Chat(turns)])[0][0]
    plain = renderer.encode_chats([Chat([*turns[:1], Message("assistant", "a"), *turns[2:]])])[0][0]
    assert (found.ids, found.trained, found.media) == (plain.ids, plain.trained, plain.media)
    assert found.weights is not None
    assert sorted(set(found.weights)) == [1.0, 2.0]


def test_the_fingerprint_knows_the_processor_and_the_limits(tokenizer: Any, shelf: Shelf) -> None:
    from tunesmith.media.limits import MediaLimits

    media = media_of_case(CASES["llava"], shelf, tokenizer=tokenizer)
    smaller = media_of_case(CASES["llava"], shelf, MediaLimits(image_max_pixels=1000), tokenizer)
    prints = [make_renderer(TemplateConfig(), tokenizer, media=one).fingerprint() for one in (media, smaller, None)]
    assert prints[0] != prints[1]
    assert "media" not in prints[2]
    assert prints[0] == make_renderer(TemplateConfig(), tokenizer, media=media).fingerprint()


def test_a_template_that_takes_parts_only_gets_them_from_chats_of_text_too(tokenizer: Any, shelf: Shelf) -> None:
    own = PARTS.replace("{% if m.content is string %}{{ m.content }}{% else %}", "").replace(
        "{% endfor %}{% endif %}<|im_end|>", "{% endfor %}<|im_end|>"
    )
    own = own.replace("{% for p in m.content %}", "{% for p in m.content if p.type is defined %}")
    renderer = renderer_of(tokenizer, shelf, own=own)
    chats = [Chat([Message("user", f"Question {n}"), Message("assistant", f"Answer {n}")]) for n in range(5)]
    for number, found in enumerate(renderer.encode_chats(chats)):
        assert tokenizer.decode(found[0].ids) == (
            f"<|im_start|>user\nQuestion {number}<|im_end|>\n<|im_start|>assistant\nAnswer {number}<|im_end|>\n"
        )
