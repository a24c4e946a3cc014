"""From the data section of a config to token arrays and the report."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import DataError, UsageError
from tunesmith.data import build_datasets, read_examples


def rows(*answers, prompt="u"):
    return [{"instruction": prompt, "output": answer} for answer in answers]


def build(renderer, *, stage="sft", seed=1, **settings):
    return build_datasets(DataConfig(**settings), renderer, stage=stage, seed=seed)


def texts(dataset) -> list[str]:
    """The trained text of each sample, stops written as a dot."""
    return [bytes(s["input_ids"][s["trained"]].tolist()).replace(b"\0", b".").decode() for s in dataset]


def test_rows_become_tokens_with_their_place(write, renderer):
    datasets = build(renderer, dataset=(write("x.jsonl", rows("a", "bc")),))
    assert [sample["input_ids"].tolist() for sample in datasets.train] == [[117, 0, 97, 0], [117, 0, 98, 99, 0]]
    assert datasets.train[0]["trained"].tolist() == [False, False, True, True]
    assert str(datasets.train.origin(1)) == "x.jsonl:2"
    assert datasets.eval == {}


def test_the_detected_format_is_said(write, renderer):
    (row,) = rows("a")
    report = build(renderer, dataset=(write("x.jsonl", [{"id": 1, **row, "images": []}]),)).report
    assert report.notices == ["x.jsonl: read as alpaca (prompt: instruction, response: output); not read: id, images"]
    assert report.lines()[0].startswith("note: x.jsonl: read as alpaca")


def test_max_samples_takes_the_first_rows_of_each_dataset_and_reads_no_further(write, renderer):
    write("x.jsonl", "".join(json.dumps(row) + "\n" for row in rows("a", "b")) + "{broken\n")
    write("y.jsonl", rows("c", "d", "e"))
    datasets = build(renderer, dataset=("x.jsonl", "y.jsonl"), max_samples=2)
    assert texts(datasets.train) == ["a.", "b.", "c.", "d."]


def test_num_samples_takes_rows_at_random_with_the_seed(write, renderer):
    write("data/x.jsonl", rows(*"abcdefghij"))
    write("data/dataset_info.json", {"few": {"file_name": "x.jsonl", "num_samples": 4}})
    found = texts(build(renderer, dataset=("few",)).train)
    assert found == texts(build(renderer, dataset=("few",)).train)
    assert len(set(found)) == 4
    assert found != texts(build(renderer, dataset=("few",), seed=2).train)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("concat", ["a.", "b.", "c.", "x."]),
        ("interleave_under", ["a.", "x."]),
        ("interleave_over", ["a.", "x.", "b.", "x.", "c."]),
        ("interleave_once", ["a.", "x.", "b.", "c."]),
    ],
)
def test_several_datasets_are_mixed(write, renderer, strategy, expected):
    write("x.jsonl", rows(*"abc"))
    write("y.jsonl", rows("x"))
    assert texts(build(renderer, dataset=("x.jsonl", "y.jsonl"), mix_strategy=strategy).train) == expected


@pytest.mark.parametrize(("val_size", "held"), [(1, 1), (3, 3), (0.2, 2), (0.25, 3), (0.3, 3), (0.01, 1)])
def test_val_size_holds_rows_out(write, renderer, val_size, held):
    name = write("x.jsonl", rows(*"abcdefghij"))
    datasets = build(renderer, dataset=(name,), val_size=val_size)
    train, validation = texts(datasets.train), texts(datasets.eval["validation"])
    assert (len(train), len(validation)) == (10 - held, held)
    assert sorted(train + validation) == [f"{letter}." for letter in "abcdefghij"]
    assert train == sorted(train)  # the order of the file
    assert validation == texts(build(renderer, dataset=(name,), val_size=val_size).eval["validation"])


def test_a_repeated_row_is_not_in_both_parts(write, renderer):
    write("x.jsonl", rows(*"abcdefgh"))
    write("y.jsonl", rows("x", "y"))
    settings = {"dataset": ("x.jsonl", "y.jsonl"), "mix_strategy": "interleave_over", "val_size": 5}
    datasets = build(renderer, **settings)
    assert not set(texts(datasets.train)) & set(texts(datasets.eval["validation"]))


@pytest.mark.parametrize("val_size", [2, 7, 0.9])
def test_val_size_must_leave_both_parts_something(write, renderer, val_size):
    name = write("x.jsonl", rows("a", "b"))
    with pytest.raises(UsageError) as caught:
        build(renderer, dataset=(name,), val_size=val_size)
    assert caught.value.code == "E-DATA-024"


def test_eval_datasets_as_one_or_each_by_itself(write, renderer):
    write("t.jsonl", rows("t"))
    write("a/x.jsonl", rows("a"))
    write("b/x.jsonl", rows("b", "c"))
    settings = {"dataset": ("t.jsonl",), "eval_dataset": ("a/x.jsonl", "b/x.jsonl")}
    one = build(renderer, **settings).eval
    assert {name: texts(found) for name, found in one.items()} == {"validation": ["a.", "b.", "c."]}
    each = build(renderer, eval_on_each_dataset=True, **settings).eval
    assert {name: texts(found) for name, found in each.items()} == {"x": ["a."], "x_2": ["b.", "c."]}


def test_evaluation_alone_needs_no_training_data(write, renderer):
    datasets = build(renderer, eval_dataset=(write("x.jsonl", rows("a")),))
    assert datasets.train is None
    assert texts(datasets.eval["validation"]) == ["a."]


def test_what_is_too_long_is_cut_and_counted(write, renderer):
    talk = [("human", "u"), ("gpt", "aaa"), ("human", "u"), ("gpt", "bbb"), ("human", "u"), ("gpt", "ccc")]
    long_talk = {"conversations": [{"from": who, "value": text} for who, text in talk]}  # 6 tokens per turn
    long_answer = {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "x" * 50}]}
    long_prompt = {"conversations": [{"from": "human", "value": "u" * 13}, {"from": "gpt", "value": "a"}]}
    fits = {"conversations": [{"from": "human", "value": "u"}, {"from": "gpt", "value": "y" * 10}]}  # 13 tokens
    name = write("x.jsonl", [long_talk, long_answer, long_prompt, *[fits] * 17])
    datasets = build(renderer, dataset=(name,), cutoff_len=13)
    assert texts(datasets.train) == ["aaa.bbb.", "x" * 11, *["y" * 10 + "."] * 17]
    (report,) = datasets.report.datasets
    assert (report.turns_dropped.samples, report.turns_dropped.turns, report.turns_dropped.places) == (
        1,
        1,
        ["x.jsonl:1"],
    )
    assert (report.answers_cut.samples, report.answers_cut.places) == (1, ["x.jsonl:2"])
    assert report.dropped == {"the prompt alone is longer than cutoff_len": 1}
    assert (report.rows, report.kept, report.samples) == (20, 19, 19)
    assert any(line.split()[:3] == ["8-15", "tokens", "17"] for line in report.histogram)
    assert datasets.report.to_dict()["lengths"][0]["too_long"] == 3


def test_a_run_that_loses_more_than_a_twentieth_of_its_rows_stops(write, renderer):
    name = write("x.jsonl", [*rows("a", prompt="u" * 20), *rows(*"abcdefghijklmnopqr")])
    with pytest.raises(DataError, match="E-DATA-091") as caught:
        build(renderer, dataset=(name,), cutoff_len=13)
    assert "1 of 19 rows would train nothing" in str(caught.value)
    assert len(build(renderer, dataset=(name,), cutoff_len=13, on_too_long="drop").train) == 18


def test_nothing_left_is_an_error(write, renderer):
    name = write("x.jsonl", rows("a", "b"))
    with pytest.raises(DataError) as caught:
        build(renderer, dataset=(name,), cutoff_len=2)
    assert caught.value.code == "E-DATA-091"
    with pytest.raises(DataError) as caught:
        build(renderer, dataset=(name,), cutoff_len=2, on_too_long="drop")
    assert caught.value.code == "E-DATA-019"


def test_a_row_without_anything_to_train_is_dropped(write, renderer):
    untrained = {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]}
    name = write("x.jsonl", [untrained, untrained])
    encode = renderer._chat
    made = []

    def masked(chat):
        made.append(encode(chat))
        return replace(made[0], trained=[False] * len(made[0].ids)) if len(made) == 1 else made[-1]

    renderer._chat = masked
    datasets = build(renderer, dataset=(name,))
    assert datasets.report.datasets[0].dropped == {"nothing of it is trained": 1}
    assert str(datasets.train.origin(0)) == "x.jsonl:2"


def test_pre_training_is_packed_without_loss(write, renderer):
    name = write("x.txt", "abcd\nefg\nhijklm\n")  # with their ends 5, 4 and 7 tokens
    datasets = build(renderer, stage="pt", dataset=(name,), cutoff_len=6)
    assert texts(datasets.train) == ["abcd.e", "fg.hij", "klm."]
    assert [str(datasets.train.origin(index)) for index in range(3)] == ["x.txt:1", "x.txt:2", "x.txt:3"]
    assert datasets.report.splits[0].tokens == 16


def test_pre_training_without_packing_cuts_and_counts(write, renderer):
    name = write("x.txt", "abcd\nefg\nhijklm\n")
    datasets = build(renderer, stage="pt", dataset=(name,), cutoff_len=4, packing=False)
    assert texts(datasets.train) == ["abcd", "efg.", "hijk"]
    assert datasets.report.datasets[0].answers_cut.samples == 2


def test_rendering_goes_in_batches_and_tells_how_far_it_is(write, renderer):
    name = write("x.jsonl", rows(*"abcdefg"))
    told = []
    build_datasets(
        DataConfig(dataset=(name,), preprocessing_batch_size=3),
        renderer,
        stage="sft",
        seed=1,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert renderer.batches == [3, 3, 1]
    assert told == [(3, 7), (6, 7), (7, 7)]


def test_batches_do_not_change_the_result(write, renderer):
    name = write("x.jsonl", rows(*"abcdefg"))
    found = [texts(build(renderer, dataset=(name,), preprocessing_batch_size=size).train) for size in (1, 2, 100)]
    assert found[0] == found[1] == found[2]


def test_the_report_fits_a_terminal_and_a_file(write, renderer):
    long = "a/very/long/path/to/a/file/whose/name/is/longer/than/a/line/of/a/terminal/has/characters/x.jsonl"
    write(long, [*rows("a"), {"instruction": "u", "output": ""}])
    report = build(renderer, dataset=(long,), on_bad_row="skip").report
    assert all(len(line) <= 80 for line in report.lines())
    saved = json.loads(json.dumps(report.to_dict()))
    assert saved["total"] == {"rows": 2, "dropped": 1, "kept": 1, "samples": 1, "tokens": 4, "trained": 2}
    assert saved["datasets"][0]["dropped"] == {'an empty answer (field "output")': {"rows": 1, "first": [f"{long}:2"]}}
    assert saved["splits"] == [{"name": "train", "samples": 1, "tokens": 4, "trained": 2, "longest": 4}]


def test_read_examples_gives_all_datasets_in_order(write):
    write("x.jsonl", rows("a", "b"))
    write("y.jsonl", rows("c"))
    config = DataConfig(dataset=("x.jsonl", "y.jsonl"), eval_dataset=("y.jsonl",), mix_strategy="interleave_over")
    answers = [example.messages[-1].content for example in read_examples(config, stage="sft")]
    assert answers == ["a", "b", "c"]
    assert len(read_examples(config, stage="sft", which="eval")) == 1


def test_trusted_markup_of_an_entry_reaches_its_examples(tmp_path):
    (tmp_path / "rows.json").write_text(json.dumps(rows("a")))
    found = []
    for trusted in (False, True):
        entry = {"file_name": "rows.json", "trusted_markup": trusted}
        (tmp_path / "dataset_info.json").write_text(json.dumps({"d": entry}))
        config = DataConfig(dataset=("d",), dataset_dir=str(tmp_path))
        found += [example.trusted_markup for example in read_examples(config, stage="sft")]
    assert found == [False, True]


def test_control_tokens_in_texts_and_copies_are_told(write, renderer):
    name = write("x.jsonl", [*rows("a <stop> b"), *rows("c", "c", "d")])
    notices = build(renderer, dataset=(name,), val_size=1).report.notices
    assert any("1 row" in line and "<stop>" in line and "x.jsonl:1" in line for line in notices)
    assert any("copies of others" in line or "are training samples too" in line for line in notices)
