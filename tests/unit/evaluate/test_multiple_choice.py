"""Benchmarks by likelihood, against a script that asks transformers alone, question by question."""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import tunesmith
from tunesmith.core.errors import DataError, OutputError, TunesmithError, UsageError
from tunesmith.evaluate.benchmarks import CATEGORIES, all_benchmarks

pytestmark = pytest.mark.usefixtures("torch_one_thread")

LETTERS = "ABCD"
SUBJECTS = ("elementary_mathematics", "sociology", "philosophy", "marketing")
Row = tuple[str, str, str, str, str, str]


def question(draw: random.Random) -> Row:
    """A sum, its options and the letter of the answer."""
    one, other = draw.randint(1, 40), draw.randint(1, 40)
    options = draw.sample(range(2, 90), 4)
    place = draw.randrange(4)
    options[place] = one + other
    return (f"What is {one} + {other}?", *(str(option) for option in options), LETTERS[place])  # type: ignore[return-value]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files as MMLU's own archive has them: no head, one folder for each split."""
    found, draw = tmp_path_factory.mktemp("data") / "mmlu", random.Random(5)
    for split, count in (("dev", 5), ("test", 12)):
        (found / split).mkdir(parents=True)
        for subject in SUBJECTS:
            with (found / split / f"{subject}_{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(question(draw) for _ in range(count))
    return found


def rows_of(folder: Path, split: str, subject: str) -> list[Row]:
    with (folder / split / f"{subject}_{split}.csv").open(newline="") as file:
        return [tuple(row) for row in csv.reader(file)]  # type: ignore[misc]


def by_hand(model_path: Path, folder: Path, subjects: Sequence[str], shots: int, split: str) -> dict[str, list[Any]]:
    """The letters that transformers finds likeliest, by subject: a chat of examples, one forward, four logits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    ids = [tokenizer(letter, add_special_tokens=False).input_ids[-1] for letter in LETTERS]
    found: dict[str, list[Any]] = {}
    for subject in subjects:
        pool, name = rows_of(folder, "dev", subject), subject.replace("_", " ")
        for row in rows_of(folder, split, subject):
            chat: list[dict[str, str]] = []
            for text, a, b, c, d, answer in [*[one for one in pool if one != row][:shots], row]:
                content = f"{text}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:"
                chat += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
            head = f"The following are multiple choice questions (with answers) about {name}.\n\n"
            chat[0]["content"] = head + chat[0]["content"]
            prompt = tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, return_tensors="pt")
            with torch.inference_mode():
                logits = model(prompt["input_ids"]).logits[0, -1, ids]
            found.setdefault(subject, []).append((LETTERS[int(logits.argmax())], row[5], logits.log_softmax(-1)))
    return found


def compare(evaluation: Any, expected: dict[str, list[Any]]) -> None:
    """Every letter, the distribution over the four, and the accuracies."""
    lines = iter(evaluation.questions)
    for subject, answers in expected.items():
        right = [letter == answer for letter, answer, _ in answers]
        for letter, answer, shares in answers:
            line = next(lines)
            assert (line["subject"], line["predict"], line["answer"]) == (subject, letter, answer)
            own = torch.tensor([line["logprobs"][one] for one in LETTERS]).log_softmax(-1)
            assert torch.allclose(own, shares, atol=1e-5)
        assert evaluation.metrics["subjects"][subject]["accuracy"] == sum(right) / len(right)
    assert next(lines, None) is None
    every = [letter == answer for answers in expected.values() for letter, answer, _ in answers]
    assert evaluation.metrics["average"]["accuracy"] == sum(every) / len(every)


def evaluate(model: Path, folder: Path | None, **keys: Any) -> Any:
    more = {} if folder is None else {"task_dir": str(folder)}
    asked = {"model_name_or_path": str(model), "use_cpu": True, "task": "mmlu_test", **more, **keys}
    return tunesmith.evaluate_model(asked)


@pytest.mark.parametrize("shots", [0, 5])
def test_every_answer_is_that_of_a_script_by_hand(tiny_model: Path, folder: Path, shots: int) -> None:
    evaluation = evaluate(tiny_model, folder, n_shot=shots, batch_size=3)
    expected = by_hand(tiny_model, folder, SUBJECTS, shots, "test")
    differing = {tuple(shares.tolist()) for answers in expected.values() for _, _, shares in answers}
    assert len(differing) > 40, "nothing is compared"
    compare(evaluation, expected)
    assert set(evaluation.metrics["categories"]) == {"STEM", "Other", "Humanities", "Social Sciences"}
    assert evaluation.metrics["average"]["questions"] == 48
    assert len(evaluation.metrics["subjects_missing"]) == 53


def test_the_size_of_a_batch_changes_nothing(tiny_model: Path, folder: Path) -> None:
    lines = [evaluate(tiny_model, folder, batch_size=size).questions for size in (1, 16)]
    for one, other in zip(*lines, strict=True):
        assert one["predict"] == other["predict"]
        assert list(one["logprobs"].values()) == pytest.approx(list(other["logprobs"].values()), abs=1e-5)


@pytest.mark.slow
def test_a_subset_of_mmlu_itself(tiny_model: Path, assets: Path, tmp_path: Path) -> None:
    """Its real questions, all in one folder, with a model that has room for them. The others of a subject are the
    examples of each."""
    model, folder = tmp_path / "model", tmp_path / "dev"
    shutil.copytree(tiny_model, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16384}))
    subjects = ("abstract_algebra", "machine_learning", "high_school_us_history", "global_facts")
    folder.mkdir()
    for subject in subjects:
        shutil.copy(assets / "data" / "eval" / "mmlu_dev" / f"{subject}_dev.csv", folder)
    evaluation = evaluate(model, folder, task="mmlu_dev", n_shot=4, batch_size=1)
    compare(evaluation, by_hand(model, tmp_path, subjects, 4, "dev"))


def test_results_are_written_into_a_new_folder(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    save_dir = tmp_path / "new" / "results"
    evaluation = evaluate(tiny_model, folder, save_dir=str(save_dir), max_samples=3)
    letters = json.loads((save_dir / "results.json").read_text())
    assert list(letters) == list(SUBJECTS)
    assert [list(own) for own in letters.values()] == [["0", "1", "2"]] * 4
    log = (save_dir / "results.log").read_text().splitlines()
    assert log[0] == f"        Average: {100 * evaluation.metrics['average']['accuracy']:.2f}"
    assert [line.partition(":")[0].strip() for line in log[1:]] == list(CATEGORIES)
    assert json.loads((save_dir / "metrics.json").read_text()) == json.loads(json.dumps(evaluation.metrics))
    lines = [json.loads(line) for line in (save_dir / "questions.jsonl").read_text().splitlines()]
    assert lines == evaluation.questions
    with pytest.raises(OutputError, match="E-EVAL-006"):
        evaluate(tiny_model, folder, save_dir=str(save_dir))


def test_a_folder_of_an_evaluation_that_failed_does_not_stay(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TunesmithError, match="E-EVAL-002"):
        evaluate(tiny_model, tmp_path, save_dir=str(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_a_folder_without_questions_of_the_split_is_an_error(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "anatomy_dev.csv").write_text("Which?,a,b,c,d,A\n")
    with pytest.raises(TunesmithError, match=r"(?s)E-EVAL-002.*test/abstract_algebra_test\.csv"):
        evaluate(tiny_model, tmp_path)


def test_the_seed_draws_examples_where_there_are_more(tiny_model: Path, folder: Path) -> None:
    def tokens(shots: int, seed: int) -> list[int]:
        found = evaluate(tiny_model, folder, n_shot=shots, seed=seed)
        return [hash(tuple(line["logprobs"].items())) for line in found.questions]

    assert tokens(2, 1) == tokens(2, 1) != tokens(2, 2)
    assert tokens(5, 1) == tokens(5, 2)  # all five, in their order


def test_examples_are_left_out_where_the_context_ends(tiny_model: Path, folder: Path) -> None:
    fits = evaluate(tiny_model, folder, max_samples=2).questions
    assert {line["shots"] for line in fits} == {5}
    long = folder.parent / "long"
    for split in ("dev", "test"):
        (long / split).mkdir(parents=True)
        rows = rows_of(folder, split, "marketing")
        with (long / split / f"marketing_{split}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([(row[0] + " again" * (30 if split == "dev" else 0), *row[1:]) for row in rows])
    found = evaluate(tiny_model, long)
    assert 0 < found.questions[0]["shots"] < 5
    assert found.metrics["with_fewer_examples"] == 12
    with (long / "test" / "marketing_test.csv").open("w", newline="") as file:
        csv.writer(file).writerow(("again " * 600, "1", "2", "3", "4", "A"))
    with pytest.raises(DataError, match="E-EVAL-004"):
        evaluate(tiny_model, long)


def test_an_unknown_task_is_told_those_that_there_are(tiny_model: Path) -> None:
    for task, hint in (("mmlu_tset", "mmlu_test"), ("mmlu", "mmlu_dev"), ("arc", "cmmlu_test.*lm_eval:NAME")):
        with pytest.raises(UsageError, match=f"(?s)E-EVAL-001.*{hint}"):
            evaluate(tiny_model, None, task=task)


def test_the_tables_are_those_of_the_benchmarks() -> None:
    """Sizes as their papers have them."""
    counts = {
        name: [sum(one.category == category for one in benchmark.subjects) for category in CATEGORIES]
        for name, benchmark in all_benchmarks().items()
    }
    assert counts == {"mmlu": [18, 12, 13, 14], "ceval": [20, 10, 11, 11], "cmmlu": [17, 22, 13, 15]}


def test_the_command_line_prints_a_table_or_json(
    tiny_model: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tunesmith.cli.main import run

    words = ["eval", f"model_name_or_path={tiny_model}", "use_cpu=true", "task=mmlu_test", f"task_dir={folder}"]
    assert run([*words, "max_samples=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:15].strip() for line in lines[1:]] == [*CATEGORIES, "Average"]
    assert run([*words, "max_samples=2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["average"]["questions"] == 8
