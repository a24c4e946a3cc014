"""From `init` to an exported model by the command line alone, on the tiny model."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tunesmith.__main__ import main
from tunesmith.core.log import get_logger


@pytest.fixture
def tunesmith(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """`tunesmith("train", ..., stdin="")` runs in this process and returns standard output."""

    def run(*words: object, stdin: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    logger = get_logger()
    before, propagate = list(logger.handlers), logger.propagate
    yield run
    # The handler that a verb has set up writes to a stream that ends with this test.
    logger.handlers[:], logger.propagate = before, propagate


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


QUICK = ["max_samples=8", "num_train_epochs=1", "logging_steps=1", "val_size=2", "gradient_accumulation_steps=1"]


def test_from_init_to_an_exported_model(tunesmith, workplace: Path, tiny_model: Path, tiny_data: Path) -> None:
    rows = tiny_data / "new_openai.jsonl"
    assert "ok: run.yaml" in tunesmith("init", "--model", tiny_model, "--data", rows)

    preview = tunesmith("data", "preview", "run.yaml", "--rows", 2, *QUICK)
    assert preview.count("⟦") == 3  # the legend and one answer in each row
    assert f"row 0: {rows}:" in preview
    assert "shown: 2 of 8 rows, " in preview
    lines = preview.splitlines()
    assert len([line for line in lines if line.startswith("note: ")]) == 1  # how the file was read, said once

    trained = tunesmith("train", "run.yaml", *QUICK, "--plot-loss", "--output_dir", "out")
    assert trained.startswith("saved: out\n")
    assert (workplace / "out" / "training_loss.png").is_file()
    events = [json.loads(line) for line in (workplace / "out" / "trainer_log.jsonl").read_text().splitlines()]
    assert [event["current_steps"] for event in events if "loss" in event] == [1, 2, 3]  # 6 rows, 2 at a time
    assert all(event["tokens_per_second"] > 0 for event in events if "loss" in event)

    answers = tunesmith("chat", "out/run.yaml", "do_sample=false", "max_new_tokens=5", stdin="Who are you?\n/exit\n")
    assert len(answers.splitlines()) >= 1

    assert tunesmith("export", "out/run.yaml", "export_dir=merged") == "saved: merged\n"
    assert (workplace / "merged" / "model.safetensors").is_file()
    again = tunesmith("chat", "--model-name-or-path", "merged", "do_sample=false", "max_new_tokens=5", stdin="Hi\n")
    assert again


def test_preview_as_json(tunesmith, tiny_model: Path, tiny_data: Path) -> None:
    keys = [f"model_name_or_path={tiny_model}", f"dataset={tiny_data / 'new_openai.jsonl'}"]
    found = json.loads(tunesmith("data", "preview", *keys, "--json", "--rows", 1, "--start", 3))
    (row,) = found["rows"]
    assert row["row"] == 3
    answer = [part["text"] for part in row["parts"] if part["trained"]]
    assert len(answer) == 1
    assert answer[0].endswith("<|im_end|>")
    assert found["total_rows"] == 16
    counts = {"tokens": row["tokens"], "trained": row["trained"], "media": 0, "media_tokens": 0}
    assert found["shown"] == {"rows": 1, "samples": 1, **counts}


def test_a_row_that_is_not_there_is_an_error(
    tiny_model: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = [f"model_name_or_path={tiny_model}", f"dataset={tiny_data / 'new_openai.jsonl'}"]
    assert main(["data", "preview", *keys, "--start", "99"]) == 2
    assert "error[E-CLI-009]" in capsys.readouterr().err


def test_training_without_a_config_file(tunesmith, workplace: Path, tiny_model: Path, tiny_data: Path) -> None:
    words = f"""--model_name_or_path {tiny_model} --dataset {tiny_data / "new_openai.jsonl"} --do_train
        --finetuning_type lora --output_dir out --max_steps 1 --learning-rate=1e-4 report_to=none"""
    assert tunesmith("train", *words.split()).startswith("saved: out\n")


def _interrupted(process: subprocess.Popen[str]) -> str:
    """Standard error after Ctrl-C. Python drops an interrupt that arrives inside a destructor or a callback of C code:
    a person presses the keys again then."""
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=30)[1]
    raise AssertionError("it goes on after three interrupts")


@pytest.mark.slow
def test_ctrl_c_saves_and_ends_a_run_with_75_in_plain_lines(workplace: Path, tiny_model: Path, tiny_data: Path) -> None:
    words = f"""train --model_name_or_path {tiny_model} --dataset {tiny_data / "new_openai.jsonl"} --do_train
        --finetuning_type lora --output_dir out --max_steps 100000 --logging_steps 1 --use_cpu"""
    command = [sys.executable, "-m", "tunesmith", *words.split()]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("step 3/"):
                    break
            rest = _interrupted(process)
        finally:
            process.kill()
    assert process.returncode == 75
    assert line.split()[:3] == ["step", "3/100000", "loss"]
    assert "\x1b" not in line + rest
    assert "stopped as asked, after step" in rest
    assert f"saved {Path('out') / 'checkpoint-'}" in rest
    assert "Traceback" not in rest


def test_a_finished_run_that_is_started_again_says_so(
    tunesmith, workplace: Path, tiny_model: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [f"model_name_or_path={tiny_model}", f"dataset={tiny_data / 'new_openai.jsonl'}", "output_dir=out"]
    keys += ["finetuning_type=lora", "max_steps=2", "save_steps=2", "report_to=none"]
    tunesmith("train", *keys)
    before = (workplace / "out" / "train_results.json").read_text()
    get_logger().propagate = True
    tunesmith("train", *keys)
    assert "nothing was left to train: out/checkpoint-2 is at step 2" in caplog.text
    assert (workplace / "out" / "train_results.json").read_text() == before


@pytest.mark.slow
def test_chat_reads_what_is_not_utf8(workplace: Path, tiny_model: Path) -> None:
    words = ["chat", f"model_name_or_path={tiny_model}", "max_new_tokens=3"]
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", *words], input=b"caf\xe9 \xff\n", capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
