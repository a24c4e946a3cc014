"""Questions as chats, and which tokens are the four letters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.core.errors import DataError
from tunesmith.evaluate.fewshot import WORDS, Asked, ask, draw_examples
from tunesmith.evaluate.questions import Question
from tunesmith.render import Renderer, make_renderer

QUESTION = Question("Who?", ("I", "you", "she", "he"), "B")
EXAMPLE = Question("Where?", ("here", "there", "up", "down"), "D")


def tokenizer_of(path: Path, template: str | None = None) -> Any:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    if template is not None:
        tokenizer.chat_template = template
    return tokenizer


def renderer_of(tokenizer: Any, **keys: Any) -> Renderer:
    return make_renderer(load_config({"model_name_or_path": "m", **keys}, verb="chat").template, tokenizer)


def asked(renderer: Renderer, lang: str = "en") -> Asked:
    return ask([QUESTION], [[EXAMPLE]], "law", lang, renderer, None)[0]


def test_the_texts_are_those_of_the_field(tiny_model: Path) -> None:
    tokenizer = tokenizer_of(tiny_model)
    text = tokenizer.decode(asked(renderer_of(tokenizer)).prompt)
    assert text == (
        "<|im_start|>user\nThe following are multiple choice questions (with answers) about law.\n\n"
        "Where?\nA. here\nB. there\nC. up\nD. down\nAnswer:<|im_end|>\n<|im_start|>assistant\nD<|im_end|>\n"
        "<|im_start|>user\nWho?\nA. I\nB. you\nC. she\nD. he\nAnswer:<|im_end|>\n<|im_start|>assistant\n"
    )
    assert WORDS["zh"].head.format(subject="法学") == "以下是中国关于法学考试的单项选择题，请选出其中的正确答案。\n\n"
    assert tokenizer.decode(asked(renderer_of(tokenizer), "zh").prompt).count("\n答案：<|im_end|>") == 2


def test_the_letters_are_the_tokens_of_the_reply(tiny_model: Path) -> None:
    tokenizer = tokenizer_of(tiny_model)
    found = asked(renderer_of(tokenizer))
    assert [tokenizer.decode([token]) for token in found.letters] == list("ABCD")
    whole = tokenizer.apply_chat_template(
        [
            {"role": "user", "content": tokenizer.decode(found.prompt[2:3])},
            {"role": "assistant", "content": "C"},
        ],
        tokenize=True,
        return_dict=False,
    )
    assert found.letters[2] in whole


def test_what_the_template_writes_before_a_reply_belongs_to_the_prompt(tiny_model: Path) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = tokenizer_of(tiny_model, template)
    found = asked(renderer_of(tokenizer))
    assert tokenizer.decode(found.prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert [tokenizer.decode([token]) for token in found.letters] == list("ABCD")


def test_a_letter_that_would_melt_into_the_prompt_is_its_own_token(tiny_model: Path) -> None:
    """In `fewshot` a reply follows the question's text at once; the prompt stays what the model would answer to."""
    tokenizer = tokenizer_of(tiny_model)
    renderer = renderer_of(tokenizer, template="fewshot")
    found = asked(renderer)
    assert tokenizer.decode(found.prompt).endswith("D. he\nAnswer:")
    assert [tokenizer.decode([token]) for token in found.letters] == list("ABCD")


def test_letters_that_begin_alike_are_refused(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of(tiny_model)
    renderer = renderer_of(tokenizer)
    monkeypatch.setattr("tunesmith.evaluate.fewshot.LETTERS", "AABB")
    with pytest.raises(DataError, match="E-EVAL-005"):
        asked(renderer)


def test_examples_keep_their_order_and_leave_the_question_out() -> None:
    pool = [Question(str(number), ("a", "b", "c", "d"), "A") for number in range(6)]
    assert draw_examples(pool, QUESTION, 6, (1,)) == pool
    assert draw_examples(pool, pool[2], 5, (1,)) == [one for one in pool if one is not pool[2]]
    drawn = [draw_examples(pool, QUESTION, 3, (1, number)) for number in range(20)]
    assert all([pool.index(one) for one in own] == sorted(pool.index(one) for one in own) for own in drawn)
    assert len({tuple(one.text for one in own) for own in drawn}) > 5
