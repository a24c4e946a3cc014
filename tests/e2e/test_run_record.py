"""What a run writes into run.json, however it ends."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tunesmith.__main__ import main
from tunesmith.core.errors import DataError, DivergedError, PreemptedError, Problem, StorageError
from tunesmith.core.process import ProcessId
from tunesmith.runs import manifest, registry
from tunesmith.runs.facts import config_digest, revision_of
from tunesmith.train.trainer import Trainer

SAVES = {"save_strategy": "steps", "save_steps": 2}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))


def kinds(found: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in found["events"]]


def ids() -> list[str]:
    return [found for found, _ in registry.known()]


def test_a_finished_run(run, out, tiny_data, tiny_model):
    result = run(hf_hub_token="hf_abcdef", run_name="first", data_seed=3)
    found = manifest.read(out)
    assert (found["status"], found["exit_code"], found["name"], found["kind"]) == ("finished", 0, "first", "train")
    assert kinds(found) == ["started", "finished"]
    assert found["steps"] == {"done": 4, "total": 4}
    assert found["metrics"] == result.metrics
    assert found["process"] == ProcessId.of().to_dict()
    assert found["plan"] == json.loads((out / "plan.json").read_text())
    assert found["checks"]["self_proof"] == json.loads((out / "self_proof.json").read_text())
    assert found["seeds"] == {"seed": 42, "data_seed": 3}
    assert (found["versions"]["torch"], found["versions"]["transformers"]) == (
        torch.__version__,
        transformers.__version__,
    )
    assert found["hardware"]["cpus"] == len(os.sched_getaffinity(0))
    assert found["cwd"] == os.getcwd()
    assert "hf_abcdef" not in (out / manifest.RUN_FILE).read_text()
    (file,) = found["data"]
    rows = (tiny_data / "new_openai.jsonl").read_bytes()
    assert file["digest"] == "jsonl:" + hashlib.blake2b(rows, digest_size=20).hexdigest()
    assert found["model"] == {"name": str(tiny_model), "revision": revision_of(str(tiny_model))}
    assert ids() == [found["id"]]


def test_a_resumed_run_is_the_same_run(run, out):
    run(**SAVES)
    first = manifest.read(out)
    run(**SAVES, num_train_epochs=2)
    found = manifest.read(out)
    assert (found["id"], found["created"]) == (first["id"], first["created"])
    assert kinds(found) == ["started", "finished", "resumed", "finished"]
    resumed = found["events"][2]
    assert resumed["checkpoint"] == str(out / "checkpoint-4")
    assert resumed["changed"] == {"num_train_epochs": [1, 2]}
    assert found["steps"] == {"done": 8, "total": 8}
    assert found["config_digest"] != first["config_digest"]


def test_a_fresh_start_is_another_run(run, out):
    run()
    first = manifest.read(out)["id"]
    run(overwrite_output_dir=True)
    found = manifest.read(out)
    assert found["id"] != first
    assert kinds(found) == ["started", "finished"]
    assert "replaces" not in found
    assert ids() == [found["id"]]


def test_a_fresh_start_with_bad_data_leaves_the_record_of_what_is_there(run, out, tmp_path):
    run()
    before = manifest.read(out)
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": 5}\n')
    with pytest.raises(DataError):
        run(overwrite_output_dir=True, dataset=str(bad))
    found = manifest.read(out)
    event = found["events"].pop()
    assert (event["kind"], event["exit_code"]) == ("not_replaced", 65)
    assert event["error"]["code"].startswith("E-DATA-")
    assert {**found, "updated": None} == {**before, "updated": None}
    assert ids() == [before["id"]]


def test_a_run_that_is_refused_leaves_nothing(run, out, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"messages": 5}\n')
    for folder in (out, out / "deep" / "er"):
        with pytest.raises(DataError):
            run(dataset=str(bad), output_dir=str(folder))
    assert not out.exists()
    assert ids() == []
    out.mkdir()
    (out / "mine.txt").touch()
    with pytest.raises(DataError):
        run(dataset=str(bad))
    assert {file.name for file in out.iterdir()} - {".run.lock"} == {"mine.txt"}


def test_another_try_of_a_run_that_did_nothing_is_the_same_run(run, out, monkeypatch):
    def interrupted(*_arguments, **_others):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tunesmith.train.run._build_data", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run()
    stopped = manifest.read(out)
    assert (stopped["status"], stopped["exit_code"], kinds(stopped)) == ("stopped", 130, ["started", "stopped"])
    run()
    found = manifest.read(out)
    assert (found["id"], found["status"]) == (stopped["id"], "finished")
    assert kinds(found) == ["started", "stopped", "started", "finished"]


def test_a_diverged_run_has_failed(run, out):
    with pytest.raises(DivergedError):
        run(learning_rate=1e30, max_grad_norm=0.0, num_train_epochs=4)
    found = manifest.read(out)
    assert (found["status"], found["exit_code"], found["error"]["code"]) == ("failed", 76, "E-TRAIN-003")
    assert found["steps"]["done"] >= 1
    assert found["events"][-1]["step"] == found["steps"]["done"]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (KeyboardInterrupt(), "stopped", 130),
        (PreemptedError(Problem("E-TRAIN-001", "stopped")), "stopped", 75),
        (OSError(28, "No space left on device"), "failed", 74),
        (RuntimeError("a bug"), "failed", 70),
    ],
)
def test_however_it_ends(run, out, monkeypatch, error, status, code):
    original = Trainer.training_step

    def training_step(self, *arguments, **others):
        if self.state.global_step == 2:
            raise error
        return original(self, *arguments, **others)

    monkeypatch.setattr(Trainer, "training_step", training_step)
    with pytest.raises(StorageError if isinstance(error, OSError) else type(error)):
        run()
    found = manifest.read(out)
    assert (found["status"], found["exit_code"], found["steps"]["done"]) == (status, code, 2)


def test_what_the_trainer_tells_is_an_event(run, out, monkeypatch):
    original, failed = Trainer.compute_loss, []

    def compute_loss(self, *arguments, **others):
        if self.state.global_step == 1 and not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, *arguments, **others)

    monkeypatch.setattr(Trainer, "compute_loss", compute_loss)
    run()
    (event,) = [event for event in manifest.read(out)["events"] if event["kind"] == "out_of_memory"]
    assert (event["where"], event["step"]) == ("step 2", 1)
    assert event["tokens_at_once"] == event["tokens"] // 2


def test_an_evaluation_beside_a_trained_run_adds_to_its_record(run, out):
    run()
    before = manifest.read(out)
    files = {name: (out / name).read_bytes() for name in ("run.yaml", "plan.json", "data_report.json")}
    result = run(do_train=False, do_eval=True, eval_dataset="new", dataset=None)
    found = manifest.read(out)
    assert kinds(found)[-2:] == ["started_beside", "finished_beside"]
    assert found["metrics"] == {**before["metrics"], **result.metrics}
    for key in ("id", "status", "config", "steps", "data"):
        assert found[key] == before[key]
    for name, content in files.items():
        assert (out / name).read_bytes() == content
        assert (out / f"eval_{name}").is_file()
    assert main(["runs", "verify", str(out)]) == 0


def test_an_evaluation_by_itself_is_a_run(run, out):
    result = run(do_train=False, do_eval=True, eval_dataset="new", dataset=None)
    found = manifest.read(out)
    assert (found["kind"], found["status"], found["metrics"]) == ("eval", "finished", result.metrics)
    assert [file["use"] for file in found["data"]] == ["eval"]


def test_a_stream_is_known_by_marks(run, out):
    run(streaming=True, max_steps=2)
    (file,) = manifest.read(out)["data"]
    assert (file["use"], file["whole"]) == ("train", False)
    size, _, mark = file["digest"].partition(":")
    assert int(size) == Path(file["name"]).stat().st_size
    assert len(mark) == 24


def test_the_digest_of_the_config_is_that_of_run_yaml(run, out):
    import yaml

    run()
    written = yaml.safe_load((out / "run.yaml").read_text())
    assert config_digest(written) == manifest.read(out)["config_digest"]


def test_a_list_of_runs_that_cannot_be_written_is_a_warning(run, out, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "file"))
    run()
    assert manifest.read(out)["status"] == "finished"


@pytest.mark.slow
def test_of_two_processes_one_writes(launch, tiny_model, tiny_data, out):
    keys = {"model_name_or_path": str(tiny_model), "dataset": "new", "dataset_dir": str(tiny_data)}
    keys |= {"output_dir": str(out), "max_steps": 3, "per_device_train_batch_size": 2, "use_cpu": True}
    launch(2, {**keys, "logging_steps": 1, "save_strategy": "no"})
    found = manifest.read(out)
    assert (found["status"], found["hardware"]["processes"], kinds(found)) == ("finished", 2, ["started", "finished"])
