"""`tunesmith template`: what it lists and shows, and when a check fails."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tunesmith.__main__ import main


@pytest.fixture
def differing(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model's tokenizer with a chat template that begins with one more message."""
    folder = tmp_path / "differing"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, folder)
    path = folder / "chat_template.jinja"
    path.write_text("{{- '<|im_start|>system\nBe odd.<|im_end|>\n' }}" + path.read_text())
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["template", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_list_names_every_template_and_its_witness(capsys):
    code, out, _ = run(capsys, "list", "--json")
    assert code == 0
    listed = json.loads(out)
    rows = {row["name"]: row["verified"] for row in listed}
    assert rows["qwen3"] == "official"
    assert set(rows.values()) <= {"official", "llamafactory", "none", "source: missing"}
    tools = {row["name"]: row["tools"] for row in listed}
    assert (tools["qwen3"], tools["vicuna"], tools["chatml"]) == ("qwen", "default", None)
    lines = {line.split()[0]: line.split()[1:] for line in run(capsys, "list")[1].splitlines()}
    assert (lines["qwen3"], lines["chatml"]) == (["official", "qwen"], ["official", "-"])


def test_show_prints_the_file_and_what_it_extends(capsys):
    code, out, _ = run(capsys, "show", "qwen3")
    assert code == 0
    assert out.index("# ---- qwen3") < out.index("# ---- chatml")
    assert json.loads(run(capsys, "show", "qwen3", "--json")[1])["user"].startswith("<|im_start|>user")


def test_an_unknown_template_gets_a_suggestion(capsys):
    code, _, err = run(capsys, "show", "qwen33")
    assert code == 2
    assert 'did you mean "qwen3' in err


def test_render_marks_what_is_trained(capsys, tiny_model):
    code, out, _ = run(capsys, "render", "--model", tiny_model, "--rows", "1")
    assert code == 0
    assert "assistant\n⟦It is 4.<|im_end|>⟧" in out


def test_the_masks_of_the_models_own_template_are_verified(capsys, tiny_model):
    code, out, _ = run(capsys, "check", "--model", tiny_model)
    assert code == 0
    assert "0 different" in out


def test_an_equal_template_passes(capsys, tiny_model):
    code, out, _ = run(capsys, "check", "--model", tiny_model, "--template", "chatml", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["ok"]
    plain = found["suites"]["built-in chats"]
    assert plain["equal"] == plain["cases"] > 20


def test_a_difference_is_shown_and_fails(capsys, differing):
    code, out, _ = run(capsys, "check", "--model", differing, "--template", "chatml")
    assert code == 1
    assert "model: " in out
    assert "Be odd." in out


def test_rows_of_the_user_are_checked_by_their_places(capsys, differing, tiny_data):
    file = tiny_data / "new_openai.jsonl"
    code, out, _ = run(
        capsys, "check", "--model", differing, "--template", "chatml", "--data", file, "--rows", "4", "--json"
    )
    assert code == 1
    suite = json.loads(out)["suites"][f"rows of {file}"]
    assert [item["case"] for item in suite["differences"]] == [f"{file}:{line}" for line in (1, 2, 3, 4)]


def test_a_model_without_a_template_is_unusable_input(capsys, differing):
    (differing / "chat_template.jinja").unlink()
    code, _, err = run(capsys, "check", "--model", differing)
    assert code == 2
    assert "E-CLI-011" in err
