"""What docs/convert.md shows is executed, on small models under the names that it uses."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.tiny_models import tiny_model as random_model
from tests.unit.convert import old_layouts as old
from tests.unit.convert.test_llamafy import write
from tunesmith.__main__ import main
from tunesmith.convert.weights import open_weights
from tunesmith.models.families import EXPANDS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:bitsandbytes")
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "convert.md").read_text(encoding="utf-8")


def commands() -> Iterator[list[str]]:
    for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        yield from (shlex.split(line)[1:] for line in block.splitlines())


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("Qwen-7B"), old.QWEN, old.qwen_weights())
    write(Path("Baichuan2-7B-Chat"), old.BAICHUAN2, old.baichuan2_weights())
    random_model("llama", None, num_hidden_layers=4).save_pretrained("Llama-3.2-1B")
    ran = list(commands())
    assert len(ran) == 7
    for words in ran:
        assert main(words) == 0, capsys.readouterr().err
        out, target = capsys.readouterr().out, words[3]
        assert (Path(target) / "config.json").exists()
        told = json.loads(out)["target"] if "--json" in words else out.splitlines()[0].removeprefix("written: ")
        assert told == target
    assert not list(Path().glob(".*"))


def test_a_wrong_size_and_a_wrong_kind_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", "llamafy-qwen", "a", "b", "--shard-size", "much"]) == 2
    assert "E-CONVERT-019" in capsys.readouterr().err
    assert main(["convert", "llamafy-quen", "a", "b"]) == 2
    assert 'did you mean "llamafy-qwen"' in capsys.readouterr().err
    assert main(["convert", "llamafy-qwen", "nowhere", "b"]) == 66
    assert "E-CONVERT-001" in capsys.readouterr().err


def test_help_fits_a_screen(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("", "llamafy-qwen", "llama-pro", "dcp-to-hf", "hf-to-dcp", "pissa-init", "loftq-init"):
        assert main(["convert", *([kind] if kind else []), "--help"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 30
        assert max(map(len, lines)) <= 80


def test_the_page_says_how_many_types_there_are() -> None:
    assert 100 <= len(EXPANDS) < 110  # "about ninety more" than eleven


@pytest.mark.slow
def test_training_begins_with_pissa_where_the_model_was(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the keys that the command prints: the first loss is that of the model itself."""
    import tunesmith

    target = str(tmp_path / "start")
    assert main(["convert", "pissa-init", str(tiny_model), target, "--rank", "8", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["config"]
    keys = {"dataset": "new", "dataset_dir": str(tiny_data), "logging_steps": 1, "use_cpu": True, "lora_dropout": 0}
    keys |= {"save_strategy": "no", "learning_rate": 1e-2, "disable_shuffling": True, "num_train_epochs": 5}
    losses = {}
    for name, more in {"pissa": printed, "plain": {"model_name_or_path": str(tiny_model)}}.items():
        tunesmith.train({**keys, **more, "output_dir": str(tmp_path / name)})
        log = (tmp_path / name / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
        losses[name] = [line["loss"] for line in map(json.loads, log) if "loss" in line]
    assert losses["pissa"][0] == pytest.approx(losses["plain"][0], rel=1e-4)
    assert losses["pissa"][-1] < 0.6 * losses["pissa"][0]


@pytest.mark.slow
def test_training_changes_the_new_layers_only(
    tiny_model: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the keys that the command prints."""
    import tunesmith

    larger = str(tmp_path / "larger")
    assert main(["convert", "llama-pro", str(tiny_model), larger, "--num-expand", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    keys = {"dataset": "new", "dataset_dir": str(tiny_data), "logging_steps": 1, "use_cpu": True}
    keys |= {"save_strategy": "no", "learning_rate": 1e-2, "num_train_epochs": 5, "output_dir": str(tmp_path / "out")}
    tunesmith.train({**keys, **told["config"]})
    before, after = dict(open_weights(Path(larger))), dict(open_weights(tmp_path / "out"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {int(name.split(".")[2]) for name in changed} == set(told["expanded_layers"])
    log = (tmp_path / "out" / "trainer_log.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [line["loss"] for line in map(json.loads, log) if "loss" in line]
    assert losses[-1] < 0.7 * losses[0]
