"""What docs/stats.md shows is executed."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.__main__ import main

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "stats.md").read_text(encoding="utf-8")


def commands() -> Iterator[list[str]]:
    for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        yield from (shlex.split(line)[1:] for line in block.splitlines())


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_data / "new_openai.jsonl", "rows.jsonl")
    shutil.copytree(tiny_model, "model")
    keys = "model_name_or_path: model\ndataset: rows.jsonl\noutput_dir: out\nuse_cpu: true\nbf16: true\n"
    Path("run.yaml").write_text(keys)
    return tmp_path


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_the_commands_run(words: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    if "--json" in words:
        assert json.loads(out)["tokens"] > 0
    assert out
    if "--save" in words:
        (shown,) = re.findall(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        written = json.loads(Path(words[-1]).read_text(encoding="utf-8").splitlines()[2])
        assert written.keys() == json.loads(shown).keys()
        assert written["row"] == json.loads(shown)["row"]


@pytest.mark.slow
def test_mfu_of_a_run_that_trained(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import tunesmith

    tunesmith.train("run.yaml", max_steps=2, save_strategy="no", bf16=False)
    told = json.loads((workplace / "out" / "train_results.json").read_text())["train_tflops_per_device"]
    capsys.readouterr()
    assert main(["stats", "mfu", "out", "--peak", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["mfu"] == pytest.approx(told / 0.5, abs=1e-6)
    assert main(["stats", "mfu", "out"]) == 2
    assert "E-STATS-006" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["mfu", "run.yaml"], "E-STATS-009"),
        (["mfu", "run.yaml", "--step-seconds", "none"], "E-STATS-009"),
        (["lengths", "run.yaml", "--interval", "0.5"], "E-STATS-009"),
        (["lengths", "run.yaml", "learning_rat=1"], "E-CONFIG-001"),
        (["lr"], "E-CLI-004"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], code: str, workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stats", *words]) == 2
    assert f"error[{code}]" in capsys.readouterr().err


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("ppl", "lr", "flops", "mfu", "lengths"):
        assert main(["stats", verb, "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 30
        assert max(map(len, lines)) <= 80
