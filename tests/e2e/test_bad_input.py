"""What people feed to a fine-tuning tool by mistake, through the command line: the exit code, the code of the error,
the words that help, one block and no traceback; and nothing that is wrong trains in silence.

Each entry of the tables is (what is written, exit code, error code, words of the message).
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tunesmith.__main__ import main
from tunesmith.core.log import get_logger

Made = Callable[[Path], Any]
Case = tuple[Any, int, str, tuple[str, ...]]

ROW = {"instruction": "Who are you?", "input": "", "output": "A robot."}


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def alpaca(**changes: Any) -> dict[str, Any]:
    return {**ROW, **changes}


def shares(*turns: tuple[str, str]) -> dict[str, Any]:
    return {"conversations": [{"from": who, "value": text} for who, text in turns]}


def said(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": who, "content": text} for who, text in turns]}


GOOD = lines(*[alpaca(instruction=f"Who are you {number}?") for number in range(12)])
LATIN = '{"instruction": "caf\xe9", "output": "b"}\n'

# A file of rows, by its name and content.
FILES: dict[str, tuple[str, str | bytes | Made, int, str, tuple[str, ...]]] = {
    "B01 empty": ("x.json", b"", 65, "E-DATA-001", ("x.json",)),
    "B02 no rows": ("x.json", "[]", 65, "E-DATA-002", ("x.json",)),
    "B03 cut": (
        "x.json",
        '[\n{"instruction": "a", "output": "b"},\n{"instr',
        65,
        "E-DATA-003",
        ("x.json:3", "cut off"),
    ),
    "B04 a broken line": ("x.jsonl", GOOD + '{"instruction": "a", x}\n', 65, "E-DATA-003", ("x.jsonl:13", "1 of 13")),
    "B06 Latin-1": ("x.jsonl", (GOOD + LATIN).encode("latin-1"), 65, "E-DATA-004", ("x.jsonl:13", "iconv")),
    "B07 UTF-16": ("x.jsonl", GOOD.encode("utf-16"), 65, "E-DATA-004", ("UTF-16",)),
    "B08 commas behind rows": ("x.jsonl", GOOD.replace("}\n", "},\n"), 65, "E-DATA-003", ("12 of 12",)),
    "B09 torn gzip": ("x.jsonl", gzip.compress(GOOD.encode() * 9, mtime=0)[:-12], 65, "E-DATA-005", ("x.jsonl",)),
    "B11 unknown type": ("x.xlsx", "x", 65, "E-DATA-006", (".jsonl",)),
    "B12 a folder of all sorts": ("x/a.jsonl", GOOD, 65, "E-DATA-026", ("c.md",)),
    "B13 an empty folder": ("x", lambda path: path.mkdir(), 65, "E-DATA-002", ("folder",)),
    "B14 a pipe": ("x.jsonl", lambda path: os.mkfifo(path), 65, "E-DATA-025", ("regular",)),
    "B14 a link to nothing": ("x.jsonl", lambda path: path.symlink_to("gone"), 65, "E-DATA-025", ("gone",)),
    "B15 rows under a key": ("x.json", json.dumps({"data": [ROW]}), 65, "E-DATA-007", ('"data"', "field: data")),
    "B21 not Parquet": ("x.parquet", b"PAR0" * 30, 65, "E-DATA-009", ("x.parquet",)),
    "B22 ragged": ("x.csv", "instruction,output\na,b\na\n", 65, "E-DATA-010", ("x.csv:3",)),
    "B22 an open quote": ("x.csv", 'instruction,output\n"a,b\n', 65, "E-DATA-010", ("x.csv",)),
    "B22 semicolons": ("x.csv", "instruction;output\na;b\n", 65, "E-DATA-010", ("commas",)),
    "B24 unknown columns": ("x.jsonl", lines({"q": "a", "a": "b"}), 65, "E-DATA-022", ("q, a", "dataset_info.json")),
    "B26 nothing but blanks": ("x.jsonl", lines(alpaca(instruction="", output="")), 65, "E-DATA-012", ("1 of 1",)),
    "B26 no answers": ("x.jsonl", lines(alpaca(output="")), 65, "E-DATA-012", ("output",)),
    "B27 null answers": ("x.jsonl", lines(alpaca(output=None)), 65, "E-DATA-013", ("output",)),
    "B27 numbers": ("x.jsonl", lines(alpaca(output=42)), 65, "E-DATA-014", ("42",)),
    "B28 half are null": ("x.jsonl", lines(ROW, alpaca(output=None)), 65, "E-DATA-013", ("1 of 2", "on_bad_row: skip")),
    "B29 mixed kinds": ("x.jsonl", lines(ROW, alpaca(output=["a"])), 65, "E-DATA-014", ("x.jsonl:2", "a list")),
    "B30 a list": ("x.jsonl", lines(alpaca(instruction=["a"])), 65, "E-DATA-014", ("instruction",)),
    "B31 unknown roles": ("x.jsonl", lines(shares(("man", "a"), ("bot", "b"))), 65, "E-DATA-015", ("'man'", "human")),
    "B32 half of them": (
        "x.jsonl",
        lines(shares(("human", "a"), ("gpt", "b")), shares(("man", "a"), ("bot", "b"))),
        65,
        "E-DATA-015",
        ("x.jsonl:2", "1 of 2"),
    ),
    "B33 two questions": ("x.jsonl", lines(said(("user", "a"), ("user", "a"))), 65, "E-DATA-016", ("x.jsonl:1",)),
    "B33 no answer": ("x.jsonl", lines(shares(("human", "a"))), 65, "E-DATA-016", ("no assistant",)),
    "B33 answer first": (
        "x.jsonl",
        lines(shares(("gpt", "a"), ("human", "b"), ("gpt", "c"))),
        65,
        "E-DATA-016",
        ("message 1 of 3",),
    ),
    "B35 null content": ("x.jsonl", lines(said(("user", None), ("assistant", "b"))), 65, "E-DATA-013", ("content",)),
    "B36 no messages": (
        "x.jsonl",
        lines(said(("user", "a"), ("assistant", "b")), said()),
        65,
        "E-DATA-016",
        ("x.jsonl:2",),
    ),
    "B41 plain text": ("x.jsonl", lines({"text": "a b c"}), 65, "E-DATA-027", ("stage: pt",)),
    "B41 pairs": (
        "x.jsonl",
        lines({"prompt": "a", "chosen": "b", "rejected": "c"}),
        65,
        "E-DATA-027",
        ("stage: rm or dpo",),
    ),
    "B43 a result unasked": (
        "x.jsonl",
        lines(said(("user", "a"), ("tool", "1"), ("assistant", "b"))),
        65,
        "E-DATA-016",
        ("no tool call",),
    ),
    "B45 half a character": ("x.jsonl", '{"instruction": "\\ud800", "output": "b"}', 65, "E-DATA-004", ("surrogate",)),
    "B48 a huge number": ("x.jsonl", '{"a": ' + "9" * 5000 + "}", 65, "E-DATA-003", ("x.jsonl:1",)),
    "B48 NaN": ("x.jsonl", '{"instruction": "a", "output": NaN}', 65, "E-DATA-003", ("NaN",)),
    "B48 deep": ("x.jsonl", '{"a": ' + "[" * 10_000 + "]" * 10_000 + "}", 65, "E-DATA-003", ("nested",)),
}

# An entry "d" of dataset_info.json for a good file x.jsonl.
ENTRIES: dict[str, Case] = {
    "B19 no file": ({"formatting": "alpaca"}, 65, "E-DATA-021", ("file_name",)),
    "B20 formatting": ({"file_name": "x.jsonl", "formatting": "alpacca"}, 65, "E-DATA-021", ('"alpaca"',)),
    "B24 other names": (
        {"file_name": "x.jsonl", "columns": {"prompt": "question", "response": "output"}},
        65,
        "E-DATA-011",
        ('"question"', "instruction"),
    ),
    "B25 a slip in columns": (
        {"file_name": "x.jsonl", "columns": {"promt": "instruction", "response": "output"}},
        65,
        "E-DATA-021",
        ('"promt"', 'did you mean "prompt"'),
    ),
    "B37 another format": ({"file_name": "x.jsonl", "formatting": "sharegpt"}, 65, "E-DATA-011", ("conversations",)),
    "B50 none of it": ({"file_name": "x.jsonl", "num_samples": 0}, 65, "E-DATA-021", ("num_samples",)),
    "B10 its file is not there": ({"file_name": "y.jsonl"}, 66, "E-DATA-020", ('did you mean "x.jsonl"',)),
}

# Lines added to a config that is right.
KEYS: dict[str, Case] = {
    "B10 no such file": ("dataset: xx.jsonl", 66, "E-DATA-020", ('did you mean "x.jsonl"',)),
    "B38 prompts too long": ("cutoff_len: 4", 65, "E-DATA-091", ("Tokens of all samples", "on_too_long")),
    "B41 stage ppo": ("stage: ppo", 2, "E-CONFIG-008", ("run.yaml:6",)),
    "B50 max_samples": ("max_samples: -3", 2, "E-CONFIG-004", ("at least 1",)),
    "B63 unknown keys": ("learning_rat: 1e-4\nlora_rnk: 8", 2, "E-CONFIG-001", ('"learning_rate"', "run.yaml:7")),
    "B63 a mapping": ("lora:\n  rank: 8", 2, "E-CONFIG-001", ("keys are flat",)),
    "B64 no number": ("learning_rate: abc\nlora_rank: 8.5", 2, "E-CONFIG-002", ("'abc'", "8.5")),
    "B65 below zero": ("learning_rate: -1e-3", 2, "E-CONFIG-004", ("at least 0",)),
    "B66 no batch": ("per_device_train_batch_size: 0", 2, "E-CONFIG-004", ("at least 1",)),
    "B67 no length": ("cutoff_len: 0", 2, "E-CONFIG-004", ("at least 2",)),
    "B69 epochs": ("num_train_epochs: -1", 2, "E-CONFIG-004", ("above 0",)),
    "B69 steps": ("max_steps: 0", 2, "E-CONFIG-004", ("num_train_epochs",)),
    "B70 val_size": ("val_size: 2.5", 2, "E-CONFIG-004", ("share",)),
    "B70 below zero": ("val_size: -0.5", 2, "E-CONFIG-004", ("at least 0",)),
    "B70 all rows": ("val_size: 12\ndo_eval: true", 2, "E-DATA-024", ("12 rows",)),
    "B71 two number types": ("bf16: true\nfp16: true", 2, "E-CONFIG-021", ("fp16", "bf16")),
    "B72 slips": (
        "stage: sftt\noptim: adamw_torc\nlr_scheduler_type: cosin",
        2,
        "E-CONFIG-003",
        ('"sft"', '"adamw_torch"', '"cosine"'),
    ),
    "B72 template": ("template: chatmll", 2, "E-RENDER-008", ('did you mean "chatml"',)),
    "B74 template of others": ("template: llama3", 65, "E-RENDER-009", ("<|eot_id|>",)),
    "B75 rank": ("lora_rank: 0", 2, "E-CONFIG-004", ("at least 1",)),
    "B76 bits": ("quantization_bit: 3", 2, "E-QUANT-001", ("run.yaml:6",)),
    "B77 output is a file": ("output_dir: x.jsonl/run", 73, "E-TRAIN-009", ("is a file",)),
    "B78 a tab": ("lora_rank: 8\n\tlora_alpha: 8", 2, "E-CONFIG-007", ("run.yaml:7", "tab")),
    "B78 a colon": ("default_system: You are: brief", 2, "E-CONFIG-007", ("run.yaml:6", "quote")),
    "B78 twice": ("lora_rank: 8\nlora_rank: 9", 2, "E-CONFIG-005", ("run.yaml:7", "run.yaml:6")),
    "B78 a tag": ("lora_rank: !!python/name:os.system", 2, "E-CONFIG-007", ("run.yaml:6",)),
    "B78 aliases of aliases": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        + "\n".join(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(9)),
        2,
        "E-CONFIG-007",
        ("too many values",),
    ),
    "B81 all at once": (
        "train_on_prompt: true\nmask_history: true\nbf16: true\nfp16: true\nload_best_model_at_end: true",
        2,
        "E-CONFIG-021",
        ("mask_history", "fp16", "load_best_model_at_end"),
    ),
    "B83 no such folder": ("model_name_or_path: ./tiny", 66, "E-MODEL-001", ("./tiny",)),
    "B83 no such repository": ("model_name_or_path: nobody/none", 69, "E-MODEL-014", ("nobody/none",)),
    "B84 no model": ("model_name_or_path: .", 66, "E-MODEL-002", ("config.json", "x.jsonl")),
    "B92 not a checkpoint": ("resume_from_checkpoint: a/b", 66, "E-TRAIN-006", ("a/b",)),
}

PAIR = {"instruction": "Who are you?", "chosen": "A robot.", "rejected": "A toaster."}
PAIRS = [{**PAIR, "instruction": f"Who are you {number}?"} for number in range(6)]
LABELS = [alpaca(kto_tag=number % 2 == 0) for number in range(6)]


def but(rows: list[dict[str, Any]], **changes: Any) -> str:
    """The rows as lines, of which the second is changed; what is None is left out of it."""
    second = {name: value for name, value in {**rows[1], **changes}.items() if value is not LEFT_OUT}
    return lines(rows[0], second, *rows[2:])


LEFT_OUT = object()

# Rows of a stage that learns from preferences: the stage, the rows, and what is said.
PREFERENCES: dict[str, tuple[str, str, int, str, tuple[str, ...]]] = {
    "B39 identical pairs": (
        "dpo",
        but(PAIRS, rejected="A robot."),
        65,
        "E-DATA-060",
        ("x.jsonl:2", "1 of 6 rows", "the same", "A robot.", "on_bad_row: skip"),
    ),
    "B39 of a reward model": ("rm", but(PAIRS, rejected="A robot."), 65, "E-DATA-060", ("x.jsonl:2", "1 of 6 rows")),
    "B40 no rejected": (
        "dpo",
        lines(*[{name: row[name] for name in ("instruction", "chosen")} for row in PAIRS]),
        65,
        "E-DATA-011",
        ("rejected", "columns: instruction, chosen"),
    ),
    "B40 one without": ("rm", but(PAIRS, rejected=LEFT_OUT), 65, "E-DATA-011", ("x.jsonl:2", "1 of 6", "rejected")),
    "B40 null": ("dpo", but(PAIRS, rejected=None), 65, "E-DATA-013", ("x.jsonl:2", "rejected")),
    "empty rejected": ("dpo", but(PAIRS, rejected=" "), 65, "E-DATA-012", ("x.jsonl:2", "an empty answer")),
    "empty chosen": ("rm", but(PAIRS, chosen=""), 65, "E-DATA-012", ("x.jsonl:2", "an empty answer")),
    "an empty message": (
        "dpo",
        lines(
            {"prompt": said(("user", "a"))["messages"], "chosen": said(("assistant", ""))["messages"], "rejected": "b"}
        ),
        65,
        "E-DATA-012",
        ("x.jsonl:1", "an empty answer"),
    ),
    "answers that nothing was left of": (
        "dpo",
        lines(*[{**row, "instruction": "why " * 40} for row in PAIRS]),
        65,
        "E-DATA-091",
        ("on_too_long",),
    ),
    "a margin in words": ("rm", but(PAIRS, margin="much"), 65, "E-DATA-014", ("x.jsonl:2", "1 of 6", "margin", "much")),
    "a margin that is true": ("rm", but(PAIRS, margin=True), 65, "E-DATA-014", ("x.jsonl:2", "is not a number")),
    "chats": ("dpo", GOOD, 65, "E-DATA-027", ("stage: sft",)),
    "B42 labels": ("kto", but(LABELS, kto_tag="yes"), 65, "E-DATA-061", ("x.jsonl:2", "neither true nor false", "yes")),
    "B42 numbers": ("kto", but(LABELS, kto_tag=0.5), 65, "E-DATA-061", ("x.jsonl:2", "0.5")),
    "B42 null": ("kto", but(LABELS, kto_tag=None), 65, "E-DATA-013", ("x.jsonl:2", "null", "kto_tag")),
    "B42 no labels": ("kto", GOOD, 65, "E-DATA-027", ("it needs kto_tag as well", "stage: sft")),
    "B42 only liked": (
        "kto",
        lines(*[{**row, "kto_tag": True} for row in LABELS]),
        65,
        "E-DATA-061",
        ("all 6 labels are true", "stage: sft"),
    ),
    "B42 only disliked": ("kto", lines(*[{**row, "kto_tag": 0} for row in LABELS]), 65, "E-DATA-061", ("are false",)),
    "feedback without an answer": ("kto", but(LABELS, output=""), 65, "E-DATA-012", ("x.jsonl:2", "empty")),
    "feedback on an empty message": (
        "kto",
        lines(*[{**said(("user", "a"), ("assistant", text)), "label": not text} for text in ("b", "")]),
        65,
        "E-DATA-012",
        ("x.jsonl:2", "an empty answer"),
    ),
}

# Words behind `tunesmith`.
WORDS: dict[str, Case] = {
    "B79 verb": (["trian", "run.yaml"], 2, "E-CLI-001", ('did you mean "train"',)),
    "B79 sub-command": (["config", "chek"], 2, "E-CLI-001", ('"check"',)),
    "B79 no verb": (["run.yaml"], 2, "E-CLI-001", ("tunesmith train run.yaml",)),
    "no config": (["train"], 2, "E-CLI-004", ("run.yaml",)),
    "no such config": (["train", "rnu.yaml"], 66, "E-CONFIG-006", ('did you mean "run.yaml"',)),
    "a folder": (["train", "."], 66, "E-CONFIG-006", ("run.yaml",)),
    "an unknown key": (["train", "run.yaml", "--learning_rat", "1"], 2, "E-CONFIG-001", ("command line",)),
    "a word too many": (["train", "run.yaml", "now"], 2, "E-CLI-002", ("now",)),
    "a code that is none": (["explain", "E-DATA-999"], 2, "E-CLI-007", ("E-DATA-999",)),
    "nothing to merge to": (["export", "run.yaml"], 2, "E-CONFIG-020", ("export_dir",)),
}


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    logger = get_logger()
    before, propagate = list(logger.handlers), logger.propagate
    yield tmp_path
    logger.handlers[:], logger.propagate = before, propagate


@pytest.fixture
def config(tiny_model: Path, workplace: Path) -> str:
    """A config of five keys that is right but for its dataset."""
    keys = {"model_name_or_path": str(tiny_model), "dataset": "x.jsonl", "output_dir": "out"}
    text = "".join(f"{key}: {value}\n" for key, value in {**keys, "finetuning_type": "lora", "use_cpu": True}.items())
    (workplace / "run.yaml").write_text(text)
    return text


def refused(capsys: pytest.CaptureFixture[str], words: list[str], exit_code: int, code: str, said: Any) -> None:
    """One block on standard error that begins with the code and says how to go on; nothing was written."""
    assert main(words) == exit_code
    told = capsys.readouterr().err
    block = told[told.index("error[") :]
    assert block.startswith("error["), told
    assert f"error[{code}]" in block
    assert f"tunesmith explain {code}" in block
    assert "  fix:   " in block
    assert "Traceback" not in told
    for word in said:
        assert word in block, block
    assert not Path("out").exists()


@pytest.mark.parametrize("case", FILES)
def test_files_and_rows(case: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, content, exit_code, code, said = FILES[case]
    path = Path(name)
    path.parent.mkdir(exist_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    if path.parent.name:
        (path.parent / "c.md").write_text("read me")
    refused(capsys, ["train", "run.yaml", f"dataset={path.parts[0]}"], exit_code, code, said)


@pytest.mark.parametrize("case", PREFERENCES)
def test_rows_of_preferences(case: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    stage, content, exit_code, code, said = PREFERENCES[case]
    Path("x.jsonl").write_text(content)
    refused(capsys, ["train", "run.yaml", f"stage={stage}", "cutoff_len=48"], exit_code, code, said)


@pytest.mark.parametrize(
    ("stage", "rows", "bad"), [("dpo", PAIRS, {"rejected": "A robot."}), ("kto", LABELS, {"kto_tag": "yes"})]
)
def test_bad_rows_of_preferences_may_be_left_out(
    stage: str, rows: list[dict[str, Any]], bad: dict[str, Any], config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.jsonl").write_text(but(rows, **bad))
    words = [f"stage={stage}", "on_bad_row=skip", "max_bad_rows=1", "max_steps=1", "per_device_train_batch_size=5"]
    assert main(["train", "run.yaml", *words]) == 0, capsys.readouterr().err
    report = json.loads(Path("out/data_report.json").read_text())
    assert (report["datasets"][0]["rows"], report["datasets"][0]["kept"]) == (6, 5)


def test_a_reference_of_another_vocabulary(config: str, stories: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Known only once both models are there; nothing was trained."""
    Path("x.jsonl").write_text(lines(*PAIRS))
    assert main(["train", "run.yaml", "stage=dpo", f"ref_model={stories}"]) == 66
    told = capsys.readouterr().err
    block = told[told.index("error[") :]
    for word in (
        "error[E-TRAIN-069]",
        f"ref_model: {stories}",
        "736 tokens, 512 embedding rows",
        "  fix:   ",
        "explain",
    ):
        assert word in block, block
    assert "Traceback" not in told
    assert not list(Path("out").glob("*.safetensors"))


@pytest.mark.parametrize("case", ENTRIES)
def test_entries_of_the_table(case: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    entry, exit_code, code, said = ENTRIES[case]
    Path("data").mkdir()
    Path("data/x.jsonl").write_text(GOOD)
    Path("data/dataset_info.json").write_text(json.dumps({"d": entry}))
    refused(capsys, ["train", "run.yaml", "dataset=d"], exit_code, code, said)


@pytest.mark.parametrize("case", KEYS)
def test_keys(case: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, exit_code, code, said = KEYS[case]
    Path("x.jsonl").write_text(GOOD)
    overridden = {line.split(":")[0] for line in text.splitlines()}
    kept = [line for line in config.splitlines() if line.split(":")[0] not in overridden]
    Path("run.yaml").write_text("\n".join([*kept, text]) + "\n")
    refused(capsys, ["train", "run.yaml"], exit_code, code, said)


def test_a_module_that_the_model_lacks(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """B75. Known only once the model is there."""
    Path("x.jsonl").write_text(GOOD)
    assert main(["train", "run.yaml", "lora_target=q_projj"]) == 2
    told = capsys.readouterr().err
    assert "error[E-METHOD-004]" in told
    assert 'did you mean "q_proj"' in told


@pytest.mark.parametrize("case", WORDS)
def test_words(case: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    words, exit_code, code, said = WORDS[case]
    refused(capsys, words, exit_code, code, said)


@pytest.mark.parametrize(
    ("name", "content", "count"),
    [
        ("x.jsonl", b"\xef\xbb\xbf" + GOOD.encode(), 12),  # B05
        ("x.jsonl", GOOD.replace("\n", "\r\n").encode() + b"\r\n\r\n", 12),  # B08
        ("x.jsonl", lines({"instruction": "a", "output": "b"}).encode(), 1),  # B23
        ("x.jsonl", lines({"prompt": "a", "response": "b"}).encode(), 1),  # B24
        ("x.jsonl", lines(shares(("user", "a"), ("assistant", "b"))).encode(), 1),  # B31
        ("x.jsonl", lines(alpaca(instruction="a <|im_end|>\n<|im_start|>system\nb")).encode(), 1),  # B44
    ],
)
def test_what_looks_odd_and_is_right(
    name: str, content: bytes, count: int, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name).write_bytes(content)
    assert main(["data", "preview", "run.yaml", "--json", "--rows", "20"]) == 0
    assert len(json.loads(capsys.readouterr().out)["rows"]) == count


def test_a_stream_of_a_local_file_without_processes(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    """B51. It goes on behind the end of the file: 9 steps of 2 rows, and there are 12."""
    Path("x.jsonl").write_text(GOOD)
    none = ["dataloader_num_workers=0", "preprocessing_num_workers=0"]
    words = ["streaming=true", "max_steps=9", "per_device_train_batch_size=2", "gradient_accumulation_steps=1"]
    assert main(["train", "run.yaml", *words, *none]) == 0, capsys.readouterr().err
    assert json.loads(Path("out/trainer_state.json").read_text())["global_step"] == 9


@pytest.mark.parametrize("name", ["r.json", "r.toml"])  # B80
def test_configs_in_other_languages(name: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    keys = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "learning_rate": "5e-5"}
    toml = "".join(f"{key} = {json.dumps(value)}\n" for key, value in keys.items())
    Path(name).write_text(json.dumps(keys) if name == "r.json" else toml)
    assert main(["config", "check", name]) == 0
    assert capsys.readouterr().out.startswith(f"ok: {name}")
