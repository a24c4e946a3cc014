"""MMLU, C-Eval and CMMLU in their classic form: few-shot, by likelihood.

questions -> prompts -> one forward of each prompt -> the likeliest of A, B, C and D -> accuracy by category and subject

Everything but the forward passes is made before the weights are read.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MissingInputError, Problem
from tunesmith.core.log import get_logger
from tunesmith.engines import Engine, make_engine
from tunesmith.evaluate.benchmarks import CATEGORIES, Benchmark, Subject, find_task
from tunesmith.evaluate.fewshot import Asked, ask, draw_examples
from tunesmith.evaluate.questions import LETTERS, Question, Source, read_subject, source_of
from tunesmith.evaluate.report import Evaluation
from tunesmith.metrics.intervals import standard_error, wilson
from tunesmith.runs.facts import model_facts, versions
from tunesmith.train.counting import Counting

if TYPE_CHECKING:
    from tunesmith.config import RunConfig
    from tunesmith.render import Renderer

__all__ = ["Answer", "answer_all", "evaluate_choices", "prepare"]


@dataclass(frozen=True, slots=True)
class Item:
    """A question with its prompt. `number`: of the question in its subject."""

    subject: Subject
    number: int
    question: Question
    asked: Asked


@dataclass(frozen=True, slots=True)
class Answer:
    """`logprobs`: of the four letters as the next token."""

    item: Item
    letter: str
    logprobs: tuple[float, ...]

    @property
    def right(self) -> bool:
        return self.letter == self.item.question.answer

    def to_dict(self) -> dict[str, Any]:
        return {
            "subject": self.item.subject.key,
            "number": self.item.number,
            "answer": self.item.question.answer,
            "predict": self.letter,
            "right": self.right,
            "logprobs": dict(zip(LETTERS, self.logprobs, strict=True)),
            "shots": self.item.asked.shots,
            "prompt_tokens": len(self.item.asked.prompt),
        }


def evaluate_choices(config: RunConfig) -> Evaluation:
    """Raises UsageError for an unknown task, MissingInputError where its files are not there, DataError for what they
    hold and for questions that are longer than the model's context."""
    from tunesmith.models.load import settings_of
    from tunesmith.models.renderer import renderer_of
    from tunesmith.models.tokenizer import load_tokenizer

    begin = time.perf_counter()
    evaluate = config.evaluate
    benchmark, split = find_task(str(evaluate.task))
    source = _source(config, benchmark, split)
    context = getattr(settings_of(config.model), "max_position_embeddings", None)
    renderer = renderer_of(config, load_tokenizer(config.model))
    items, missing = prepare(config, benchmark, split, source, renderer, context)
    longest = max(len(item.asked.prompt) for item in items)
    engine_config = config.engine
    if "prefill_chunk_tokens" not in config.user_keys:
        engine_config = replace(engine_config, prefill_chunk_tokens=evaluate.batch_size * longest)
    with make_engine(replace(config, engine=engine_config)) as engine:
        answers = answer_all(engine, items, evaluate.batch_size)
    metrics = {
        "task": evaluate.task,
        **_accuracies(answers),
        "subjects_missing": missing,
        "n_shot": evaluate.n_shot,
        "with_fewer_examples": sum(item.asked.shots < evaluate.n_shot for item in items),
        "lang": evaluate.lang,
        "seed": config.train.value("seed"),
        "template": renderer.name,
        "source": source.name,
        "model": model_facts(config),
        "versions": versions(),
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return Evaluation(metrics, [answer.to_dict() for answer in answers], _table(metrics), _files(metrics, answers))


def _source(config: RunConfig, benchmark: Benchmark, split: str) -> Source:
    """`task_dir` as it is given; its default only where there is such a folder, as with LlamaFactory's."""
    task_dir: str | None = config.evaluate.task_dir
    if "task_dir" not in config.user_keys and not (Path(str(task_dir)) / benchmark.name).is_dir():
        task_dir = None
    again = config.evaluate.download_mode == "force_redownload"
    return source_of(benchmark, split, task_dir, offline=config.data.offline, again=again)


def prepare(
    config: RunConfig, benchmark: Benchmark, split: str, source: Source, renderer: Renderer, context: int | None
) -> tuple[list[Item], list[str]]:
    """All questions with their prompts, and the subjects that there is no file of."""
    evaluate, seed = config.evaluate, int(config.train.value("seed"))
    items: list[Item] = []
    missing: list[str] = []
    with Counting("preparing", "subjects") as count:
        for done, subject in enumerate(benchmark.subjects, 1):
            questions = read_subject(source, subject, benchmark.splits[split])
            if not questions:
                missing.append(subject.key)
                continue
            same = split == benchmark.examples
            pool = questions if same else read_subject(source, subject, benchmark.splits[benchmark.examples])
            questions = questions[: config.data.max_samples]
            place = zlib.crc32(subject.key.encode())
            examples = [
                draw_examples(pool, question, evaluate.n_shot, (seed, place, number))
                for number, question in enumerate(questions)
            ]
            asked = ask(questions, examples, subject.name, evaluate.lang, renderer, context)
            pairs = enumerate(zip(questions, asked, strict=True))
            items += [Item(subject, number, question, own) for number, (question, own) in pairs]
            count(done, len(benchmark.subjects))
    if not items:
        what = f"no question of {benchmark.name}_{split} in its files"
        fix = f"task_dir: a folder with files like {split}/{benchmark.subjects[0].key}_{split}.csv"
        raise MissingInputError(Problem("E-EVAL-002", what, source.name, fix=fix))
    if missing:
        named = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        get_logger().warning("no questions of %d subjects in %s: %s", len(missing), source.name, named)
    if fewer := sum(item.asked.shots < evaluate.n_shot for item in items):
        get_logger().warning(
            "%s of %s questions have fewer than %d examples before them: no more are there, or fit into the context",
            *(f"{fewer:,}", f"{len(items):,}", evaluate.n_shot),
        )
    return items, missing


def answer_all(engine: Engine, items: Sequence[Item], batch_size: int) -> list[Answer]:
    """In the order of the items; those of one length are read together."""
    found: dict[int, Answer] = {}
    order = sorted(range(len(items)), key=lambda number: len(items[number].asked.prompt), reverse=True)
    with Counting("answering", "questions") as count:
        for begin in range(0, len(order), batch_size):
            batch = order[begin : begin + batch_size]
            asked = [items[number].asked for number in batch]
            scores = engine.score([(one.prompt, (letter,)) for one in asked for letter in one.letters])
            logprobs = [score.logprobs[0] for score in scores]
            for place, number in enumerate(batch):
                own = tuple(logprobs[place * len(LETTERS) : (place + 1) * len(LETTERS)])
                found[number] = Answer(items[number], LETTERS[own.index(max(own))], own)
            count(len(found), len(items))
    return [found[number] for number in range(len(items))]


def _accuracies(answers: Sequence[Answer]) -> dict[str, Any]:
    by_category = {
        category: [answer for answer in answers if answer.item.subject.category == category] for category in CATEGORIES
    }
    subjects = dict.fromkeys(answer.item.subject.key for answer in answers)
    by_subject = {key: [answer for answer in answers if answer.item.subject.key == key] for key in subjects}
    return {
        "average": _accuracy(answers),
        "categories": {category: _accuracy(own) for category, own in by_category.items() if own},
        "subjects": {key: _accuracy(own) for key, own in by_subject.items()},
    }


def _accuracy(answers: Iterable[Answer]) -> dict[str, Any]:
    marks = [answer.right for answer in answers]
    right, count = sum(marks), len(marks)
    low, high = wilson(right, count)
    return {
        "accuracy": right / count,
        "standard_error": standard_error(right, count),
        "interval": [low, high],
        "right": right,
        "questions": count,
    }


def _table(metrics: Mapping[str, Any]) -> list[str]:
    """Shares are in percent."""
    lines = [f"{metrics['task']:<20} accuracy   95 % interval   questions"]
    for name, row in {**metrics["categories"], "Average": metrics["average"]}.items():
        low, high = (100 * bound for bound in row["interval"])
        lines.append(f"{name:<20} {100 * row['accuracy']:8.2f}   {low:5.1f} - {high:5.1f}   {row['questions']:9,}")
    return lines


def _files(metrics: Mapping[str, Any], answers: Sequence[Answer]) -> dict[str, str]:
    """LlamaFactory's two files: the letters by subject and number, and the accuracies."""
    letters: dict[str, dict[str, str]] = {}
    for answer in answers:
        letters.setdefault(answer.item.subject.key, {})[str(answer.item.number)] = answer.letter
    rows = {"Average": metrics["average"], **metrics["categories"]}
    log = "\n".join(f"{name:>15}: {100 * row['accuracy']:.2f}" for name, row in rows.items())
    return {"results.json": json.dumps(letters, indent=2), "results.log": log}
