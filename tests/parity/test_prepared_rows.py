"""What training reads is what transformers' tokenizer gives, one row at a time: every id and every mask entry.

The reference knows nothing of runs, shapes, processes or the faster encoder: it renders the whole text of a row,
encodes it with the model's own tokenizer, control tokens and all, and trains a token if one of its characters is
trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.types import Chat, Text
from tunesmith.data import build_datasets, read_examples
from tunesmith.data import prepare as prepare_module
from tunesmith.render import Renderer, make_renderer
from tunesmith.render.spans import join_text

pytestmark = pytest.mark.slow

ROWS = 5000
TEMPLATES = {"qwen3": "official/Qwen-Qwen3-0.6B.jinja", "llama3": "older/llama-3-instruct.jinja"}


@pytest.fixture(scope="module", params=TEMPLATES)
def model(request: pytest.FixtureRequest, assets: Path) -> tuple[Any, Renderer]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(assets / "tokenizers" / request.param)
    tokenizer.chat_template = (assets / "templates" / TEMPLATES[request.param]).read_text()
    return tokenizer, make_renderer(TemplateConfig(), tokenizer)


def write(name: str, pairs: list[tuple[str, str]], folder: Path) -> Path:
    """The pairs in a format, ROWS rows."""
    rows: list[dict[str, Any]] = []
    for index in range(ROWS):
        (ask, reply), (second, other) = pairs[index % len(pairs)], pairs[(index + 1) % len(pairs)]
        if name == "alpaca":
            rows.append({"instruction": ask, "input": "", "output": reply, "system": "Be kind." if index % 3 else ""})
        elif name == "sharegpt":
            turns = [("human", ask), ("gpt", reply), ("human", second), ("gpt", other)]
            rows.append({"conversations": [{"from": who, "value": text} for who, text in turns]})
        elif name == "openai":
            reply_ = {"role": "assistant", "content": reply, **({"reasoning_content": other} if index % 5 == 0 else {})}
            rows.append({"messages": [{"role": "user", "content": ask}, reply_]})
        else:
            rows.append({"text": f"{ask}\n\n{reply}"})
    file = folder / f"{name}.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    return file


def reference(tokenizer: Any, renderer: Renderer, row: Any) -> list[tuple[list[int], list[bool]]]:
    if isinstance(row, Text):
        ids = [*tokenizer(row.text)["input_ids"], tokenizer.eos_token_id]
        return [(ids, [True] * len(ids))]
    assert isinstance(row, Chat)
    found = []
    for spans in renderer.template.samples(row):
        trained = [span.trained for span in spans for _ in span.text]
        encoded = tokenizer(join_text(spans), add_special_tokens=False, return_offsets_mapping=True)
        mask = [any(trained[start:end]) for start, end in encoded["offset_mapping"]]
        found.append((encoded["input_ids"], mask))
    return found


@pytest.mark.parametrize("name", ["alpaca", "sharegpt", "openai", "text"])
def test_5000_rows_of_every_format(
    name: str, model: tuple[Any, Renderer], assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, renderer = model
    monkeypatch.setattr(prepare_module, "MANY_BYTES", 1)  # the ways of large files
    source = json.loads((assets / "data" / "sft" / "alpaca_5000.json").read_text())
    pairs = [(f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in source]
    pairs = [(ask, reply) for ask, reply in pairs if reply.strip() and "<" not in ask + reply]
    file = write(name, pairs, tmp_path)
    stage = "pt" if name == "text" else "sft"
    config = DataConfig(dataset=(str(file),), cutoff_len=100_000, packing=False)
    train = build_datasets(config, renderer, stage=stage, seed=1).train
    assert train is not None
    rows = read_examples(config, stage=stage)
    assert len(rows) == ROWS
    expected = [sample for row in rows for sample in reference(tokenizer, renderer, row)]
    assert len(train) == len(expected)
    for index, (ids, mask) in enumerate(expected):
        assert train[index]["input_ids"].tolist() == ids, str(train.origin(index))
        assert train[index]["trained"].tolist() == mask, str(train.origin(index))
