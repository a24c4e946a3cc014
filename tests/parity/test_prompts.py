"""What a chat sends is what training would show: the ids of a prompt are the first ids of the sample that a chat with
the reply gives, and end where the reply begins, or behind a mark that opens its thought.

Some models' own templates do not do so, and a named template writes what they write. `prompt_deviations.json` says in
which conversations; run this file as a script to write it anew, and read what changed. The tokenizer here has a token
for each byte and one for each mark, so that what is compared is the template; with tokenizers that merge, see
`test_labels.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.official import official_source
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat
from tunesmith.render import make_renderer
from tunesmith.render.cases import builtin_chats
from tunesmith.render.errors import RenderError
from tunesmith.render.slot_files import load_slots, raw_template, template_names

PINS = Path(__file__).with_name("prompt_deviations.json")
MARKS = re.compile(r"<[^<>\s]{1,60}>|\[/?[A-Z_]+\]|\[e~\[|\]~!?b\[?")
NAMES = template_names()
OFFICIAL = sorted({file for name in NAMES for file in load_slots(name).official if file.startswith("official/")})


def byte_tokenizer(text: str, jinja: str | None = None) -> Any:
    """A token for each byte, and for each mark in `text`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    ends = {"bos_token": "<bos-token>", "eos_token": "<eos-token>", "clean_up_tokenization_spaces": False}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **ends)
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(MARKS.findall(text)))})
    tokenizer.chat_template = jinja
    return tokenizer


def replied() -> Iterator[tuple[str, Chat]]:
    """(name of the conversation and place of the reply, the chat up to it) for each reply to something else."""
    for tools in (False, True):
        for case, chat in builtin_chats(tools).items():
            for place, message in enumerate(chat.messages):
                if place and message.role == "assistant" and chat.messages[place - 1].role != "assistant":
                    yield f"{case}[{place}]", Chat(chat.messages[: place + 1], chat.tools)


def differing(tokenizer: Any, template: str | None) -> tuple[list[str], int]:
    """(the cases in which the prompt is not the beginning of the sample, how many were compared). A reply with a
    thought is asked for with thinking, others without."""
    renderers = {
        thinking: make_renderer(TemplateConfig(template=template, enable_thinking=thinking), tokenizer)
        for thinking in (False, True)
    }
    found, compared = [], 0
    for case, chat in replied():
        renderer = renderers[bool((chat.messages[-1].reasoning or "").strip())]
        try:
            sample = renderer.encode_chats([chat])[0][-1]
            prompt = renderer.encode_prompt(chat.messages[:-1], chat.tools)
        except RenderError:  # the template has no form for this conversation
            continue
        compared += 1
        if list(sample.ids[: len(prompt)]) != prompt or len(prompt) < _begin(list(sample.trained)):
            found.append(case)
    return found, compared


def _begin(trained: list[bool]) -> int:
    """Where the last trained run begins."""
    end = max((place + 1 for place, flag in enumerate(trained) if flag), default=len(trained))
    while end and trained[end - 1]:
        end -= 1
    return end


def of_name(name: str) -> tuple[list[str], int]:
    text = json.dumps(raw_template(name), ensure_ascii=False) + str(load_slots(name))
    return differing(byte_tokenizer(text), name)


def of_file(file: str, assets: Path) -> tuple[list[str], int]:
    source = official_source(file, assets)
    return differing(byte_tokenizer(source, source), None)


@cache
def pins() -> dict[str, Any]:
    return json.loads(PINS.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_prompt_is_the_beginning_of_the_sample(name: str) -> None:
    found, compared = of_name(name)
    assert found == pins().get(name, {"cases": []})["cases"]
    assert compared >= 20, "templates have a form for most conversations"


@pytest.mark.slow
@pytest.mark.parametrize("file", OFFICIAL)
def test_so_it_is_with_the_models_own_jinja(file: str, assets: Path) -> None:
    found, compared = of_file(file, assets)
    assert found == pins().get(file, {"cases": []})["cases"]
    assert compared >= 20


def test_what_differs_is_the_models_own() -> None:
    """A named template differs where it writes what the model has, which `test_named_templates.py` shows."""
    for name, pin in pins().items():
        assert len(pin["why"]) > 20, name
        assert name in OFFICIAL or load_slots(name).official, f"{name} is ours: mend it"
    assert len(pins()) < len([*NAMES, *OFFICIAL]) / 5


if __name__ == "__main__":
    before = pins() if PINS.exists() else {}
    shared = Path(os.environ["TUNESMITH_ASSETS"])
    now = {name: found for name in NAMES if (found := of_name(name)[0])}
    now |= {file: found for file in OFFICIAL if (found := of_file(file, shared)[0])}
    text = {name: {"why": before.get(name, {}).get("why", ""), "cases": cases} for name, cases in now.items()}
    PINS.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
