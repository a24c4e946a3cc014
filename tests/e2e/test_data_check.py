"""`tunesmith data check` and the pages, by the command line, on the tiny model and its data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunesmith.__main__ import main
from tunesmith.core.log import get_logger

PAIR = {"prompt": "Where does an owl live?", "chosen": "In a hollow tree.", "rejected": "In the sea."}
RATED = [
    {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"Say {i}."}], "label": i < 19}
    for i in range(20)
]


@pytest.fixture
def keys(tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    return [f"model_name_or_path={tiny_model}", f"dataset_dir={tiny_data}"]


def write(name: str, rows: list[dict]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = main(["data", *words])
    return code, capsys.readouterr().out


def test_check_tells_what_it_finds_and_lets_it_pass(keys, capsys) -> None:
    code, text = run(capsys, "check", *keys, "dataset=known,chats", "eval_dataset=new_heldout")
    assert code == 0
    assert "warning E-LINT-007  exact copies of other rows" in text
    assert text.splitlines()[-2] == "2 warnings"
    assert max(map(len, text.splitlines())) <= 80


def test_strict_is_a_gate(keys, capsys) -> None:
    assert run(capsys, "check", *keys, "dataset=known,chats", "--strict")[0] == 65
    clean = write("clean.jsonl", [{"instruction": "Who are you?", "output": "I am a small model."}])
    code, text = run(capsys, "check", *keys, f"dataset={clean}", "--strict")
    assert (code, text.splitlines()[-1]) == (0, "nothing was found")


def test_a_leak_is_a_gate_of_its_own(keys, capsys) -> None:
    words = ["check", *keys, "dataset=new", "eval_dataset=new", "eval_on_each_dataset=true"]
    assert run(capsys, *words)[0] == 0
    code, text = run(capsys, *words, "--fail-on-leak", "--json")
    assert code == 65
    (leak,) = [one for one in json.loads(text)["findings"] if one["code"] == "E-LINT-009"]
    assert (leak["count"], leak["total"], leak["leak"]) == (16, 16, True)


def test_rows_that_would_stop_a_run_end_it_with_65(keys, capsys) -> None:
    rows = write("x.jsonl", [{"instruction": "a", "output": "b"}, {"instruction": "a", "output": None}])
    code, text = run(capsys, "check", *keys, f"dataset={rows}")
    assert code == 65
    assert "error   E-DATA-013" in text
    assert "where: x.jsonl:2" in text
    assert run(capsys, "check", *keys, f"dataset={rows}", "on_bad_row=skip", "max_bad_rows=1")[0] == 0


def test_without_a_model_the_rest_is_checked(keys, capsys) -> None:
    code, text = run(capsys, "check", *keys[1:], "dataset=known,chats")
    assert code == 0
    assert "names no model" in text
    assert "E-LINT-007" in text


def test_every_stage_has_its_checks(keys, capsys) -> None:
    pairs = write("pairs.jsonl", [PAIR, {**PAIR, "prompt": "And a fox?"}, {**PAIR, "prompt": "And a bee?"}])
    code, text = run(capsys, "check", *keys, f"dataset={pairs}", "stage=dpo", "--json")
    found = json.loads(text)
    assert (code, found["stage"], found["datasets"][0]["usable"]) == (0, "dpo", 3)
    rated = write("rated.jsonl", RATED)
    code, text = run(capsys, "check", *keys, f"dataset={rated}", "stage=kto")
    assert code == 0
    assert "rated.jsonl: few answers are disliked: 1 of 20 rows" in text
    code, text = run(capsys, "check", *keys, "dataset=stories", "stage=pt", "--json")
    assert (code, json.loads(text)["cutoff_len"]) == (0, None)


def test_pages_are_written_and_show_tokens(keys, capsys) -> None:
    code, text = run(capsys, "check", *keys, "dataset=known,chats", "--html", "report.html")
    assert code == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert '<span class="trained" title="id ' in page
    assert '<span class="prompt" title="id ' in page
    assert "<svg" in page
    assert "E-LINT-007" in text

    code, text = run(
        capsys, "preview", *keys, "dataset=chats", "mask_history=true", "--rows", "5", "--html", "rows.html"
    )
    assert code == 0
    assert text.startswith("shown: 5 of 36 rows")
    page = Path("rows.html").read_text(encoding="utf-8")
    assert all(f'<span class="{why}"' in page for why in ("prompt", "system", "history", "template"))


def test_a_page_that_cannot_be_written_is_an_error(keys, capsys) -> None:
    assert main(["data", "check", *keys, "dataset=known", "--html", "no/such/folder.html"]) == 73
    assert "error[E-CLI-006]" in capsys.readouterr().err


def test_pairs_are_previewed_with_both_answers(keys, capsys) -> None:
    pairs = write("pairs.jsonl", [PAIR])
    code, text = run(capsys, "preview", *keys, f"dataset={pairs}", "stage=dpo", "--json")
    rows = json.loads(text)["rows"]
    assert (code, [row["label"] for row in rows]) == (0, ["chosen", "rejected"])
    answers = ["".join(part["text"] for part in row["parts"] if part["trained"]) for row in rows]
    assert answers == ["In a hollow tree.<|im_end|>", "In the sea.<|im_end|>"]
    reasons = {part["why"] for row in rows for part in row["parts"] if not part["trained"]}
    assert reasons == {"prompt", "template"}


def test_tokens_are_listed_one_by_one(keys, capsys) -> None:
    code, text = run(capsys, "preview", *keys, "dataset=known", "--rows", "1", "--tokens")
    lines = text.splitlines()
    assert code == 0
    assert lines[1].split() == ["1", "<|im_start|>", "template"]
    assert [line.split()[-1] for line in lines if "<|im_end|>" in line] == ["template", "trained"]


@pytest.mark.parametrize("verb", ["check", "preview"])
def test_what_takes_long_tells_how_far_it_is(verb, keys, capsys, monkeypatch) -> None:
    monkeypatch.setattr("tunesmith.train.counting._PATIENCE", 0.0)
    monkeypatch.setattr(get_logger(), "handlers", [])  # one that writes to what this test captures
    assert main(["data", verb, *keys, "dataset=known"]) == 0
    told = {"check": "checking: 16 rows", "preview": "reading: 40 rows"}
    assert told[verb] in capsys.readouterr().err
