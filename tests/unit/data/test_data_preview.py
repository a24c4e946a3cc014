"""The preview of samples, and the data package together with the real renderer."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.data import build_datasets
from tunesmith.data.preview import preview, split_pieces
from tunesmith.render import make_renderer


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def real(tokenizer):
    return make_renderer(TemplateConfig(), tokenizer)


def test_pieces_are_the_text_and_show_what_is_trained(write, real, tokenizer):
    name = write("x.jsonl", [{"instruction": "Say ü 🜂!", "output": "A cow lives in a 🜂 barn."}])
    (row,) = preview(DataConfig(dataset=(name,)), real, tokenizer, stage="sft", rows=5)
    assert "".join(piece.text for piece in row.pieces) == (
        "<|im_start|>user\nSay ü 🜂!<|im_end|>\n<|im_start|>assistant\nA cow lives in a 🜂 barn.<|im_end|>\n"
    )
    trained = "".join(piece.text for piece in row.pieces if piece.trained)
    assert trained == "A cow lives in a 🜂 barn.<|im_end|>"
    assert row.tokens == sum(len(piece.ids) for piece in row.pieces)
    assert row.trained == sum(len(piece.ids) for piece in row.pieces if piece.trained)
    assert row.note is None


def test_preview_shows_the_rows_that_were_asked_for(write, renderer, tokenizer):
    name = write("x.jsonl", [{"instruction": "u", "output": letter} for letter in "abcde"])
    found = preview(DataConfig(dataset=(name,)), renderer, tokenizer, stage="sft", rows=2, start=3)
    assert [str(row.origin) for row in found] == ["x.jsonl:4", "x.jsonl:5"]
    assert preview(DataConfig(dataset=(name,)), renderer, tokenizer, stage="sft", rows=2, start=9) == []


def test_preview_says_what_is_cut(write, renderer, tokenizer):
    name = write("x.jsonl", [{"instruction": "u" * size, "output": "a" * 5} for size in (1, 4, 20)])
    found = preview(DataConfig(dataset=(name,), cutoff_len=8), renderer, tokenizer, stage="sft", rows=3)
    assert [row.note for row in found] == [
        None,
        "cut at cutoff_len: 3 tokens of the answer and its end are lost",
        "dropped: the prompt alone is longer than cutoff_len",
    ]
    assert [(row.tokens, row.trained, row.dropped) for row in found] == [(8, 6, False), (8, 3, False), (27, 6, True)]


def test_pieces_keep_split_characters_together():
    text = "aé🜂"

    def decode(ids):
        return bytes(ids).decode("utf-8", "replace")

    ids = list(text.encode())
    pieces = split_pieces(ids, [False] * len(ids), decode)
    assert [(piece.text, len(piece.ids)) for piece in pieces] == [("a", 1), ("é", 2), ("🜂", 4)]


def test_every_shipped_dataset_loads_with_the_real_renderer(real, tiny_data):
    names = ("known", "known_csv", "chats", "chats_openai", "new")
    config = DataConfig(dataset=names, eval_dataset=("new_heldout",), dataset_dir=str(tiny_data))
    datasets = build_datasets(config, real, stage="sft", seed=1)
    assert [one.dropped.total() for one in datasets.report.datasets] == [0] * 6
    for sample in datasets.train:
        ends = np.flatnonzero(np.diff(sample["trained"].astype(int), append=0) == -1)
        assert set(sample["input_ids"][ends].tolist()) <= set(real.stop_ids)  # each answer ends with its stop
    texts = build_datasets(DataConfig(dataset=("stories",), dataset_dir=str(tiny_data)), real, stage="pt", seed=1)
    assert texts.train.trained.all()


def test_an_alpaca_file_of_the_field_keeps_all_its_rows(real, assets):
    name = str(assets / "data" / "sft" / "alpaca_en_demo.json")
    datasets = build_datasets(DataConfig(dataset=(name,), cutoff_len=8192), real, stage="sft", seed=1)
    assert len(datasets.train) == 999
    assert str(datasets.train.origin(1)) == f"{name}:7"


def test_tool_calls_of_the_field_are_read(assets):
    from tunesmith.data import read_examples

    name = str(assets / "data" / "tools" / "glaive_toolcall_en_demo.json")
    examples = read_examples(DataConfig(dataset=(name,)), stage="sft")
    assert len(examples) == 300
    assert any(message.tool_calls for example in examples for message in example.messages)
