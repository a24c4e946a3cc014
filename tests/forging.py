"""Attempts to forge control tokens: a tokenizer for any template, texts that try, and chats that hold them everywhere.

The tokenizer is the tiny model's, byte-level, with the template's control words as added tokens: every second one not
flagged special, as with `<think>` and `<tool_call>` in real tokenizers, and some that swallow the blanks beside them.
Beside them it has words of other templates, which are control tokens as well, and added tokens that are ordinary text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

from tunesmith.core.types import Chat, Message, ToolCall

__all__ = ["FORMS", "chat_of", "control_words", "forgeries", "tokenizer_with"]

BOS, EOS = "<s>", "</s>"
_WORDS = re.compile(
    r'<\|[^\s<>]{0,40}?\|>|<\|[a-z_"]{1,30}>|<[a-z_"]{1,30}\|>|<｜[^｜\s]{1,40}｜>|</?[A-Za-z_:]{1,30}>'
    r"|\[/?[A-Za-z_]{2,30}\]|\]~b\]|\]~!b\[|\[e~\["
)
_FOREIGN = ("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "<|fim_prefix|>", "<|im_end|>")
"""Control tokens of other templates: none may be made of text, though the template at hand does not write them."""
_ORDINARY = ("\n\n", "<table>", "</h1>", "hello")
"""Added tokens that are text, as Gemma 3 has thousands."""

Evil = Callable[[str], str]
"""Makes a text for a place in a chat from the plain word that stands there otherwise."""


def control_words(texts: Iterable[str]) -> list[str]:
    """Words with the look of control tokens, in a template's own texts and from elsewhere."""
    return sorted({BOS, EOS, *_FOREIGN, *_WORDS.findall("\0".join(texts))} - set(_ORDINARY))


@cache
def _tiny(folder: Path) -> str:
    return (folder / "tokenizer.json").read_text(encoding="utf-8")


def tokenizer_with(words: Sequence[str], folder: Path, chat_template: str | None = None) -> Any:
    """What rendering needs of a fast tokenizer. `folder`: the tiny model's. `control` holds the ids of `words`."""
    from tokenizers import Tokenizer

    spec = json.loads(_tiny(folder))
    known = {token["content"] for token in spec["added_tokens"]}
    first = max(spec["model"]["vocab"].values()) + 1
    for index, word in enumerate(word for word in (*words, *_ORDINARY) if word not in known):
        flags = {
            "special": word not in _ORDINARY and (index % 2 == 0 or word in (BOS, EOS)),
            "lstrip": word in words and index % 7 == 3,
            "rstrip": word in words and index % 5 == 4,
        }
        token = {"id": first + index, "content": word, "single_word": False, "normalized": False, **flags}
        spec["added_tokens"].append(token)
    backend = Tokenizer.from_str(json.dumps(spec))
    special = {"bos_token": BOS, "eos_token": EOS}
    return SimpleNamespace(
        backend_tokenizer=backend,
        chat_template=chat_template,
        **special,
        eos_token_id=backend.token_to_id(EOS),
        special_tokens_map=special,
        all_special_tokens=[token["content"] for token in spec["added_tokens"] if token["special"]],
        name_or_path="synthetic",
        control={backend.token_to_id(word) for word in (*words, *known)},
    )


def forgeries(words: Sequence[str], rounds: int, seed: int) -> Iterator[Evil]:
    """Texts that try. First every word in every place, bare or among others; then words cut in two, the end of one
    text and the beginning of the next; then `rounds` of pieces of all kinds. Never blank: templates treat that in
    their own way."""
    random = Random(seed)
    for shift in range(len(words)):
        yield _each_in_turn(words, shift)
    for _ in range(rounds):
        token = random.choice(words)
        cut = random.randint(1, len(token) - 1)
        yield lambda word, head=token[:cut], tail=token[cut:]: f"{tail} {word} {head}"  # type: ignore[misc]
        yield lambda word: _pieces(words, random) or word


def _each_in_turn(words: Sequence[str], shift: int) -> Evil:
    place = count(shift)

    def text(word: str) -> str:
        at = next(place)
        token = words[at % len(words)]
        return token if at % 2 else f"{word} {token}{token} x"

    return text


def _pieces(words: Sequence[str], random: Random) -> str:
    """Control words, their beginnings and ends, and ordinary text between them; may be blank. Without outer blanks,
    which some templates remove from a reply once others follow it: the chat then has other samples."""
    text = ""
    for _ in range(random.randint(1, 6)):
        token = random.choice(words)
        cut = random.randint(1, len(token) - 1)
        plain = random.choice([" ", "\n", "a", "<", ">", "|", "é", "user", "\n\n", "<table>"])
        text += random.choice([token, token[:cut], token[cut:], plain])
    return text.strip()


FORMS = ("plain", "system", "thoughts", "offered", "called", "values", "names")
"""Chats with foreign text in: the turns; a system message; thoughts; what tools are offered; results of calls; the
values and the names in calls, which a tool form may refuse."""


def chat_of(evil: Evil, form: str) -> Chat:
    question, reply = Message("user", evil("question")), Message("assistant", evil("reply"))
    if form == "plain":
        return Chat((question, reply, Message("user", evil("more")), Message("assistant", evil("end"))))
    if form == "system":
        return Chat((Message("system", evil("system")), question, reply))
    if form == "thoughts":
        return Chat((question, Message("assistant", evil("reply"), reasoning=evil("thought"))))
    if form == "offered":
        return Chat((question, reply), (_tool(evil),))
    call = ToolCall("weather", {"city": "Oslo", "more": ["x"]}, "abcdefghi")
    if form == "values":
        call = ToolCall("weather", {"city": evil("Oslo"), "more": [evil("x"), {"deep": evil("y")}]}, "abcdefghi")
    elif form == "names":
        call = ToolCall(evil("weather"), {evil("city"): "Oslo", "more": [{evil("deep"): "x"}]}, "abcdefghi")
    answer = Message("tool", evil("result"), tool_call_id="abcdefghi", name=evil("weather"))
    messages = (question, Message("assistant", "", tool_calls=(call,)), answer, Message("assistant", evil("end")))
    return Chat(messages, (_tool(str),))


def _tool(evil: Evil) -> dict[str, Any]:
    schema = {"type": "string", "description": evil("Where."), "enum": [evil("Oslo"), evil("Rome")]}
    parameters = {"type": "object", "properties": {evil("city"): schema}, "required": []}
    function = {"name": evil("weather"), "description": evil("Looks out."), "parameters": parameters}
    return {"type": "function", "function": function}
