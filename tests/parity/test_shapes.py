"""Chats put together from their shape are what the template writes for them: ids and mask, under every template."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.forging import control_words, tokenizer_with
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import DataError
from tunesmith.core.types import Chat, Message, Origin
from tunesmith.render import Renderer, make_renderer
from tunesmith.render.batches import BatchEncoder, EncodedBatch
from tunesmith.render.errors import QuickWayFault, RenderError
from tunesmith.render.jinja import compile_template
from tunesmith.render.jinja_reads import Reads, reads_of
from tunesmith.render.shapes import Shapes
from tunesmith.render.slot_files import load_slots, template_names
from tunesmith.render.slots import SlotTemplate

WORDS = (
    *(
        "user",
        "assistant",
        "system",
        "text",
        "image",
        "a",
        "Hi there",
        "1 + 1 = 2",
        "\n",
        "\n\n",
        "  ",
        "é",
        "日本",
        "{}",
    ),
    *(
        "<think>",
        "</think>",
        "<",
        "|",
        ">",
        "[INST]",
        "\\n",
        '"',
        "'",
        "&",
        "/think",
        "/no_think",
        "### ",
        "#",
        "e\u0301",
    ),
    *("<tool_call>", "<tool_response>", "<|im_end|>", "<|", "\t", "\u2028", "\u00a0", "None", "true", ":", "%}", "{{"),
)
SETTINGS = (
    TemplateConfig(),
    TemplateConfig(mask_history=True),
    TemplateConfig(train_on_prompt=True),
    TemplateConfig(enable_thinking=False),
    TemplateConfig(enable_thinking=True, default_system="Be brief."),
    TemplateConfig(preserve_thinking=True),
)
PATTERNS = ("ua", "sua", "uaua", "suaua", "uauaua", "ut", "uaut", "utua", "sutut", "utuaua", "uau", "uan", "unua")
"""s: system; u: question; a: reply; t: reply with a thought; n: reply that is not to be trained."""


def text(random: Random) -> str:
    joined = "".join(random.choice(WORDS) for _ in range(random.randint(1, 6)))
    return joined if random.random() < 0.3 else joined.strip() or "x"


def chats(random: Random, count: int) -> list[Chat]:
    made = []
    for row in range(count):
        messages = []
        for letter in random.choice(PATTERNS):
            role = {"s": "system", "u": "user"}.get(letter, "assistant")
            thought = text(random) if letter == "t" else None
            messages.append(
                Message(role, text(random), reasoning=thought, trained=False if letter == "n" else None)  # type: ignore[arg-type]
            )
        made.append(Chat(messages, origin=Origin("x", row)))
    return made


def usable() -> Iterator[str]:
    for name in template_names():
        try:
            load_slots(name)
        except RenderError:
            continue
        yield name


def check(renderer: Renderer, seed: int, count: int) -> tuple[int, int]:
    """(chats that were put together from their shape, chats)."""
    made = chats(Random(seed), count)
    quick, slow = renderer._batches, BatchEncoder(renderer._encoder, renderer.samples)
    renderer.template.statistics = type(renderer.statistics)()
    expected = slow.encode(made)
    counted, renderer.template.statistics = renderer.statistics, type(renderer.statistics)()
    found = quick.encode(made)
    same(found, expected)
    counted.dropped_thoughts = renderer.statistics.dropped_thoughts  # "not written" is a guess where it is in the reply
    assert renderer.statistics == counted
    shapes = quick._shapes
    used = 0 if shapes is None else sum(shape.used for shape in shapes._known.values() if shape)
    opened = quick.encode(made, True)
    same(opened, slow.encode(made, True))
    assert not opened.trained.any()
    return used, count


def same(found: EncodedBatch, expected: EncodedBatch) -> None:
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.trained.tolist() == expected.trained.tolist()
    assert found.lengths.tolist() == expected.lengths.tolist()
    assert found.rows.tolist() == expected.rows.tolist()
    assert {row: problem.code for row, problem in found.wrong.items()} == {
        row: problem.code for row, problem in expected.wrong.items()
    }


_NAMES = sorted(usable())
_SOME = set(_NAMES[::8])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in _SOME else [pytest.mark.slow]) for name in _NAMES]
)
def test_shapes_of_named_templates(name: str, tiny_model: Path) -> None:
    slots = load_slots(name)
    words = control_words([*SlotTemplate(slots, TemplateConfig(), None, None).literals, *slots.stop])
    tokenizer = tokenizer_with(words, tiny_model)
    renderer = make_renderer(TemplateConfig(template=name), tokenizer)
    used, every = check(renderer, 1, 80)
    assert used > every * 0.05, f"{used} of {every}"
    for number, settings in enumerate(SETTINGS[1:], 2):
        settings = TemplateConfig(**{**vars_of(settings), "template": name})
        check(make_renderer(settings, tokenizer), number, 25)


def vars_of(settings: TemplateConfig) -> dict[str, object]:
    return {field: getattr(settings, field) for field in settings.__dataclass_fields__}


@pytest.mark.parametrize(
    ("every", "found"), [(6, (18, 21)), pytest.param(1, (106, 121), marks=pytest.mark.slow)], ids=["some", "all"]
)
def test_shapes_of_official_templates(assets: Path, tiny_model: Path, every: int, found: tuple[int, int]) -> None:
    read, files = 0, sorted((assets / "templates").glob("*/*.jinja"))[::every]
    for file in files:
        source = file.read_text(encoding="utf-8")
        tokenizer = tokenizer_with(control_words(compile_template(source).literals), tiny_model, source)
        used = 0
        for number, settings in enumerate(SETTINGS):
            try:
                renderer = make_renderer(settings, tokenizer)
                used += check(renderer, number, 60 if number == 0 else 15)[0]
            except DataError:  # a template that cannot be used at all
                break
        read += renderer._batches._shapes is not None and used > 0
    assert (read, len(files)) == found


def test_a_template_that_does_more_with_a_text_has_no_shapes() -> None:
    write = "{% for message in messages %}<|{{ message.role }}|>BODY<|end|>{% endfor %}"
    for expression in (
        "{{ message.content | upper }}",
        "{{ message.content[:100] }}",
        "{{ message.content | length }}",
        "{{ message.content | tojson }}",
        "{{ message | tojson }}",
        "{% if message.content | length > 80 %}{{ message.content }}{% endif %}",
        "{% for word in message.content %}{{ word }}{% endfor %}",
        "{{ messages | map(attribute='content') | join(' ') }}",
        "{% set text = message.content %}{{ text.title() }}",
        "{% macro m(x) %}{{ x | replace(x, 'y') }}{% endmacro %}{{ m(message.content) }}",
        "{% if message.content == messages[0].content %}a{% endif %}",
        "{{ message.content.split(message.role)[0] }}",
        "{% if message.content > 'm' %}a{% endif %}",
        "{{ message.content * 2 }}",
        "{{ message.content ~ message.content[0] }}",
        "{% set ns = namespace(x=message.content) %}{{ ns.x | wordcount }}",
    ):
        assert reads_of([write.replace("BODY", expression)]) is None, expression
    guarded = "{% if 'stop' in message.content %}{{ message.content | length }}{% endif %}"
    assert reads_of([write.replace("BODY", guarded)]) == Reads(words=("stop",))
    looks = "{% if message.content.startswith('#') or message.content == 'x' %}!{% endif %}{{ message.content | trim }}"
    assert reads_of([write.replace("BODY", looks)]) == Reads(words=("#",), exact=frozenset({"x"}))
    called = "{% if message.tool_calls %}{{ message.content | tojson }}{% elif tools %}{{ tools | tojson }}{% endif %}"
    assert reads_of([write.replace("BODY", called)]) == Reads()


def test_a_shape_that_is_wrong_is_noticed(tiny_model: Path) -> None:
    """The audit stands behind the analysis: here the analysis is told to see nothing."""
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ m.content|length }}<|im_end|>{% endfor %}"
    )
    source += "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    tokenizer = tokenizer_with(["<|im_start|>", "<|im_end|>"], tiny_model, source)
    renderer = make_renderer(TemplateConfig(), tokenizer)
    assert renderer._batches._shapes is None
    renderer._batches._shapes = Shapes(Reads(), renderer._encoder, renderer.samples, lambda: renderer.statistics)
    asked = [Chat((Message("user", f"q{row}"), Message("assistant", f"a{row}"))) for row in range(4)]
    with pytest.raises(QuickWayFault, match="shape"):
        renderer.encode_batch(asked)
    assert renderer._batches._shapes is None  # from now on the long way
    assert len(renderer.encode_batch(asked).lengths) == 4
