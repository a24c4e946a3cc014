"""The preview of samples, and the data package together with the real renderer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tunesmith.config.data import DataConfig
from tunesmith.config.template import TemplateConfig
from tunesmith.core.errors import DataError
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
    found = preview(DataConfig(dataset=(name,)), real, tokenizer, stage="sft", rows=5)
    (row,) = found.rows
    assert found.notices[0].startswith("x.jsonl: read as alpaca")
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
    assert [(row.number, str(row.origin)) for row in found.rows] == [(3, "x.jsonl:4"), (4, "x.jsonl:5")]
    assert found.total == 5
    assert renderer.batches == [2]  # and no other row was rendered
    assert preview(DataConfig(dataset=(name,)), renderer, tokenizer, stage="sft", rows=2, start=9).rows == []


def test_rows_go_on_over_datasets_and_evaluation_data_is_shown_where_there_is_no_other(write, renderer, tokenizer):
    names = [write(f"{name}.jsonl", [{"instruction": "u", "output": name}] * 2) for name in "ab"]
    found = preview(DataConfig(dataset=tuple(names)), renderer, tokenizer, stage="sft", rows=2, start=1)
    assert [str(row.origin) for row in found.rows] == ["a.jsonl:2", "b.jsonl:1"]
    found = preview(DataConfig(eval_dataset=tuple(names)), renderer, tokenizer, stage="sft", rows=9)
    assert len(found.rows) == 4


def test_preview_says_what_is_cut(write, renderer, tokenizer):
    name = write("x.jsonl", [{"instruction": "u" * size, "output": "a" * 5} for size in (1, 4, 20)])
    found = preview(DataConfig(dataset=(name,), cutoff_len=8), renderer, tokenizer, stage="sft", rows=3).rows
    assert [row.note for row in found] == [
        None,
        "cut at cutoff_len: 3 tokens of the answer and its end are lost",
        "dropped: the prompt alone is longer than cutoff_len",
    ]
    assert [(row.tokens, row.trained, row.dropped) for row in found] == [(8, 6, False), (8, 3, False), (27, 6, True)]


def test_bad_rows_are_told_wherever_they_are(write, renderer, tokenizer):
    name = write("x.jsonl", [*[{"instruction": "u", "output": "a"}] * 8, {"instruction": "u", "output": 7}])
    config = DataConfig(dataset=(name,))
    with pytest.raises(DataError, match=r"x\.jsonl:9"):
        preview(config, renderer, tokenizer, stage="sft", rows=1)
    found = preview(replace(config, on_bad_row="skip"), renderer, tokenizer, stage="sft", rows=1)
    assert (found.total, found.datasets[0].rows, found.datasets[0].dropped.total()) == (8, 9, 1)


def test_a_shown_row_that_cannot_be_rendered(write, renderer, tokenizer):
    name = write("x.jsonl", [{"instruction": text, "output": "a"} for text in ("one", "unrenderable", "two")])
    config = DataConfig(dataset=(name,))
    with pytest.raises(DataError, match="no such thing"):
        preview(config, renderer, tokenizer, stage="sft", rows=3)
    found = preview(replace(config, on_bad_row="skip"), renderer, tokenizer, stage="sft", rows=3).rows
    assert [(row.number, row.note) for row in found] == [(0, None), (1, "dropped: no such thing"), (2, None)]


def test_packed_text_is_shown_as_documents_and_said_so(write, renderer, tokenizer):
    name = write("x.txt", "a first text\n\na second one\n")
    found = preview(DataConfig(dataset=(name,), cutoff_len=4), renderer, tokenizer, stage="pt", rows=9)
    assert all(row.note is None and row.tokens == row.trained > 4 for row in found.rows)
    assert found.notices[-1] == "documents are shown; training packs them into blocks of 4 tokens"
    config = DataConfig(dataset=(name,), cutoff_len=4, packing=False)
    found = preview(config, renderer, tokenizer, stage="pt", rows=9)
    assert all("cut at cutoff_len" in str(row.note) for row in found.rows)


def test_a_split_chat_is_several_samples_of_one_row(write, renderer, tokenizer, monkeypatch):
    monkeypatch.setattr(renderer, "encode_chats", lambda chats: [[renderer._chat(chat)] * 2 for chat in chats])
    name = write("x.jsonl", [{"instruction": "u", "output": "a"}] * 2)
    found = preview(DataConfig(dataset=(name,)), renderer, tokenizer, stage="sft", rows=2).rows
    assert [(row.number, row.sample, row.samples) for row in found] == [(0, 1, 2), (0, 2, 2), (1, 1, 2), (1, 2, 2)]


def test_pieces_of_a_sentencepiece_tokenizer_keep_their_blanks():
    """Its decoder drops the first blank of a whole; the pieces join to that whole all the same."""
    words = ["<s>", " Hi", " you", " Hello", "</s>"]

    def decode(ids):
        return "".join(words[index] for index in ids).removeprefix(" ")

    pieces = split_pieces([1, 2, 3, 4, 1], [False, False, True, True, False], decode)
    assert [piece.text for piece in pieces] == ["Hi", " you", " Hello", "</s>", " Hi"]


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
    assert texts.train.num_trained == texts.train.num_tokens


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


@pytest.mark.parametrize(
    ("policy", "note", "dropped"),
    [
        ("drop", "dropped: longer than cutoff_len (on_too_long: drop)", True),
        ("error", "a run stops here: longer than cutoff_len (on_too_long: error)", False),
        ("split", "split into 2 samples to fit cutoff_len", False),
    ],
)
def test_what_is_too_long_is_told_by_what_becomes_of_it(write, renderer, tokenizer, policy, note, dropped):
    turns = [{"role": role, "content": "abc"} for role in ("user", "assistant", "user", "assistant")]
    name = write("x.jsonl", [{"messages": turns}])
    config = DataConfig(dataset=(name,), cutoff_len=9, on_too_long=policy)
    (row,) = preview(config, renderer, tokenizer, stage="sft", rows=1).rows
    assert (row.note, row.dropped, row.tokens, row.lost) == (note, dropped, 16, ())


def test_what_cutoff_len_leaves_out_is_kept_apart(write, renderer, tokenizer):
    name = write("x.jsonl", [{"instruction": "uuuu", "output": "aaaaa"}])
    (row,) = preview(DataConfig(dataset=(name,), cutoff_len=8), renderer, tokenizer, stage="sft", rows=1).rows
    assert sum(len(piece.ids) for piece in row.pieces) == 8
    assert sum(len(piece.ids) for piece in row.lost) == 3
    assert {piece.why for piece in row.lost} == {"cut"}


def test_weights_of_datasets_are_shown(write, renderer, tokenizer):
    names = [write(f"{name}.jsonl", [{"instruction": "u", "output": "a"}]) for name in "ab"]
    config = DataConfig(dataset=({"path": names[0], "weight": 0.5}, names[1]))
    found = preview(config, renderer, tokenizer, stage="sft", rows=2).rows
    assert [{piece.weight for piece in row.pieces} for row in found] == [{0.5}, {1.0}]


def test_half_a_pair_is_shown_as_dropped(write, renderer, tokenizer):
    asked, long = {"role": "user", "content": "q"}, {"role": "user", "content": "u" * 20}
    good, bad = ({"role": "assistant", "content": text} for text in ("good", "bad"))
    rows = [
        {"prompt": [asked], "chosen": [good], "rejected": [bad]},
        {"prompt": [asked], "chosen": [good], "rejected": [{**bad, "weight": 0}]},
    ]
    name = write("x.jsonl", rows)
    found = preview(DataConfig(dataset=(name,)), renderer, tokenizer, stage="dpo", rows=5).rows
    assert [(row.number, row.label, row.note) for row in found] == [
        (0, "chosen", None),
        (0, "rejected", None),
        (1, "chosen", "dropped: the other answer of its pair is"),
        (1, "rejected", "dropped: nothing of it is trained"),
    ]
    write("y.jsonl", [{"prompt": [long]}, {"prompt": [asked]}])
    found = preview(DataConfig(dataset=("y.jsonl",), cutoff_len=9), renderer, tokenizer, stage="ppo", rows=5).rows
    assert [row.note for row in found] == [
        "dropped: the prompt alone is longer than cutoff_len",
        "a prompt: the model writes the answer, nothing of this is trained",
    ]
