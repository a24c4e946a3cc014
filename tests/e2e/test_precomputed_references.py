"""Runs whose rows bring what the reference says: as with a reference beside them, without one in memory."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.pairs import steps_of, write_feedback, write_stories
from tunesmith.core.errors import TunesmithError
from tunesmith.train import precompute

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every reference that a run makes."""
    found = []
    original = precompute.reference_of

    def reference_of(*arguments: Any) -> Any:
        found.append(original(*arguments))
        return found[-1]

    monkeypatch.setattr(precompute, "reference_of", reference_of)
    return found


@pytest.fixture
def compare(story_run: Run, tmp_path: Path) -> Run:
    """`compare(key=value, ...)`: four steps of dpo or kto -> Result; the output folder is overwritten."""

    def run(**changes: Any) -> Any:
        feedback = changes.get("stage") == "kto"
        keys = {
            "stage": "dpo",
            "dataset": str(write_feedback(tmp_path) if feedback else write_stories(tmp_path)),
            "per_device_train_batch_size": 3,
            "max_steps": 4,
            "learning_rate": 1e-3,
            "overwrite_output_dir": True,
        }
        return story_run(**{**keys, **changes})

    return run


def same_curve(one: Any, two: Any) -> None:
    assert len(steps_of(one)) == len(steps_of(two)) > 0
    for first, second in zip(steps_of(one), steps_of(two), strict=True):
        for name in {"loss", "kl", "rewards/chosen", "rewards/rejected"} & first.keys():
            assert first[name] == pytest.approx(second[name], abs=1e-6), name
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=1e-4, abs=1e-6)
    for name in ("eval_loss", "eval_rewards/margins"):
        assert one.metrics.get(name) == pytest.approx(two.metrics.get(name), abs=1e-6)


_EVALUATED = {"val_size": 8, "eval_strategy": "steps", "eval_steps": 4, "per_device_eval_batch_size": 5}
CASES: dict[str, dict[str, Any]] = {
    "lora": {**_EVALUATED},
    "full": {"finetuning_type": "full", "ref_model": "other", **_EVALUATED},
    "kto": {"stage": "kto", "learning_rate": 5e-3, **_EVALUATED},
}
MORE: dict[str, dict[str, Any]] = {
    "full, its own copy": {"finetuning_type": "full"},
    "packs": {"packing": True, "cutoff_len": 200, "per_device_train_batch_size": 2},
    "padded packs": {"packing": True, "cutoff_len": 200, "fast_path": "off", "per_device_train_batch_size": 2},
    "padded": {"fast_path": "off"},
    "one pair": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 3},
    "tail weights": {"ld_alpha": 0.4, "ref_model": "other"},
    "the whole step": {"pref_loss": "aot", "gradient_accumulation_steps": 2},
    "PiSSA": {"pissa_init": True},
    "half precision": {"bf16": True, "finetuning_type": "full"},
    "kto padded": {"stage": "kto", "fast_path": "off"},
    "kto packs": {"stage": "kto", "packing": True, "cutoff_len": 160},
    "bco": {"stage": "kto", "kto_loss": "bco", "ref_model": "other"},
}


def check(compare: Run, keys: dict[str, Any], other: Path) -> tuple[Any, Any]:
    keys = {**keys, **({"ref_model": str(other)} if "ref_model" in keys else {})}
    beside, told = compare(**keys), compare(precompute_ref_log_probs=True, **keys)
    same_curve(beside, told)
    return beside, told


@pytest.mark.parametrize("case", ["lora", "full", pytest.param("kto", marks=pytest.mark.slow)])
def test_a_run_without_a_reference_is_the_run_with_it(compare: Run, asked: list[Any], other: Path, case: str) -> None:
    """In training and in evaluation. What was computed once is there for the next run, to the same bits."""
    _, told = check(compare, CASES[case], other)
    assert len(asked) == 2
    keys = {**CASES[case], **({"ref_model": str(other)} if "ref_model" in CASES[case] else {})}
    again = compare(precompute_ref_log_probs=True, **keys)
    assert len(asked) == 2, "the cache has what it says"
    assert [one["loss"] for one in steps_of(told)] == [one["loss"] for one in steps_of(again)]


@pytest.mark.slow
@pytest.mark.parametrize("case", MORE)
def test_every_kind_of_batch_and_of_reference(compare: Run, asked: list[Any], other: Path, case: str) -> None:
    check(compare, MORE[case], other)
    assert len(asked) == 2


def test_no_second_model_lives_while_the_policy_trains(
    compare: Run, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted at the first step. Weights that can no longer be read are not missed by the second run."""
    from transformers import PreTrainedModel

    from tunesmith.train.trainer import Trainer

    alive: list[int] = []
    original = Trainer.train

    def train(self: Any, *arguments: Any, **others: Any) -> Any:
        before = {id(one) for one in standing}
        found = [one for one in gc.get_objects() if isinstance(one, PreTrainedModel) and id(one) not in before]
        alive.append(sum(1 for one in found if hasattr(one, "loss_forward")))
        return original(self, *arguments, **others)

    gc.collect()
    standing = [one for one in gc.get_objects() if isinstance(one, PreTrainedModel)]  # of other tests
    monkeypatch.setattr(Trainer, "train", train)
    keys = {"finetuning_type": "full", "ref_model": str(other), "max_steps": 1}
    compare(precompute_ref_log_probs=True, **keys)
    assert alive == [1]
    gc.collect()  # the model of that run
    compare(**keys)
    assert alive == [1, 2]


def test_the_second_run_reads_no_weights_of_the_reference(
    compare: Run, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.data.sources import digests

    monkeypatch.setattr(digests, "_STILL_WARM_NS", 0)  # the files were written a moment ago
    keys = {"ref_model": str(other), "precompute_ref_log_probs": True, "max_steps": 1}
    first = compare(**keys)
    real = Path.open

    def guarded(self: Path, *arguments: Any, **others: Any) -> Any:
        assert self != other / "model.safetensors", "the weights are read"
        return real(self, *arguments, **others)

    monkeypatch.setattr(Path, "open", guarded)
    monkeypatch.setattr(precompute, "reference_of", None)
    assert [one["loss"] for one in steps_of(first)] == [one["loss"] for one in steps_of(compare(**keys))]


def test_another_reference_or_other_rows_are_asked_again(
    compare: Run, asked: list[Any], other: Path, tmp_path: Path
) -> None:
    keys = {"precompute_ref_log_probs": True, "max_steps": 1}
    for more in ({}, {"ref_model": str(other)}, {"cutoff_len": 66}, {"ld_alpha": 0.5}, {"bf16": True}):
        before = len(asked)
        compare(**keys, **more)
        assert len(asked) == before + 1, more
    weights = load_file(other / "model.safetensors")
    save_file({name: 0.9 * one for name, one in weights.items()}, other / "model.safetensors", {"format": "pt"})
    before = len(asked)
    compare(**keys, ref_model=str(other))
    assert len(asked) == before + 1, "the same folder holds other weights"
    compare(**keys, learning_rate=1e-4, lora_rank=2, seed=5, per_device_train_batch_size=1)
    assert len(asked) == before + 1, "these do not matter"


def test_what_was_interrupted_goes_on_behind_whole_shards(
    compare: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each shard is there as a whole or not at all; numbers do not depend on where it ended."""
    monkeypatch.setattr(precompute, "_SHARD", 600)
    monkeypatch.setattr(precompute, "_BATCH", 200)
    whole = compare(precompute_ref_log_probs=True)
    computed: list[tuple[int, int]] = []
    original = precompute._Asked._compute

    def compute(self: Any, rows: Any, first: int, last: int, count: Any) -> Any:
        if len(computed) == 3:
            (next(tmp_path.glob("two/prepared/.*.draft")) / "reference.npy").write_bytes(b"half")
            raise KeyboardInterrupt
        computed.append((first, last))
        return original(self, rows, first, last, count)

    monkeypatch.setenv("TUNESMITH_DATA_CACHE", str(tmp_path / "two"))
    monkeypatch.setattr(precompute._Asked, "_compute", compute)
    with pytest.raises(KeyboardInterrupt):
        compare(precompute_ref_log_probs=True)
    before = list(computed)
    computed[:] = [(-1, -1)] * 4
    again = compare(precompute_ref_log_probs=True)
    assert len(before) == 3
    assert not set(before) & set(computed)
    assert [one["loss"] for one in steps_of(whole)] == [one["loss"] for one in steps_of(again)]


_KILLED = """
import os, signal, sys
from pathlib import Path
import tunesmith
from tunesmith.train import precompute

precompute._SHARD, precompute._BATCH = 600, 200
computed, original, left = [], precompute.np.save, int(sys.argv[2])

def save(file, values):
    if len(computed) == left:
        Path(file).write_bytes(b"half of a file")
        os.kill(os.getpid(), signal.SIGKILL)
    computed.append(file)
    original(file, values)

precompute.np.save = save
tunesmith.train(Path(sys.argv[1]))
print(len(computed), "shards")
"""


@pytest.mark.slow
def test_a_kill_leaves_no_half_of_a_shard(compare: Run, stories: Path, tmp_path: Path) -> None:
    keys = {
        "model_name_or_path": str(stories),
        "stage": "dpo",
        "dataset": str(write_stories(tmp_path)),
        "finetuning_type": "lora",
        "lora_rank": 4,
        "template": "default",
        "output_dir": str(tmp_path / "killed"),
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "per_device_train_batch_size": 3,
        "max_steps": 4,
        "learning_rate": 1e-3,
        "precompute_ref_log_probs": True,
    }
    config = tmp_path / "config.json"
    config.write_text(json.dumps(keys), encoding="utf-8")
    environment = {**os.environ, "TUNESMITH_DATA_CACHE": str(tmp_path / "killed cache"), "OMP_NUM_THREADS": "1"}

    def run(left: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", _KILLED, str(config), str(left)]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)

    assert run(4).returncode == -signal.SIGKILL
    after = run(-1)
    assert after.returncode == 0, after.stderr
    shards = len(list((tmp_path / "killed cache" / "prepared").glob("*/reference.npy")))
    assert f"{shards - 4} shards" in after.stdout.splitlines(), "what was done before is not done again"
    whole = compare(precompute_ref_log_probs=True, output_dir=str(tmp_path / "whole"))
    lines = map(json.loads, (tmp_path / "killed" / "trainer_log.jsonl").read_text().splitlines())
    assert [one["loss"] for one in lines if "loss" in one] == pytest.approx(
        [one["loss"] for one in steps_of(whole)], abs=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_a_resumed_run_gives_the_same_bits(compare: Run, other: Path, tmp_path: Path, stage: str) -> None:
    keys = {
        "stage": stage,
        "finetuning_type": "full",
        "ref_model": str(other),
        "precompute_ref_log_probs": True,
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 3,
    }
    whole = compare(output_dir=str(tmp_path / "whole"), **keys)
    compare(output_dir=str(tmp_path / "parts"), **keys)
    shutil.rmtree(tmp_path / "parts" / "checkpoint-6")
    (tmp_path / "parts" / "model.safetensors").unlink()
    more = {"resume_from_checkpoint": True, "overwrite_output_dir": False}
    parts = compare(output_dir=str(tmp_path / "parts"), **{**keys, **more})
    one, two = (load_file(result.output_dir / "model.safetensors") for result in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_reference_without_numbers_is_told(compare: Run, other: Path, tmp_path: Path) -> None:
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if "norm" in name)
    weights[name][0] = torch.nan
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TunesmithError) as caught:
        compare(ref_model=str(other), precompute_ref_log_probs=True, fast_path="off")
    assert caught.value.problems[0].code == "E-TRAIN-070"
    kept = [json.loads(file.read_text())["name"] for file in (tmp_path / "cache" / "prepared").glob("*/manifest.json")]
    assert "what a reference says" not in kept


@pytest.mark.slow
def test_ranks_share_the_work(compare: Run, launch: Run, stories: Path, tmp_path: Path, other: Path) -> None:
    keys = {
        "model_name_or_path": str(stories),
        "stage": "dpo",
        "dataset": str(write_stories(tmp_path)),
        "finetuning_type": "full",
        "ref_model": str(other),
        "template": "default",
        "output_dir": str(tmp_path / "ranks"),
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "per_device_train_batch_size": 3,
        "max_steps": 3,
        "learning_rate": 1e-3,
        "precompute_ref_log_probs": True,
    }
    lines = [one for one in launch(2, keys) if "loss" in one]
    alone = steps_of(compare(**{**keys, "per_device_train_batch_size": 6}))
    assert [one["loss"] for one in lines] == pytest.approx([one["loss"] for one in alone], abs=1e-5)
