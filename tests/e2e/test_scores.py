"""What is done with a reward model: scores of rows, an ordinary folder of it, a server; and what others read of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tests.e2e.test_reward_runs import classifier, rewards_of
from tests.pairs import stories as rows_of
from tests.pairs import write_feedback, write_stories
from tunesmith.__main__ import main
from tunesmith.core.errors import DataError, TunesmithError
from tunesmith.evaluate.scores import RESULTS, SCORES, summary

pytestmark = pytest.mark.usefixtures("torch_one_thread")
COUNT = 7


@pytest.fixture(scope="module")
def trained(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short LoRA run of stage rm."""
    folder = tmp_path_factory.mktemp("rm")
    keys = {
        "model_name_or_path": str(stories),
        "stage": "rm",
        "finetuning_type": "lora",
        "lora_rank": 4,
        "template": "default",
        "dataset": str(write_stories(folder)),
        "output_dir": str(folder / "out"),
        "per_device_train_batch_size": 2,
        "max_steps": 3,
        "learning_rate": 3e-3,
        "save_strategy": "no",
        "use_cpu": True,
    }
    torch.set_num_threads(1)
    return tunesmith.train(keys).output_dir


@pytest.fixture(scope="module")
def merged(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merged") / "merged"
    return tunesmith.export_model(trained / "run.yaml", export_dir=str(folder))


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_stories(tmp_path, COUNT, seed=5)


@pytest.fixture
def score(trained: Path, pairs: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`score(key=value, ...)` of those pairs, by the run's adapter, into a folder of its own."""
    keys = {"adapter_name_or_path": str(trained), "eval_dataset": str(pairs), "output_dir": str(tmp_path / "scores")}
    return lambda **changes: tunesmith.score(trained / "run.yaml", **{**keys, **changes})


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / SCORES).read_text(encoding="utf-8").splitlines()]


def test_scores_of_pairs_are_those_of_transformers(
    score: Any, trained: Path, stories: Path, pairs: Path, tmp_path: Path
) -> None:
    found = score()
    wanted = rewards_of(*classifier(trained, stories), rows_of(COUNT, seed=5)).double()
    lines = lines_of(tmp_path / "scores")
    assert [line["row"] for line in lines] == [f"{pairs}:{number}" for number in range(1, COUNT + 1)]
    assert [[line["chosen"], line["rejected"]] for line in lines] == [
        pytest.approx(row, abs=1e-5) for row in wanted.tolist()
    ]
    assert all(line["margin"] == line["chosen"] - line["rejected"] for line in lines)
    assert found["accuracy"] == float((wanted[:, 0] > wanted[:, 1]).double().mean())
    assert found["accuracy_low"] <= found["accuracy"] <= found["accuracy_high"]
    assert found["margin"] == pytest.approx(float((wanted[:, 0] - wanted[:, 1]).mean()), abs=1e-5)
    assert json.loads((tmp_path / "scores" / RESULTS).read_text()) == found
    for keys in ({"max_batch_requests": 1}, {"max_batch_requests": 3, "fast_path": "off"}):
        score(**keys)
        for one, other in zip(lines_of(tmp_path / "scores"), lines, strict=True):
            assert one["chosen"] == pytest.approx(other["chosen"], abs=1e-5)


def test_rows_of_other_kinds_have_one_score(score: Any, merged: Path, tmp_path: Path) -> None:
    feedback = write_feedback(tmp_path, COUNT, seed=5)
    chats = tmp_path / "chats.jsonl"
    chats.write_text("".join(json.dumps({"conversations": json.loads(line)["conversations"]}) + "\n"
                             for line in feedback.read_text().splitlines()))  # fmt: skip
    score()
    sides = [("chosen", "rejected")[number % 2] for number in range(COUNT)]
    wanted = [line[side] for line, side in zip(lines_of(tmp_path / "scores"), sides, strict=True)]
    found = score(stage="kto", eval_dataset=str(feedback))
    lines = lines_of(tmp_path / "scores")
    assert [line["score"] for line in lines] == pytest.approx(wanted, abs=1e-5)
    assert [line["liked"] for line in lines] == [side == "chosen" for side in sides]
    above = [one > other for one in wanted[::2] for other in wanted[1::2]]
    assert found["area"] == pytest.approx(sum(above) / len(above))
    keys = {"model_name_or_path": str(merged), "template": "default", "use_cpu": True, "stage": "sft"}
    found = tunesmith.score(keys, dataset=str(chats), output_dir=str(tmp_path / "chats"))
    lines = lines_of(tmp_path / "chats")
    assert [line["score"] for line in lines] == pytest.approx(wanted, abs=1e-5)
    assert lines[0].keys() == {"row", "score"}
    assert (found["rows"], found["score"]) == (COUNT, pytest.approx(sum(wanted) / COUNT, abs=1e-5))


def test_figures_by_hand() -> None:
    import numpy as np

    from tunesmith.data.dataset import CHOSEN, DISLIKED, LIKED

    found = summary(np.full(4, CHOSEN), np.array([[3.0, 1.0], [0.0, 0.0], [1.0, 2.0], [5.0, -1.0]]))
    assert (found["accuracy"], found["equal"], found["margin"]) == (0.5, 1, 7 / 4)
    found = summary(np.array([LIKED, DISLIKED, LIKED, DISLIKED]), np.array([[1.0], [1.0], [3.0], [2.0]]))
    assert found["area"] == (0.5 + 0 + 1 + 1) / 4
    assert (found["liked"], found["disliked"], found["lowest"]) == (2.0, 1.5, 1.0)


def test_a_folder_stands_for_its_run(
    trained: Path, merged: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name of the run's folder, of the same without its config, and of the merged model."""
    bare = tmp_path / "bare"
    shutil.copytree(trained, bare)
    (bare / "run.yaml").unlink()
    more = ["template=default", "use_cpu=true"]
    for folder, words in ((trained, []), (bare, more), (merged, more)):
        words = [f"dataset={pairs}", f"output_dir={tmp_path / folder.name}", *words]
        assert main(["score", str(folder), *words, "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["rows"] == COUNT
    first, *others = (lines_of(tmp_path / folder.name) for folder in (trained, bare, merged))
    for other in others:
        for one, two in zip(first, other, strict=True):
            assert one["chosen"] == pytest.approx(two["chosen"], abs=1e-5)
    assert main(["score", str(trained), f"eval_dataset={pairs}"]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].split() == ["rows", str(COUNT)]
    assert (trained / SCORES).is_file(), "a run's folder is its output_dir"


def test_what_cannot_be_scored_is_an_error(
    score: Any, trained: Path, merged: Path, stories: Path, pairs: Path, tmp_path: Path
) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="empty"):
        score(eval_dataset=str(empty))
    plain = {"template": "default", "use_cpu": True, "dataset": str(pairs), "output_dir": str(tmp_path / "none")}
    many = tmp_path / "many"
    shutil.copytree(merged, many)
    settings = json.loads((many / "config.json").read_text())
    settings |= {"id2label": {"0": "a", "1": "b"}, "label2id": {"a": 0, "b": 1}}
    (many / "config.json").write_text(json.dumps(settings))
    for folder in (stories, many):
        with pytest.raises(TunesmithError) as caught:
            tunesmith.score(plain, model_name_or_path=str(folder))
        assert caught.value.code == "E-MODEL-035"
    assert not (tmp_path / "none").exists()
    for keys, code in (
        ({"stage": "pt"}, "E-CONFIG-021"),
        ({"on_too_long": "split"}, "E-CONFIG-021"),
        ({"infer_backend": "vllm"}, "E-CONFIG-021"),
    ):
        with pytest.raises(TunesmithError) as caught:
            score(**keys)
        assert caught.value.code == code


def test_a_run_that_is_stopped_leaves_no_file(score: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tunesmith.evaluate import scores

    score()
    folder = tmp_path / "scores"
    before = (folder / SCORES).read_bytes()
    (folder / f".{SCORES}.999999999.draft").write_text("half")

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    for name in ("_scores", "_lines"):
        with monkeypatch.context() as patched:
            patched.setattr(scores, name, stop)
            with pytest.raises(KeyboardInterrupt):
                score()
        assert (folder / SCORES).read_bytes() == before
        assert {path.name for path in folder.iterdir()} - {".run.lock"} <= {SCORES, RESULTS}


def test_a_reward_model_does_not_talk(trained: Path, merged: Path) -> None:
    for keys, code in (
        ({"source": trained / "run.yaml"}, "E-METHOD-023"),
        ({"model_name_or_path": str(merged), "template": "default", "use_cpu": True}, "E-MODEL-035"),
    ):
        with pytest.raises(TunesmithError) as caught:
            tunesmith.chat(**keys)
        assert caught.value.code == code
        assert "tunesmith score" in str(caught.value)


def test_a_merged_model_is_one_of_transformers(trained: Path, merged: Path, stories: Path) -> None:
    assert not (merged / "Modelfile").exists()
    rows = rows_of(COUNT, seed=5)
    with_adapter, alone = rewards_of(*classifier(trained, stories), rows), rewards_of(*classifier(merged), rows)
    torch.testing.assert_close(alone, with_adapter, rtol=1e-5, atol=1e-5)
    assert json.loads((merged / "config.json").read_text())["architectures"] == ["LlamaForSequenceClassification"]


def test_adapters_of_reward_models_are_weighed(trained: Path, tmp_path: Path) -> None:
    """Their output layers too, which are changes of nothing: half of one is half of its weights."""
    from safetensors.torch import load_file

    config = tunesmith.load_config(trained / "run.yaml").to_flat()
    config |= {"adapter_name_or_path": [str(trained)] * 2, "merge_method": "linear", "merge_weights": [0.25, 0.25]}
    folder = tunesmith.export_model(config, export_dir=str(tmp_path / "weighed"))
    (own,) = (one for name, one in load_file(trained / "adapter_model.safetensors").items() if "score" in name)
    torch.testing.assert_close(load_file(folder / "model.safetensors")["score.weight"], 0.5 * own)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_trl_evaluates_a_merged_model(score: Any, merged: Path, pairs: Path, tmp_path: Path) -> None:
    import trl
    from datasets import Dataset

    from tests.parity.test_trl_curves import of_rewards
    from tests.parity.test_trl_curves import rows_of as samples_of

    found = score()
    keys = {"model_name_or_path": str(merged), "template": "default", "stage": "rm", "dataset": str(pairs)}
    keys |= {"output_dir": str(tmp_path / "x"), "disable_shuffling": True}
    rows = Dataset.from_list([of_rewards(row) for row in samples_of(keys, COUNT)])

    class Prepared(trl.RewardTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *_arguments: Any, **_keywords: Any) -> Any:
            return dataset

    arguments = trl.RewardConfig(output_dir=str(tmp_path / "theirs"), report_to="none", use_cpu=True, bf16=False)
    trainer = Prepared(model=str(merged), args=arguments, train_dataset=rows, eval_dataset=rows)
    theirs = trainer.evaluate()
    assert theirs["eval_margin"] == pytest.approx(found["margin"], abs=1e-5)
    assert theirs["eval_accuracy"] == pytest.approx(found["accuracy"], abs=1e-6)


def test_evaluation_alone(trained: Path, merged: Path, score: Any, pairs: Path, tmp_path: Path) -> None:
    """Without training: of the adapter of a run, and of a merged model."""
    wanted = score()
    only = {"do_train": False, "do_eval": True, "eval_dataset": str(pairs), "output_dir": str(tmp_path / "judged")}
    for keys in ({"adapter_name_or_path": str(trained)}, {"model_name_or_path": str(merged)}):
        config = tunesmith.load_config(trained / "run.yaml").to_flat()
        config = {
            name: value for name, value in config.items() if name not in ("dataset", "max_steps", "learning_rate")
        }
        found = tunesmith.train({**config, **only, **keys}).metrics
        assert found["eval_margin"] == pytest.approx(wanted["margin"], abs=1e-5)
        assert found["eval_accuracy"] == pytest.approx(wanted["accuracy"])


def test_an_adapter_of_a_chat_model_becomes_no_reward_model(
    story_run: Any, stories: Path, pairs: Path, tmp_path: Path
) -> None:
    data = tmp_path / "sft.json"
    data.write_text(json.dumps([{"instruction": "Hello", "output": "Hi"}] * 2))
    adapter = str(story_run(dataset=str(data), max_steps=1, output_dir=str(tmp_path / "sft")).output_dir)
    config = {"model_name_or_path": str(stories), "adapter_name_or_path": adapter, "template": "default"}
    for run in (
        lambda: story_run(stage="rm", dataset=str(pairs), adapter_name_or_path=adapter),
        lambda: tunesmith.score(config, dataset=str(pairs), output_dir=str(tmp_path / "scores"), use_cpu=True),
    ):
        with pytest.raises(TunesmithError) as caught:
            run()
        assert caught.value.code == "E-METHOD-023"


def test_a_server_of_a_run_is_one_of_rewards(trained: Path, merged: Path, stories: Path) -> None:
    from tunesmith.engines.rewards import RewardEngine, gives_rewards
    from tunesmith.serve.server import engine_of, load_adapters

    base = {"model_name_or_path": str(stories), "template": "default", "use_cpu": True}
    of_run, of_model = {**base, "adapter_name_or_path": str(trained)}, {**base, "model_name_or_path": str(merged)}
    assert not gives_rewards(tunesmith.load_config(base, verb="api").model)
    for keys in (of_run, of_model):
        config = tunesmith.load_config({**keys, "adapters": {"poet": "x"}}, verb="api")
        with engine_of(config) as engine:
            assert isinstance(engine, RewardEngine)
            with pytest.raises(TunesmithError) as caught:
                load_adapters(engine, config.serve, "model")
            assert caught.value.code == "E-SERVE-010"
    for more, code in (({"stage": "rm"}, "E-MODEL-035"), ({"stage": "rm", "infer_backend": "vllm"}, "E-ENGINE-035")):
        with pytest.raises(TunesmithError) as caught:
            engine_of(tunesmith.load_config({**base, **more}, verb="api"))
        assert caught.value.code == code
