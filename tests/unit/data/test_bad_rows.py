"""Rows that people feed to a fine-tuning tool by mistake, one folder of fixtures each: what is said, with which code,
which rows it names; and those that are read all the same.

The numbers are those of the corpus; `tests/assets/README.md` says what each folder holds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tunesmith.config import load_config
from tunesmith.config.data import DataConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.data.reading import LoadedDataset, load_datasets

FOLDER = Path(__file__).resolve().parents[2] / "assets" / "bad_data"

REFUSED: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    # folder/dataset: stage, code, and what the message holds
    "B24/declared": (
        "sft",
        "E-DATA-011",
        'no row has the column "instruction"',
        ("dataset: [{path: rows.jsonl, format: alpaca, columns: {prompt: prompt, response: response}}]",),
    ),
    "B24/nameless.jsonl": ("sft", "E-DATA-022", "columns: q, a", ("dataset: [{path: nameless.jsonl", '"my_data"')),
    "B25/slip": ("sft", "E-DATA-021", 'unknown key "promt"', ('did you mean "prompt"',)),
    "B26/rows.jsonl": ("sft", "E-DATA-012", "empty", ("4 of 4 rows",)),
    "B27/null.jsonl": ("sft", "E-DATA-013", 'null (field "output")', ("5 of 5 rows", "null.jsonl:1, :2, :3")),
    "B27/number.jsonl": ("sft", "E-DATA-014", "a number where text is needed", ("5 of 5 rows", "number.jsonl:1, :2")),
    "B28/rows.jsonl": ("sft", "E-DATA-013", "20 of 40 rows", ("rows.jsonl:1, :3, :5, :7, :9 and 15 more",)),
    "B29/rows.jsonl": ("sft", "E-DATA-014", "a list where text is needed", ("rows.jsonl:4, :5, :6",)),
    "B30/rows.jsonl": ("sft", "E-DATA-014", 'a list where text is needed (field "instruction")', ("3 of 3 rows",)),
    "B31/unknown.jsonl": ("sft", "E-DATA-015", "unknown roles 'USER', 'BOT'", ("roles of the row: USER, BOT", "tags")),
    "B32/rows.jsonl": (
        "sft",
        "E-DATA-015",
        "unknown roles 'customer', 'agent' (known:",
        ("3 of 7 rows", "unknown role 'agent' (known:", "1 of 7 rows", "rows.jsonl:1, :3, :5"),
    ),
    "B33/two_users.jsonl": ("sft", "E-DATA-016", "a user message where", ("message 4 of 5", "merge_consecutive")),
    "B33/no_answer.jsonl": ("sft", "E-DATA-016", "no assistant message", ("message 1 of 1",)),
    "B33/answer_first.jsonl": ("sft", "E-DATA-016", "does not begin with a user message", ("message 1 of 3",)),
    "B34/declared": (
        "sft",
        "E-DATA-011",
        'no row has the column "conversations"',
        ("look like openai", "format: openai, columns: {messages: messages}"),
    ),
    "B35/rows.jsonl": ("sft", "E-DATA-013", "null", ("rows.jsonl:2", "message 3 of 4")),
    "B36/rows.jsonl": ("sft", "E-DATA-016", "no messages", ("rows.jsonl:2",)),
    "B37/declared": ("sft", "E-DATA-011", 'no row has the column "instruction"', ("the rows look like sharegpt",)),
    "B39/rows.jsonl": ("dpo", "E-DATA-060", "chosen and rejected are the same", ("2 of 4 rows", "rows.jsonl:2, :4")),
    "B40/no_column.jsonl": ("dpo", "E-DATA-011", "no column for the meaning rejected", ("columns: prompt, chosen",)),
    "B40/some_rows.jsonl": ("dpo", "E-DATA-011", 'missing (field "rejected")', ("1 of 3 rows", "some_rows.jsonl:2")),
    "B41/rows.jsonl": (
        "dpo",
        "E-DATA-027",
        "the rows look like alpaca",
        ("needs chosen and rejected as well", "stage: sft or ppo"),
    ),
    "B41/mapped": ("dpo", "E-DATA-011", "name no chosen", ("name no rejected", "the rows fit stage sft or ppo")),
    "B41/declared": ("kto", "E-DATA-011", 'no row has the column "kto_tag"', ("the rows fit stage sft or ppo",)),
    "B42/only_liked.jsonl": ("kto", "E-DATA-061", "all 3 labels are true", ("stage: sft",)),
    "B42/words.jsonl": ("kto", "E-DATA-061", "neither true nor false", ("4 of 4 rows", "no")),
    "B43/arguments.jsonl": ("sft", "E-DATA-017", "not valid JSON", ("arguments.jsonl:2", "message 2 of 4")),
    "B43/no_call.jsonl": ("sft", "E-DATA-016", "a tool result that no tool call asked for", ("no_call.jsonl:2",)),
    "B43/same_ids.jsonl": ("sft", "E-DATA-017", "the same id", ("same_ids.jsonl:2", "message 2 of 5")),
    "B43/other_id.jsonl": ("sft", "E-DATA-017", "a call that is not there", ("other_id.jsonl:2", "'2'; calls: 1")),
    "B45/surrogate.jsonl": ("sft", "E-DATA-004", "half a character", ("surrogate.jsonl:2",)),
    "B48/number.jsonl": ("sft", "E-DATA-003", "beyond 2^53", ("number.jsonl:2", "9007199254740993")),
    "B48/nan.jsonl": ("sft", "E-DATA-003", "NaN is not JSON", ("nan.jsonl:2",)),
    "B48/nan.json": ("sft", "E-DATA-003", "NaN is not JSON", ("nan.json:2",)),
    "B48/deep.jsonl": ("sft", "E-DATA-003", "nested too deeply", ("deep.jsonl:2",)),
    "B48/deep.json": ("sft", "E-DATA-003", "nested too deeply", ("deep.json:1",)),
    "B48/deep_call.jsonl": ("sft", "E-DATA-017", "not valid JSON", ("deep_call.jsonl:2",)),
    "B49/rows.jsonl": ("pt", "E-DATA-012", "an empty text", ("3 of 3 rows",)),
    "B50/none": ("sft", "E-DATA-021", "num_samples is 0", ("1 or more",)),
}

READ: dict[str, tuple[str, int, tuple[str, ...]]] = {
    # folder/dataset: stage, rows, notices
    "B23/rows.jsonl": ("sft", 3, ("read as alpaca (prompt: instruction, response: output)",)),
    "B24/rows.jsonl": ("sft", 3, ("read as alpaca (prompt: prompt, response: response)",)),
    "B31/rows.jsonl": ("sft", 3, ("read as sharegpt",)),
    "B31/tagged": ("sft", 3, ()),
    "B33/merged": ("sft", 2, ()),
    "B34/rows.jsonl": ("sft", 3, ("read as openai (messages: messages)",)),
    "B34/mapped": ("sft", 3, ()),
    "B44/rows.jsonl": ("sft", 3, ()),
    "B45/nul.jsonl": ("sft", 3, ("a text holds the character NUL: 2 rows (first: nul.jsonl:2)",)),
    "B45/marks.jsonl": ("sft", 1, ()),
    "B46/rows.jsonl": ("sft", 2, ('the key "output" stands twice', "1 row (first: rows.jsonl:2)")),
    "B46/rows.json": ("sft", 2, ('the key "content" stands twice', "1 row (first: rows.json:3)")),
}


def load(case: str, monkeypatch: pytest.MonkeyPatch, stage: str, **settings) -> list[LoadedDataset]:
    folder, name = case.split("/")
    monkeypatch.chdir(FOLDER / folder)
    return load_datasets(DataConfig(dataset=(name,), dataset_dir=".", **settings), stage=stage, seed=1)


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, monkeypatch):
    stage, code, first, said = REFUSED[case]
    with pytest.raises(TunesmithError) as caught:
        load(case, monkeypatch, stage)
    told = str(caught.value)
    assert f"error[{code}]" in told
    for words in (first, *said):
        assert words in told
    assert caught.value.exit_code == 65
    assert all(problem.fix for problem in caught.value.problems if problem.code != "E-DATA-003")


@pytest.mark.parametrize("case", READ)
def test_read_all_the_same(case, monkeypatch):
    stage, rows, said = READ[case]
    (loaded,) = load(case, monkeypatch, stage)
    assert (len(loaded.examples), loaded.report.rows) == (rows, rows)
    for words in said:
        assert any(words in notice for notice in loaded.notices), loaded.notices


def test_every_fixture_is_read_by_a_test():
    """Files of each folder, or entries of its table that name them."""
    tested = {case.split("/")[0] for case in (*REFUSED, *READ)}
    assert tested == {path.name for path in FOLDER.iterdir() if path.name >= "B23"}
    for folder in tested:
        named = {case.split("/")[1] for case in (*REFUSED, *READ) if case.startswith(f"{folder}/")}
        table = FOLDER / folder / "dataset_info.json"
        entries = json.loads(table.read_text()) if table.exists() else {}
        named |= {entries[name]["file_name"] for name in named & set(entries)}
        assert set(entries) <= named
        assert {path.name for path in (FOLDER / folder).iterdir()} - {"dataset_info.json"} <= named


def test_B28_half_of_a_dataset_is_left_out_only_within_a_stated_limit(monkeypatch, tmp_path):
    (loaded,) = load("B28/rows.jsonl", monkeypatch, "sft", on_bad_row="skip", max_bad_rows=20)
    assert (len(loaded.examples), loaded.report.dropped) == (20, {'the field is null (field "output")': 20})
    with pytest.raises(TunesmithError, match="20 rows cannot be used, max_bad_rows allows 19"):
        load("B28/rows.jsonl", monkeypatch, "sft", on_bad_row="skip", max_bad_rows=19)
    run = {"model_name_or_path": "m", "dataset": "rows.jsonl", "output_dir": str(tmp_path), "on_bad_row": "skip"}
    with pytest.raises(TunesmithError, match="max_bad_rows") as caught:
        load_config(run)
    assert caught.value.exit_code == 2
    assert load_config({**run, "max_bad_rows": 20}).data.max_bad_rows == 20


def test_B33_merged_turns(monkeypatch):
    (loaded,) = load("B33/merged", monkeypatch, "sft")
    assert [message.role for message in loaded.examples[0].messages] == ["user", "assistant", "user", "assistant"]
    assert loaded.examples[0].messages[2].content == "What do you do?\nWhere are you from?"


def test_B44_words_of_the_model_stay_text(monkeypatch, tiny_model):
    from transformers import AutoTokenizer

    from tunesmith.config.template import TemplateConfig
    from tunesmith.render import make_renderer

    (loaded,) = load("B44/rows.jsonl", monkeypatch, "sft")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    opening = tokenizer.convert_tokens_to_ids("<|im_start|>")
    clean, forged, trained = make_renderer(TemplateConfig(), tokenizer).encode_chats(loaded.examples)
    assert "<|im_start|>" in loaded.examples[1].messages[0].content
    assert "<|im_end|>" in loaded.examples[2].messages[1].content
    for (sample,) in (clean, forged, trained):  # a turn of the user, one of the assistant, and no more
        assert list(sample.ids).count(opening) == 2
        assert list(sample.ids).count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2


def test_B44_texts_with_words_of_the_model_are_counted(monkeypatch, tiny_model):
    from transformers import AutoTokenizer

    from tunesmith.config.template import TemplateConfig
    from tunesmith.data import build_datasets
    from tunesmith.render import make_renderer

    monkeypatch.chdir(FOLDER / "B44")
    renderer = make_renderer(TemplateConfig(), AutoTokenizer.from_pretrained(tiny_model))
    report = build_datasets(DataConfig(dataset=("rows.jsonl",)), renderer, stage="sft", seed=1).report
    told = [notice for notice in report.notices if "which stays text" in notice]
    assert told == [
        'a text holds "<|im_end|>", which stays text (trusted_markup: true means it): 2 rows (first: rows.jsonl:2)'
    ]


def test_B45_marks_that_are_not_composed_are_told_by_the_check(monkeypatch):
    from tunesmith.data.lint.run import lint

    monkeypatch.chdir(FOLDER / "B45")
    findings = {one.code: one for one in lint(DataConfig(dataset=("marks.jsonl",)), stage="sft").report.findings}
    assert "NFC" in findings["E-LINT-021"].what
    assert str(findings["E-LINT-021"].places[0].origin) == "marks.jsonl:1"


def test_B46_the_last_value_is_the_one_that_is_read(monkeypatch):
    (loaded,) = load("B46/rows.jsonl", monkeypatch, "sft")
    assert loaded.examples[1].messages[-1].content == "A robot."


def test_B47_copies_and_evaluation_rows_in_the_training_data_are_told_with_their_number(monkeypatch, tmp_path):
    """30 of 100 training rows are the same; 5 of 10 evaluation rows are among them. The gate is the command line's."""
    from tunesmith.data.lint.run import lint

    monkeypatch.chdir(tmp_path)
    words = [f"{left} {right}" for left in "abcdefghij" for right in "klmnopqrst"]
    rows = [{"instruction": f"What is {word}?", "output": f"It is {word}."} for word in words]
    files = {"train.jsonl": [*rows[:71], *rows[:1] * 29], "held.jsonl": rows[66:76]}
    for name, content in files.items():
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in content))
    report = lint(DataConfig(dataset=("train.jsonl",), eval_dataset=("held.jsonl",)), stage="sft").report
    findings = {one.code: one for one in report.findings}
    assert [(findings[code].count, findings[code].total) for code in ("E-LINT-007", "E-LINT-009")] == [
        (29, 100),
        (5, 10),
    ]
    assert not report.fails(strict=False, on_leak=False)
    assert report.fails(strict=False, on_leak=True)


def test_B50_a_range_of_the_config():
    run = {"model_name_or_path": "m", "dataset": str(FOLDER / "B50" / "rows.jsonl"), "max_samples": -3}
    with pytest.raises(TunesmithError, match=r'"max_samples".*at least 1') as caught:
        load_config({**run, "output_dir": os.devnull})
    assert (caught.value.exit_code, caught.value.code) == (2, "E-CONFIG-004")
