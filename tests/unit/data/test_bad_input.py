"""Files and rows that cannot be used: the code of the error, the place, and no traceback for any of them."""

from __future__ import annotations

import gzip

import pytest

from tunesmith.config.data import DataConfig
from tunesmith.core.errors import TunesmithError
from tunesmith.data import build_datasets

GOOD = {"instruction": "a", "input": "", "output": "b"}


def row(**changes):
    return {**GOOD, **changes}


def chat(*turns):
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


def said(*messages):
    return {"messages": list(messages)}


U, A = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
DEEP = "[" * 100_000

FILES = {
    "empty": ("x.json", b"", "E-DATA-001", "x.json"),
    "blank": ("x.json", b" \n ", "E-DATA-001", "x.json"),
    "blank lines": ("x.jsonl", b"\n\n", "E-DATA-001", "x.jsonl"),
    "no rows": ("x.json", b"[]", "E-DATA-002", "x.json"),
    "only a header": ("x.csv", b"instruction,output\n", "E-DATA-002", "x.csv"),
    "cut in an object": ("x.json", b'[\n{"instruction": "a", "output": "b"},\n{"instr', "E-DATA-003", "cut off"),
    "cut behind a row": ("x.json", b'[\n{"instruction": "a", "output": "b"}\n', "E-DATA-003", "x.json:3"),
    "no comma": ("x.json", b'[\n{"a": 1}\n{"a": 2}]', "E-DATA-003", "x.json:3:1"),
    "comma at the end": ("x.json", b'[\n{"a": 1},\n]', "E-DATA-003", "x.json:3:1"),
    "text behind the list": ("x.json", b'[{"a": 1}] x', "E-DATA-003", "x.json:1:12"),
    "single quotes": ("x.json", b"[{'a': 1}]", "E-DATA-003", "x.json:1:3"),
    "a broken line": ("x.jsonl", b'{"instruction": "a", "output": "b"}\n{"instruction":\n', "E-DATA-003", "x.jsonl:2"),
    "a broken first line": (
        "x.json",
        b'{"instruction: "a"}\n{"instruction": "a", "output": "b"}',
        "E-DATA-003",
        "x.json:1",
    ),
    "deep nesting": ("x.json", DEEP.encode(), "E-DATA-003", "nested"),
    "deep nesting in a line": (
        "x.jsonl",
        b'{"instruction": "a", "output": "b"}\n' + DEEP.encode(),
        "E-DATA-003",
        "x.jsonl:2",
    ),
    "latin-1": ("x.jsonl", '{"a": "x"}\n{"a": "caf\xe9"}\n'.encode("latin-1"), "E-DATA-004", "x.jsonl:2"),
    "latin-1 array": ("x.json", '[{"a": "x"},\n{"a": "caf\xe9"}]'.encode("latin-1"), "E-DATA-004", "x.json:2"),
    "utf-16": ("x.json", '[{"a": "x"}]'.encode("utf-16"), "E-DATA-004", "UTF-16"),
    "packed": ("x.jsonl", gzip.compress(b"{}" * 99)[:-9], "E-DATA-005", "gzip"),
    "unknown type": ("x.xlsx", b"x", "E-DATA-006", ".xlsx"),
    "rows under a key": ("x.json", b'{"data": [{"a": 1}]}', "E-DATA-007", "field: data"),
    "a number": ("x.json", b"3", "E-DATA-007", "x.json:1"),
    "not a row": ("x.json", b"[\n1\n]", "E-DATA-008", "x.json:2"),
    "lists under two keys": (
        "x.json",
        b'{"train": [{"a": 1}], "test": [{"a": 1}]}',
        "E-DATA-007",
        'under "train" and "test"',
    ),
    "a number of thousands of digits": (
        "x.jsonl",
        b'{"instruction": "a", "output": "b", "n": ' + b"9" * 5000 + b"}",
        "E-DATA-003",
        "thousands of digits",
    ),
    "the same in a list": ("x.json", b'[\n{"n": ' + b"9" * 5000 + b"}]", "E-DATA-003", "x.json:2"),
    "not parquet": ("x.parquet", b"PAR1 is not enough", "E-DATA-009", "Parquet"),
    "not arrow": ("x.arrow", b"ARROW1 is not enough", "E-DATA-009", "Arrow"),
    "ragged": ("x.csv", b"instruction,output\na,b\na\n", "E-DATA-010", "x.csv:3"),
    "open quote": ("x.csv", b'instruction,output\na,"b\n', "E-DATA-010", "x.csv"),
    "semicolons": ("x.csv", b"instruction;output\na;b\n", "E-DATA-010", "';'"),
    "a column twice": ("x.csv", b"output,output\na,b\n", "E-DATA-010", '"output"'),
    "a half character": ("x.jsonl", b'{"instruction": "\\ud800", "output": "b"}\n', "E-DATA-004", "x.jsonl:1"),
}

ROWS = {
    "no known columns": ([{"foo": "a", "bar": "b"}], "E-DATA-022", "foo, bar"),
    "pre-training rows": ([{"text": "a"}], "E-DATA-027", "stage: pt"),
    "empty answer": ([GOOD, row(output=" ")], "E-DATA-012", "x.jsonl:2"),
    "only a thought": ([row(output="<think>\nhm\n</think>\n\n")], "E-DATA-012", "an empty answer"),
    "empty prompt": ([row(instruction="")], "E-DATA-012", "an empty prompt"),
    "null answer": ([GOOD, row(output=None)], "E-DATA-013", 'null (field "output")'),
    "number answer": ([row(output=3)], "E-DATA-014", "a number"),
    "list prompt": ([row(instruction=["a"])], "E-DATA-014", "a list"),
    "missing in one row": ([GOOD, {"instruction": "a"}], "E-DATA-011", "x.jsonl:2"),
    "faulty history": ([row(history=[["a"]])], "E-DATA-014", "pairs"),
    "empty history": ([row(history=[["a", ""]])], "E-DATA-012", "history"),
    "unknown role": ([chat(("human", "a"), ("gtp", "b"))], "E-DATA-015", "'gtp'"),
    "no role": ([said(U, A), said({"content": "a"}, A)], "E-DATA-015", "message 1 of 2"),
    "no content": ([said({"role": "user"}, A)], "E-DATA-015", '"content"'),
    "null content": ([said({"role": "user", "content": None}, A)], "E-DATA-013", "messages.content"),
    "number content": ([said({"role": "user", "content": 3}, A)], "E-DATA-014", "messages.content"),
    "null messages": ([said(U, A), {"messages": None}], "E-DATA-013", "x.jsonl:2"),
    "messages as text": ([said(U, A), {"messages": "a"}], "E-DATA-014", "not a list"),
    "a message as text": ([said(U, A), said("a")], "E-DATA-014", "not an object"),
    "no messages": ([said(U, A), said()], "E-DATA-016", "no messages"),
    "no answer": ([said(U)], "E-DATA-016", "no assistant message"),
    "two questions": ([said(U, U, A)], "E-DATA-016", "message 2 of 3"),
    "two answers": ([said(U, A, A)], "E-DATA-016", "two assistant messages"),
    "answer first": ([said(A, U, A)], "E-DATA-016", "does not begin with a user"),
    "question last": ([said(U, A, U)], "E-DATA-016", "the last message is not an answer"),
    "system late": ([said(U, A, {"role": "system", "content": "s"}, U, A)], "E-DATA-016", "message 3 of 5"),
    "tool result unasked": ([said(U, {"role": "tool", "content": "1"}, A)], "E-DATA-016", "no tool call"),
    "empty turn": ([said(U, A, {"role": "user", "content": ""}, A)], "E-DATA-012", "message 3 of 4"),
    "faulty call": (
        [chat(("human", "a"), ("function_call", "{x"), ("observation", "1"), ("gpt", "b"))],
        "E-DATA-017",
        "{x",
    ),
    "call without name": ([chat(("human", "a"), ("function_call", "{}"))], "E-DATA-017", "without a name"),
    "call arguments": (
        [said(U, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]})],
        "E-DATA-017",
        "not an object",
    ),
    "faulty tools": ([{**said(U, A), "tools": "[{"}], "E-DATA-017", "not valid JSON"),
    "nameless tool": ([{**said(U, A), "tools": [{"description": "d"}]}], "E-DATA-017", "without a name"),
    "an image": (
        [said({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x.png"}}]}, A)],
        "E-MEDIA-010",
        "no such file",
    ),
    "images beside": ([row(images=["a.png"])], "E-MEDIA-030", "0 <image> for 1"),
    "pairs": ([{"prompt": "a", "chosen": "b", "rejected": "c"}], "E-DATA-027", "dpo"),
    "a weight": ([said(U, {**A, "weight": -0.5})], "E-DATA-014", "-0.5"),
}


def fail(renderer, name: str, **settings) -> str:
    with pytest.raises(TunesmithError) as caught:
        build_datasets(DataConfig(dataset=(name,), **settings), renderer, stage="sft", seed=1)
    return str(caught.value)


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_read(case, write, renderer):
    name, content, code, said = FILES[case]
    message = fail(renderer, write(name, content))
    assert f"error[{code}]" in message
    assert said in message


@pytest.mark.parametrize("case", ROWS)
def test_a_row_that_cannot_be_used(case, write, renderer):
    rows, code, said = ROWS[case]
    message = fail(renderer, write("x.jsonl", rows))
    assert f"error[{code}]" in message
    assert said in message
    assert "x.jsonl" in message


def test_damaged_pages_of_a_parquet_file(write, renderer, tmp_path):
    import pyarrow
    from pyarrow import parquet

    name = write("x.parquet", b"")
    parquet.write_table(pyarrow.Table.from_pylist([row(instruction=f"a {i}") for i in range(50)]), name)
    data = (tmp_path / name).read_bytes()
    write(name, data[:20] + bytes(byte ^ 0xFF for byte in data[20:60]) + data[60:])
    message = fail(renderer, name)
    assert "error[E-DATA-009]" in message
    assert "x.parquet" in message


def test_a_link_to_nothing(write, renderer, tmp_path):
    (tmp_path / "x.jsonl").symlink_to("nowhere")
    message = fail(renderer, "x.jsonl")
    assert "error[E-DATA-025]" in message
    assert "nowhere" in message


def test_chats_that_are_declared_as_alpaca(write, renderer):
    write("data/x.jsonl", [chat(("human", "a"), ("gpt", "b"))])
    write("data/dataset_info.json", {"d": {"file_name": "x.jsonl", "formatting": "alpaca"}})
    message = fail(renderer, "d")
    assert "error[E-DATA-011]" in message
    assert '"formatting": "sharegpt"' in message


def test_a_terminal_obeys_nothing_that_stands_in_the_data(write, renderer):
    message = fail(renderer, write("x.csv", b"instruction,output\n\x1b[31mcaf\xe9\x00,\x9b2J\n"))
    (got,) = [line for line in message.splitlines() if line.startswith("  got:")]
    assert "caf" in got
    assert got.isprintable()


def test_all_faults_of_all_datasets_are_told_at_once(write, renderer):
    write("a.jsonl", [GOOD, *[row(output="")] * 7, row(output=None)])
    write("b.jsonl", [said(U, A), said(U, U)])
    write("c.json", b"[")
    with pytest.raises(TunesmithError) as caught:
        build_datasets(DataConfig(dataset=("a.jsonl", "b.jsonl", "c.json")), renderer, stage="sft", seed=1)
    told = {problem.what: problem.where for problem in caught.value.problems}
    assert told['an empty answer (field "output"): 7 of 9 rows'] == "a.jsonl:2, :3, :4, :5, :6 and 2 more"
    assert told['the field is null (field "output"): 1 of 9 rows'] == "a.jsonl:9"
    assert told['no assistant message (field "messages"): 1 of 2 rows'] == "b.jsonl:2"
    assert any("not valid JSON" in what for what in told)
    assert "on_bad_row: skip" in str(caught.value)


def test_a_misspelt_column_is_one_error(write, renderer):
    write("x.jsonl", [row()] * 50)
    write(
        "data/dataset_info.json",
        {"d": {"file_name": "../x.jsonl", "columns": {"prompt": "instruction", "response": "ouput"}}},
    )
    with pytest.raises(TunesmithError) as caught:
        build_datasets(DataConfig(dataset=("d",)), renderer, stage="sft", seed=1)
    (problem,) = caught.value.problems
    assert problem.code == "E-DATA-011"
    assert '"ouput" (response)' in problem.what
    assert problem.got == "columns: instruction, input, output"
    assert '"output"' in problem.fix


def test_a_columns_block_that_lacks_the_answer_names_what_to_add(write, renderer):
    write("data/x.jsonl", [row()])
    write("data/dataset_info.json", {"d": {"file_name": "x.jsonl", "columns": {"prompt": "instruction"}}})
    message = fail(renderer, "d")
    assert 'add "response": "output"' in message


def test_other_names_than_the_registered_ones_are_proposed(write, renderer):
    write("data/x.jsonl", [{"question": "a", "answer": "b"}])
    write("data/dataset_info.json", {"d": {"file_name": "x.jsonl"}})
    message = fail(renderer, "d")
    assert '"columns": {"prompt": "question", "response": "answer"}' in message


def test_skip_drops_and_counts(write, renderer):
    name = write("x.jsonl", [row(), row(output=""), row(output=None), row(output=""), row()])
    datasets = build_datasets(DataConfig(dataset=(name,), on_bad_row="skip"), renderer, stage="sft", seed=1)
    assert len(datasets.train) == 2
    (report,) = datasets.report.datasets
    assert (report.rows, report.kept) == (5, 2)
    assert report.dropped == {'an empty answer (field "output")': 2, 'the field is null (field "output")': 1}
    assert '  dropped 2: an empty answer (field "output") (first: x.jsonl:2)' in datasets.report.lines()


@pytest.mark.parametrize(("limit", "fits"), [(3, True), (2, False), (0, False)])
def test_skip_has_a_limit(write, renderer, limit, fits):
    name = write("x.jsonl", [row(), *[row(output="")] * 3])
    config = DataConfig(dataset=(name,), on_bad_row="skip", max_bad_rows=limit)
    if fits:
        assert len(build_datasets(config, renderer, stage="sft", seed=1).train) == 1
    else:
        assert "error[E-DATA-023]" in fail(renderer, name, on_bad_row="skip", max_bad_rows=limit)


def test_skip_does_not_accept_a_dataset_of_nothing_but_bad_rows(write, renderer):
    assert "3 of 3 rows" in fail(renderer, write("x.jsonl", [row(output="")] * 3), on_bad_row="skip")


def test_broken_lines_can_be_skipped(write, renderer):
    name = write("x.jsonl", '{"instruction": "a", "output": "b"}\n{"instruction"\n')
    datasets = build_datasets(DataConfig(dataset=(name,), on_bad_row="skip"), renderer, stage="sft", seed=1)
    assert datasets.report.datasets[0].dropped == {"the line is not valid JSON": 1}


def test_rows_that_cannot_be_rendered_are_bad_rows(write, renderer):
    name = write("x.jsonl", [row(), row(instruction="unrenderable"), row(output="c")])
    message = fail(renderer, name)
    assert "error[E-RENDER-003]: no such thing: 1 of 3 rows" in message
    assert "x.jsonl:2" in message
    datasets = build_datasets(DataConfig(dataset=(name,), on_bad_row="skip"), renderer, stage="sft", seed=1)
    assert [sample["input_ids"].tolist() for sample in datasets.train] == [[97, 0, 98, 0], [97, 0, 99, 0]]
