"""Tasks of lm-evaluation-harness: an engine gets the figures that the harness's own model for transformers gets.

`make test-lm-eval` has an environment with the package; elsewhere only its absence is tested.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest

import tunesmith
from tunesmith.core.errors import DataError, MachineError, UsageError

pytestmark = [pytest.mark.usefixtures("torch_one_thread")]
needs_harness = pytest.mark.needs_package("lm_eval")
# Those of the harness and of what it imports are not ours to mend.
others = pytest.mark.filterwarnings("ignore")

CHOICES = """\
task: tiny_choices
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/rows.jsonl}}
output_type: multiple_choice
test_split: test
fewshot_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{gold}}"
doc_to_choice: "{{options}}"
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
ROLLING = """\
task: tiny_rolling
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/rows.jsonl}}
output_type: loglikelihood_rolling
test_split: test
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
WRITING = """\
task: tiny_writing
dataset_path: json
dataset_kwargs: {data_files: {test: FOLDER/rows.jsonl}}
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{options[gold]}}"
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 12, EXTRA}
metric_list: [{metric: exact_match}]
"""
TASKS = {"tiny_choices": CHOICES, "tiny_rolling": ROLLING, "tiny_writing": WRITING}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    words, draw = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "old", "fox"], random.Random(3)

    def said(count: int) -> str:
        return " ".join(draw.choice(words) for _ in range(count))

    rows = [
        {
            "question": f"{said(4)}?",
            "options": [said(draw.randint(1, 5)) for _ in range(4)],
            "gold": draw.randrange(4),
            "text": said(30 if number else 900),  # the first one is longer than the context
        }
        for number in range(12)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in TASKS.items():
        text = text.replace("FOLDER", str(tmp_path)).replace("EXTRA", "do_sample: false")
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def evaluate(model: Path, folder: Path, task: str, **keys: Any) -> Any:
    asked = {"model_name_or_path": str(model), "use_cpu": True, "task": f"lm_eval:{task}", "task_dir": str(folder)}
    return tunesmith.evaluate_model({**asked, **keys})


def by_the_harness(model: Path, folder: Path, names: list[str], **how: Any) -> Any:
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    own = HFLM(pretrained=str(model), device="cpu", dtype="float32", batch_size=1)
    manager = TaskManager(include_path=str(folder))
    return lm_eval.simple_evaluate(own, tasks=names, task_manager=manager, num_fewshot=2, **how)


@others
@needs_harness
def test_figures_and_answers_are_those_of_the_harness_itself(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    evaluation = evaluate(tiny_model, folder, ",".join(TASKS), n_shot=2, seed=1234, save_dir=str(tmp_path / "out"))
    expected = by_the_harness(
        tiny_model, folder, list(TASKS), random_seed=1234, numpy_random_seed=1234, fewshot_random_seed=1234
    )
    compared = 0
    for task, figures in evaluation.metrics["tasks"].items():
        for name, figure in figures.items():
            assert figure["value"] == pytest.approx(expected["results"][task][f"{name},none"], rel=1e-5)
            compared += 1
    assert compared == 5
    samples = [sample for task in TASKS for sample in expected["samples"][task]]
    lines = [json.loads(line) for line in (tmp_path / "out" / "questions.jsonl").read_text().splitlines()]
    assert len(lines) == len(samples) == 36
    for line in lines:
        (sample,) = [one for one in expected["samples"][line["task"]] if one["doc_id"] == line["doc_id"]]
        if line["task"] == "tiny_writing":
            assert line["resps"] == sample["resps"]
        elif line["task"] == "tiny_choices":
            own = [float(one[0][0]) for one in line["resps"]]
            assert own == pytest.approx([float(one[0][0]) for one in sample["resps"]], abs=1e-4)
            assert [one[0][1] for one in line["resps"]] == [one[0][1] for one in sample["resps"]]
    assert evaluation.metrics["n_shot"]["tiny_choices"] == 2
    assert any("tiny_choices" in line and "acc_norm" in line for line in evaluation.table)


@others
@needs_harness
def test_with_a_template_questions_are_chats(tiny_model: Path, folder: Path) -> None:
    plain = evaluate(tiny_model, folder, "tiny_choices", max_samples=3)
    chats = evaluate(tiny_model, folder, "tiny_choices", max_samples=3, template="auto")
    assert plain.metrics["questions"]["tiny_choices"] == 3
    first = chats.questions[0]["arguments"]
    assert "<|im_start|>user\nQuestion:" in json.dumps(first).replace("\\n", "\n")
    expected = by_the_harness(tiny_model, folder, ["tiny_choices"], limit=3, apply_chat_template=True)
    again = evaluate(tiny_model, folder, "tiny_choices", max_samples=3, template="auto", n_shot=2, seed=1234)
    figures = again.metrics["tasks"]["tiny_choices"]
    for sample, line in zip(expected["samples"]["tiny_choices"], again.questions, strict=True):
        assert [float(one[0][0]) for one in line["resps"]] == pytest.approx(
            [float(one[0][0]) for one in sample["resps"]], abs=1e-4
        )
    assert figures["acc"]["value"] == expected["results"]["tiny_choices"]["acc,none"]


@others
@needs_harness
def test_what_a_task_asks_for_and_is_not_known_is_an_error(tiny_model: Path, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"(?s)E-EVAL-001.*tiny_choices"):
        evaluate(tiny_model, folder, "tiny_choice")
    for extra, message in (("num_beams: 4", "num_beams"), ("do_sample: false", "as long as the context")):
        text = WRITING.replace("FOLDER", str(folder)).replace("EXTRA", extra)
        if "beams" not in extra:
            text = text.replace("max_gen_toks: 12", "max_gen_toks: 5000")
        (folder / "tiny_writing.yaml").write_text(text)
        with pytest.raises(DataError, match=f"(?s)E-EVAL-009.*{message}"):
            evaluate(tiny_model, folder, "tiny_writing")


def test_without_the_package_the_extra_is_named(
    tiny_model: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(MachineError, match=r"(?s)E-EVAL-008.*tunesmith\[eval\]"):
        evaluate(tiny_model, folder, "tiny_choices")
