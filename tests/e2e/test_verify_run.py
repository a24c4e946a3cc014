"""`tunesmith runs verify` finds every kind of change, and nothing where nothing changed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tunesmith
from tunesmith.__main__ import main
from tunesmith.runs import manifest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path) -> Path:
    """A run with two checkpoints, its data beside it; it is copied for each test."""
    place = tmp_path_factory.mktemp("verify")
    shutil.copytree(tiny_model, place / "model")
    for use in ("rows", "held"):
        shutil.copy(tiny_data / "new_openai.jsonl", place / f"{use}.jsonl")
    patch = pytest.MonkeyPatch()
    patch.chdir(place)
    torch.set_num_threads(1)
    tunesmith.train(
        model_name_or_path="model",
        dataset="rows.jsonl",
        eval_dataset="held.jsonl",
        eval_strategy="steps",
        eval_steps=2,
        output_dir="out",
        per_device_train_batch_size=4,
        max_steps=4,
        save_strategy="steps",
        save_steps=2,
        use_cpu=True,
        hf_hub_token="hf_secret",
    )
    patch.undo()
    return place


@pytest.fixture
def place(trained: Path, tmp_path: Path) -> Path:
    """A copy at another place: the record still says the old one as the folder that relative paths belong to."""
    shutil.copytree(trained, tmp_path / "copy")
    with manifest.changing(tmp_path / "copy" / "out") as found:
        found["cwd"] = str(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def verify(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, tuple[str, str]]]:
    """`verify(code)` -> {"part what": (outcome, detail)} of everything that is not the same."""

    def run(code: int) -> dict[str, tuple[str, str]]:
        assert main(["runs", "verify", str(place / "out"), "--json"]) == code
        found = json.loads(capsys.readouterr().out)
        assert found["ok"] == (code == 0)
        parts = {check["part"] for check in found["checks"]}
        assert parts >= {"config", "plan", "checks", "metrics", "result", "finite", "data", "template", "model"}
        checks = [check for check in found["checks"] if check["outcome"] != "same"]
        return {f"{check['part']} {check['what']}": (check["outcome"], check["detail"]) for check in checks}

    return run


def bad(found: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    return {name: one for name, one in found.items() if one[0] in ("differs", "missing")}


def commit(checkpoint: Path, step: int) -> None:
    """The manifest of a checkpoint, by the arithmetic of the standard library."""
    files = {
        file.name: {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in checkpoint.iterdir()
        if file.name != "manifest.json"
    }
    (checkpoint / "manifest.json").write_text(json.dumps({"format": 1, "step": step, "files": files}))


def test_an_untouched_run_verifies(place: Path, verify, capsys) -> None:
    assert verify(0) == {}
    assert main(["runs", "verify", str(place / "out")]) == 0
    text = capsys.readouterr().out
    assert "ok       data        all 2" in text
    assert "DIFFERS" not in text


def test_the_record_holds_the_hashes_of_the_result(place: Path) -> None:
    saved = manifest.read(place / "out")["saved"]
    weights = place / "out" / "adapter_model.safetensors"
    assert saved["adapter_model.safetensors"] == {
        "size": weights.stat().st_size,
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
    }
    assert {"adapter_config.json", "tokenizer.json"} <= saved.keys()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_one_bit_of_a_checkpoint(place: Path, verify) -> None:
    checkpoint = place / "out" / "checkpoint-4"
    commit(checkpoint, 4)
    flip(checkpoint / "adapter_model.safetensors")
    (checkpoint / "trainer_state.json").unlink()
    (checkpoint / "more.txt").touch()
    assert bad(verify(65)) == {
        "checkpoint checkpoint-4/adapter_model.safetensors": ("differs", "has other bytes than were saved"),
        "checkpoint checkpoint-4/trainer_state.json": ("missing", "is missing"),
        "checkpoint checkpoint-4/more.txt": ("differs", "is not of this checkpoint"),
    }


def test_a_checkpoint_under_another_name(place: Path, verify) -> None:
    commit(place / "out" / "checkpoint-2", 2)
    (place / "out" / "checkpoint-2").rename(place / "out" / "checkpoint-3")
    assert bad(verify(65)) == {"checkpoint checkpoint-3/manifest.json": ("differs", "was 3, is 2")}


def test_weights_that_are_not_finite(place: Path, verify) -> None:
    file = place / "out" / "adapter_model.safetensors"
    tensors = load_file(file)
    name = sorted(tensors)[0]
    tensors[name][0, 0] = float("nan")
    save_file(tensors, file, metadata={"format": "pt"})
    found = bad(verify(65))
    assert found["finite adapter_model.safetensors"] == ("differs", f"1 tensors are not finite: {name}")
    file.write_bytes(b"broken")
    assert bad(verify(65))["finite adapter_model.safetensors"][1].startswith("cannot be read")


def test_a_changed_row_of_the_data(place: Path, verify) -> None:
    rows = place / "rows.jsonl"
    rows.write_text(rows.read_text().replace("a", "b", 1))
    (place / "held.jsonl").unlink()
    found = bad(verify(65))
    assert found.keys() == {"data rows.jsonl", "data held.jsonl (eval)"}
    assert found["data rows.jsonl"][0] == "differs"
    assert found["data held.jsonl (eval)"][0] == "missing"


def test_a_changed_template_and_model(place: Path, verify) -> None:
    template = place / "model" / "chat_template.jinja"
    template.write_text(template.read_text() + "{# another #}")
    assert bad(verify(65)).keys() == {"template auto"}
    config = json.loads((place / "model" / "config.json").read_text())
    (place / "model" / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0}))
    assert bad(verify(65)).keys() == {"template auto", "model model"}


def test_a_changed_config(place: Path, verify) -> None:
    file = place / "out" / "run.yaml"
    assert "hf_secret" not in file.read_text()
    file.write_text(file.read_text().replace("max_steps: 4", "max_steps: 5"))
    assert bad(verify(65))["config run.yaml"] == ("differs", "max_steps was 4, is 5")


@pytest.mark.parametrize(
    ("name", "part", "key"), [("plan.json", "plan", "seed"), ("self_proof.json", "checks", "rows")]
)
def test_a_changed_claim(place: Path, verify, name: str, part: str, key: str) -> None:
    file = place / "out" / name
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, key: 77}))
    assert bad(verify(65)) == {f"{part} {name}": ("differs", f"{key} was {content[key]}, is 77")}


def test_changed_metrics(place: Path, verify) -> None:
    file = place / "out" / "all_results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "train_loss": 0.1}))
    assert bad(verify(65)) == {"metrics all_results.json": ("differs", "other values of train_loss")}


def test_other_versions_are_told_and_no_fault(place: Path, verify) -> None:
    with manifest.changing(place / "out") as found:
        now = found["versions"]["torch"]
        found["versions"]["torch"] = "1.0"
    changed: dict[str, Any] = verify(0)
    assert changed["versions torch"] == ("told", f"was 1.0, is {now}")


def test_a_checkpoint_without_a_manifest_is_not_known(place: Path, verify) -> None:
    for file in (place / "out").glob("checkpoint-*/manifest.json"):
        file.unlink()
    found = verify(0)
    assert {found[f"checkpoint checkpoint-{step}"][0] for step in (2, 4)} == {"unknown"}


def test_the_error_names_what_differs(place: Path, capsys) -> None:
    (place / "rows.jsonl").unlink()
    assert main(["runs", "verify", str(place / "out")]) == 65
    captured = capsys.readouterr()
    assert "MISSING  data        rows.jsonl" in captured.out
    assert "E-RUN-020" in captured.err
    assert all(len(line) <= 80 for line in captured.out.splitlines())


def test_a_stream_is_verified_by_its_marks(place: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(place)
    keys = {"model_name_or_path": "model", "dataset": "rows.jsonl", "streaming": True, "max_steps": 2}
    tunesmith.train(**keys, output_dir="streamed", per_device_train_batch_size=4, save_strategy="no", use_cpu=True)
    assert main(["runs", "verify", "streamed/"]) == 0
    with (place / "rows.jsonl").open("a") as rows:
        rows.write("\n")
    assert main(["runs", "verify", "streamed/"]) == 65
    assert "DIFFERS  data        rows.jsonl" in capsys.readouterr().out
