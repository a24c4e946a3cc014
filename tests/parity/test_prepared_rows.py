"""What training reads is what transformers' tokenizer gives, one row at a time: every id and every mask entry.

The reference knows nothing of runs, shapes, processes or the faster encoder: it renders the whole text of a row,
encodes it with the model's own tokenizer, control tokens and all, and trains a token if one of its characters is
trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Example, Feedback, Message, Preference, Prompt, Text
from tunesmith.data import build_datasets, read_examples
from tunesmith.data import prepare as prepare_module
from tunesmith.data.dataset import CHOSEN, DISLIKED, LIKED, PLAIN, PROMPT, REJECTED
from tunesmith.data.pack import PackedDataset
from tunesmith.render import Renderer, make_renderer
from tunesmith.render.spans import join_text

pytestmark = pytest.mark.slow

ROWS = 5000
TEMPLATES = {
    "qwen3": ("official/Qwen-Qwen3-0.6B.jinja", "official/Qwen-Qwen3-0.6B.jinja"),
    "llama3": ("older/llama-3-instruct.jinja", "official/meta-llama-Llama-3.1-8B-Instruct.jinja"),
}
"""Of each tokenizer a template, and one that writes tools."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Texts:
    """What a row is written of: two questions with their answers, and the number of the row."""

    ask: str
    reply: str
    second: str
    other: str
    number: int

    @property
    def worse(self) -> str:
        return f"{self.other}\nNo."


def chat(*texts: str) -> list[Row]:
    """Questions and answers by turns, as OpenAI writes them."""
    return [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]


def talk(*texts: str) -> list[Row]:
    """The same as sharegpt writes them."""
    return [{"from": "gpt" if at % 2 else "human", "value": text} for at, text in enumerate(texts)]


def answer(text: str, thought: str | None = None) -> Row:
    return {"role": "assistant", "content": text, **({"reasoning_content": thought} if thought else {})}


TOOL = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Looks it up.", "parameters": TOOL}}]


def call(t: Texts, thought: str | None = None) -> list[Row]:
    """A call and its result, and the answer that follows them. With a thought, Qwen3 writes the call alike wherever it
    stands, so that all is one sequence."""
    function = {"name": "look_up", "arguments": json.dumps({"text": t.second, "at": t.number})}
    calls = [{"id": f"call{t.number:05}", "type": "function", "function": function}]
    result = {"role": "tool", "content": t.other, "tool_call_id": f"call{t.number:05}"}
    return [{**answer("", thought), "tool_calls": calls}, result, answer(t.reply)]


def every(t: Texts, count: int) -> bool:
    return t.number % count == 0


FORMATS: Mapping[str, tuple[str, Callable[[Texts], Row]]] = {
    "alpaca": (
        "sft",
        lambda t: {"instruction": t.ask, "input": "", "output": t.reply, "system": "" if every(t, 3) else "Be kind."},
    ),
    "sharegpt": ("sft", lambda t: {"conversations": talk(t.ask, t.reply, t.second, t.other)}),
    "openai": ("sft", lambda t: {"messages": [*chat(t.ask), answer(t.reply, t.other if every(t, 5) else None)]}),
    "openai with tools": (
        "sft",
        lambda t: {"messages": [*chat(t.ask), *(call(t) if every(t, 2) else [answer(t.reply)])], "tools": TOOLS},
    ),
    "trl": ("sft", lambda t: {"prompt": chat(t.ask, t.reply, t.second), "completion": [answer(t.other)]}),
    "trl texts": ("sft", lambda t: {"prompt": t.ask, "completion": t.reply}),
    "text": ("pt", lambda t: {"text": f"{t.ask}\n\n{t.reply}"}),
    "alpaca pairs": (
        "dpo",
        lambda t: {
            "instruction": t.ask,
            "input": t.second if every(t, 4) else "",
            "chosen": t.reply,
            "rejected": t.worse,
            "history": [[t.second, t.other]] if every(t, 3) else [],
        },
    ),
    "sharegpt pairs": (
        "rm",
        lambda t: {
            "conversations": talk(t.second, t.other, t.ask) if every(t, 2) else talk(t.ask),
            "chosen": {"from": "gpt", "value": t.reply},
            "rejected": {"from": "gpt", "value": t.worse},
        },
    ),
    "openai pairs": (
        "dpo",
        lambda t: {
            "messages": [{"role": "system", "content": "Be kind."}, *chat(t.ask)],
            "chosen": answer(t.reply, t.second if every(t, 5) else None),
            "rejected": answer(t.worse, t.other if every(t, 7) else None),
        },
    ),
    "openai pairs with tools": (
        "dpo",
        lambda t: {
            "messages": chat(t.ask),
            "chosen": call(t, "Hm."),
            "rejected": [answer(t.worse)],
            "tools": TOOLS,
        },
    ),
    "trl pairs": (
        "dpo",
        lambda t: {
            side: chat(*([t.second, t.other] if every(t, 3) else []), t.ask, text)
            for side, text in (("chosen", t.reply), ("rejected", t.worse))
        },
    ),
    "alpaca feedback": (
        "kto",
        lambda t: {"instruction": t.ask, "output": t.reply, "kto_tag": every(t, 2), "history": [[t.second, t.other]]},
    ),
    "openai feedback": (
        "kto",
        lambda t: {"messages": [*chat(t.ask), answer(t.reply, t.other if every(t, 5) else None)], "label": every(t, 3)},
    ),
    "alpaca prompts": ("ppo", lambda t: {"instruction": t.ask, "system": "" if every(t, 3) else "Be kind."}),
    "openai prompts": ("ppo", lambda t: {"messages": chat(t.ask, t.reply, t.second) if every(t, 2) else chat(t.ask)}),
}
"""Name -> stage, and a row of it."""


@pytest.fixture(scope="module", params=TEMPLATES)
def models(request: pytest.FixtureRequest, assets: Path) -> list[tuple[Any, Renderer]]:
    from transformers import AutoTokenizer

    made = []
    for file in TEMPLATES[request.param]:
        tokenizer = AutoTokenizer.from_pretrained(assets / "tokenizers" / request.param)
        tokenizer.chat_template = (assets / "templates" / file).read_text()
        made.append((tokenizer, make_renderer(TemplateConfig(), tokenizer)))
    return made


def write(row: Callable[[Texts], Row], pairs: Sequence[tuple[str, str]], file: Path) -> None:
    """ROWS rows of the pairs."""
    with file.open("w") as out:
        for number in range(ROWS):
            first, second = pairs[number % len(pairs)], pairs[(number + 1) % len(pairs)]
            out.write(json.dumps(row(Texts(*first, *second, number))) + "\n")


def chats(row: Example) -> Iterator[tuple[int, Chat]]:
    """The kind and the chat of each sequence: of a prompt nothing is trained, of an answer all replies."""

    def whole(prompt: Sequence[Message], answer: Sequence[Message], tools: Sequence[Row]) -> Chat:
        marked = [
            replace(message, trained=place >= len(prompt)) if message.role == "assistant" else message
            for place, message in enumerate([*prompt, *answer])
        ]
        return Chat(marked, tools)

    match row:
        case Chat():
            yield PLAIN, row
        case Preference(prompt, chosen, rejected, tools):
            yield CHOSEN, whole(prompt, chosen, tools)
            yield REJECTED, whole(prompt, rejected, tools)
        case Feedback(prompt, answer, liked, tools):
            yield LIKED if liked else DISLIKED, whole(prompt, answer, tools)
        case Prompt(messages, tools):
            yield PROMPT, Chat(messages, tools)


def reference(tokenizer: Any, renderer: Renderer, row: Example) -> Iterator[tuple[int, list[int], list[bool]]]:
    """(kind, ids, mask) of each sequence."""
    if isinstance(row, Text):
        ids = [*tokenizer(row.text)["input_ids"], tokenizer.eos_token_id]
        yield PLAIN, ids, [True] * len(ids)
        return
    template = renderer.template
    for kind, one in chats(row):
        for spans in [template.prompt(one, True)] if kind == PROMPT else template.samples(one):
            trained = [span.trained for span in spans for _ in span.text]
            encoded = tokenizer(join_text(spans), add_special_tokens=False, return_offsets_mapping=True)
            mask = [any(trained[start:end]) for start, end in encoded["offset_mapping"]]
            yield kind, encoded["input_ids"], mask


@pytest.mark.parametrize("name", FORMATS)
def test_5000_rows_of_every_format(
    name: str, models: list[tuple[Any, Renderer]], assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, renderer = models["with tools" in name]
    monkeypatch.setattr(prepare_module, "MANY_BYTES", 1)  # the ways of large files
    source = json.loads((assets / "data" / "sft" / "alpaca_5000.json").read_text())
    pairs = [(f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in source]
    pairs = [(ask, reply) for ask, reply in pairs if reply.strip() and "<" not in ask + reply]
    stage, row = FORMATS[name]
    file = tmp_path / "rows.jsonl"
    write(row, pairs, file)
    config = DataConfig(dataset=(str(file),), cutoff_len=100_000, packing=False)
    train = build_datasets(config, renderer, stage=stage, seed=1).train
    assert train is not None
    if stage in ("rm", "dpo"):
        assert isinstance(train, PackedDataset)
        assert len(train) == ROWS
        train = train.pieces
    assert not isinstance(train, PackedDataset)
    rows = read_examples(config, stage=stage)
    assert len(rows) == ROWS
    expected = [sample for row in rows for sample in reference(tokenizer, renderer, row)]
    assert train.kinds.tolist() == [kind for kind, _, _ in expected]
    for index, (kind, ids, mask) in enumerate(expected):
        assert train[index]["input_ids"].tolist() == ids, str(train.origin(index))
        assert train[index]["trained"].tolist() == mask, str(train.origin(index))
        assert any(mask) == (kind != PROMPT)
