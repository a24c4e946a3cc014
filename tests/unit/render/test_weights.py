"""What trained tokens count in the loss: messages with a weight, and rules on the text of replies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import MissingInputError, UsageError
from tunesmith.core.types import Chat, Message
from tunesmith.render import Renderer, make_renderer
from tunesmith.render.weights import read_rules


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def counted(renderer: Renderer, chat: Chat) -> list[list[tuple[str, float]]]:
    """Per sample, the trained text in stretches of one weight, told by decoding the tokens."""
    found = []
    for sample in renderer.encode_chats([chat])[0]:
        weights = sample.weights or [1.0] * len(sample.ids)
        stretches: list[tuple[list[int], float]] = []
        for token, trained, weight in zip(sample.ids, sample.trained, weights, strict=True):
            if not trained:
                continue
            if stretches and stretches[-1][1] == weight:
                stretches[-1][0].append(token)
            else:
                stretches.append(([token], weight))
        found.append([(renderer._backend.decode(ids, skip_special_tokens=False), weight) for ids, weight in stretches])
    return found


def chat(*replies: tuple[str, float | None]) -> Chat:
    messages = []
    for text, weight in replies:
        trained = None if weight is None else weight > 0
        messages += [Message("user", "What?"), Message("assistant", text, trained=trained, weight=weight)]
    return Chat(messages)


@pytest.mark.parametrize("template", ["chatml", None])
def test_each_reply_has_its_weight(template: str | None, tokenizer: Any) -> None:
    renderer = make_renderer(TemplateConfig(template=template), tokenizer)
    found = counted(renderer, chat(("Red.", 0.5), ("Blue.", None), ("Green.", 0), ("Grey.", 2)))
    assert found == [[("Red.<|im_end|>", 0.5), ("Blue.<|im_end|>", 1), ("Grey.<|im_end|>", 2)]]
    assert renderer.encode_chats([chat(("Red.", 1), ("Blue.", 0))])[0][0].weights is None


def test_a_chat_that_is_split_keeps_the_weights_of_its_replies(tokenizer: Any, monkeypatch: Any) -> None:
    source = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content if loop.last else m.content | upper }}<|im_end|>"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    monkeypatch.setattr(tokenizer, "chat_template", source)
    renderer = make_renderer(TemplateConfig(), tokenizer)
    found = counted(renderer, chat(("Red.", 0.5), ("Blue.", None), ("Grey.", 2)))
    assert found == [[("Red.<|im_end|>", 0.5)], [("Blue.<|im_end|>", 1)], [("Grey.<|im_end|>", 2)]]


def test_ids_and_masks_are_those_without_weights(tokenizer: Any) -> None:
    renderer = make_renderer(TemplateConfig(template="chatml"), tokenizer)
    (weighted,) = renderer.encode_chats([chat(("Red é.", 0.5), ("Blue\n\n.", 3))])[0]
    (plain,) = renderer.encode_chats([chat(("Red é.", None), ("Blue\n\n.", None))])[0]
    assert (weighted.ids, weighted.trained) == (plain.ids, plain.trained)


def test_rules_of_a_file_weigh_tokens(tokenizer: Any, tmp_path: Path) -> None:
    rules = tmp_path / "weights.yaml"
    rules.write_text("""
- {pattern: "<think>\\\\s*</think>\\\\s*", weight: 0}
- {pattern: '"name": "([^"]+)"', weight: 2}
- {pattern: "blue", weight: 3}
""")
    renderer = make_renderer(TemplateConfig(template="chatml", loss_weights=str(rules)), tokenizer)
    text = '<think>\n</think>\n{"name": "look"} blue sky'
    (sample,) = counted(renderer, chat((text, None)))
    joined = "".join(part for part, _ in sample)
    assert joined == '{"name": "look"} blue sky<|im_end|>'  # the empty thought is not trained
    heavy = "".join(part for part, weight in sample if weight == 2)
    assert "look" in heavy
    assert "name" not in heavy
    assert "blue" in "".join(part for part, weight in sample if weight == 3)
    assert sample[-1][1] == 1
    # Rules and the weight of a message are multiplied; what no rule meets is as before.
    (sample,) = counted(renderer, chat(("blue", 0.5)))
    assert sample == [("blue", 1.5), ("<|im_end|>", 0.5)]
    assert counted(renderer, chat(("red", None))) == [[("red<|im_end|>", 1)]]


def test_a_changed_rule_is_another_fingerprint(tokenizer: Any, tmp_path: Path) -> None:
    rules = tmp_path / "weights.yaml"
    prints = []
    for weight in (2, 3):
        rules.write_text(f"[{{pattern: a, weight: {weight}}}]")
        prints.append(make_renderer(TemplateConfig(loss_weights=str(rules)), tokenizer).fingerprint())
    assert prints[0] != prints[1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not a list"),
        ("{a: 1}", "not a list"),
        ("[{pattern: a}]", "a pattern and a weight"),
        ("[{pattern: a, weight: -1}]", "0 or more"),
        ("[{pattern: a, weight: true}]", "0 or more"),
        ("[{pattern: '(', weight: 1}]", "not a pattern"),
        ("[{pattern: 'a*', weight: 1}]", "empty text"),
        ("[{pattern: ", "not valid YAML"),
    ],
)
def test_faults_in_rules_are_told(text: str, told: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=told):
        read_rules(str(file))
    with pytest.raises(MissingInputError):
        read_rules(str(tmp_path / "other.yaml"))
