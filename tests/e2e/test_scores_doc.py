"""docs/scores.md against the code, and its examples executed."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.pairs import write_feedback, write_stories
from tunesmith.__main__ import main
from tunesmith.data.dataset import CHOSEN, DISLIKED, LIKED
from tunesmith.evaluate.scores import RESULTS, SCORES, summary

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scores.md").read_text(encoding="utf-8")


def test_the_figures_are_those_that_are_computed() -> None:
    table = PAGE.partition("| figure |")[2].partition("\n\n")[0]
    told = {name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}
    pairs = summary(np.full(2, CHOSEN), np.ones((2, 2)))
    feedback = summary(np.array([LIKED, DISLIKED]), np.ones((2, 1)))
    assert told == {*pairs, *feedback, "tokens", "tokens_per_second", "runtime"}
    assert all(f"`{name}`" in PAGE for name in (SCORES, RESULTS))


@pytest.mark.slow
def test_the_examples_run(
    story_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_stories(tmp_path, 4)
    write_feedback(tmp_path, 4)
    chats = [json.loads(line)["conversations"] for line in (tmp_path / "feedback.jsonl").read_text().splitlines()]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"conversations": chat}) + "\n" for chat in chats))
    story_run(stage="rm", dataset="pairs.jsonl", output_dir="saves/rm", max_steps=2)
    config = yaml.safe_load((tmp_path / "saves/rm/run.yaml").read_text())
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    commands = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        words = shlex.split(command)[1:]
        named = ["template=default", "use_cpu=true"] if words[1] == "merged" else []
        assert main([*words, *named]) == 0, capsys.readouterr().err
    lines = {folder: (tmp_path / folder / SCORES).read_text().splitlines() for folder in ("scores", "scores-of-chats")}
    assert set(json.loads(lines["scores"][0])) == {"row", "chosen", "rejected", "margin"}
    assert set(json.loads(lines["scores-of-chats"][0])) == {"row", "score"}
    assert set(json.loads((tmp_path / "saves/rm" / SCORES).read_text().splitlines()[0])) == {"row", "liked", "score"}
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    capsys.readouterr()
    runpy.run_path("example.py")
    assert 0 <= float(capsys.readouterr().out) <= 1
