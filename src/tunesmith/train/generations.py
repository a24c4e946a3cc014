"""Replies to the rows of an evaluation while a model is trained: figures of them, and a few as samples.

The engine reads the very weights that are trained, with their adapters. What it keeps of the prompts goes with it, it
draws from generators of its own, and a reply needs no gradient: a run trains to the same bits with and without.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.config.engine import EngineConfig
from tunesmith.config.generate import GenerateConfig
from tunesmith.core.errors import MachineError, Problem
from tunesmith.core.files import write_atomically
from tunesmith.core.log import get_logger
from tunesmith.engines.base import Engine, Piece, Sampling
from tunesmith.engines.hf import HFEngine
from tunesmith.engines.rows import ANSWERED, answer_of, prompt_and_label, request_of, seed_of
from tunesmith.metrics.texts import HINT, score_texts
from tunesmith.models.out_of_memory import free_memory
from tunesmith.train.callbacks.names import GENERATIONS_NAME
from tunesmith.train.counting import Counting
from tunesmith.train.ranks import values_over_ranks

if TYPE_CHECKING:
    from tunesmith.config import RunConfig, RunPlan
    from tunesmith.render import Renderer
    from tunesmith.train.trainer import Trainer

__all__ = ["GenerationSettings", "Generations", "check_metric", "generations_of"]

_NO_ROOM = ("E-ENGINE-002", "E-ENGINE-008")
_TOLD = {"exact_match": "exact match {:.3f}", "bleu-4": "BLEU-4 {:.2f}", "rouge-l": "ROUGE-L {:.2f}"}
_WIDTH = 100
"""Characters of a text in a line of the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """rows: the first so many of each dataset are answered. samples: so many of those are written down. one_by_one: as
    for HFEngine."""

    renderer: Renderer
    generate: GenerateConfig
    engine: EngineConfig
    rows: int
    samples: int
    seed: int
    one_by_one: bool = False


def generations_of(config: RunConfig, plan: RunPlan, renderer: Renderer) -> GenerationSettings | None:
    """None where evaluations answer nothing. Replies are the likeliest tokens unless `do_sample: true` is written: what
    is drawn would make one evaluation better than another by chance."""
    train = config.train
    if not train.value("predict_with_generate"):
        return None
    drawn = config.generate.do_sample and "do_sample" in config.values
    return GenerationSettings(
        renderer=renderer,
        generate=replace(config.generate, do_sample=drawn),
        engine=config.engine,
        rows=train.eval_generate_samples,
        samples=train.log_generations,
        seed=plan.seed,
        one_by_one=bool(train.value("full_determinism")),
    )


def check_metric(config: RunConfig) -> None:
    """Raises MachineError where the metric to watch is one that a missing package computes."""
    watched = str(config.train.value("metric_for_best_model"))
    if config.train.value("predict_with_generate") and watched.endswith("bleu-4") and find_spec("sacrebleu") is None:
        what = "the metric to watch is computed by sacrebleu, which is not installed"
        fix = f"{HINT}, or metric_for_best_model: rouge-l"
        raise MachineError(Problem("E-TRAIN-019", what, "metric_for_best_model", watched, fix))


class Generations:
    """Of one Trainer. Of several ranks each answers every so-many-th row, and all know the same figures."""

    def __init__(self, trainer: Trainer, settings: GenerationSettings) -> None:
        self._trainer, self._settings = trainer, settings

    def evaluate(self, dataset: Any, prefix: str) -> dict[str, float]:
        """Figures by name with `prefix`, which is that of the dataset.

        Raises PreemptedError, in all ranks, where the run is to stop."""
        trainer, settings = self._trainer, self._settings
        count = min(len(dataset), settings.rows)
        rank, ranks = trainer.args.process_index, trainer.args.world_size
        own = range(rank, count, ranks)
        free_memory(trainer.args.device)  # for keys and values
        answers = self._answer(dataset, own, rounds=-(-count // ranks))
        free_memory(trainer.args.device)
        trainer.stopping.before_evaluation_batch()  # by now the model is as it was, for what may be saved here
        parts = values_over_ranks(trainer.accelerator, [answers[row] for row in own])
        found = [parts[row % ranks][row // ranks] for row in range(count)]
        figures = score_texts([one["predict"] for one in found], [one["label"] for one in found], settings.seed)
        if trainer.is_world_process_zero():
            self._tell(prefix, found, figures)
        return {f"{prefix}_{name}": value for name, value in figures.items() if not isinstance(value, str)}

    # ---- replies ----

    def _answer(self, dataset: Any, own: Sequence[int], rounds: int) -> dict[int, dict[str, str]]:
        """The answered rows of this rank by number; not all where a rank is asked to stop. In each of the `rounds` it
        waits for one reply, and the ranks tell each other whether they go on."""
        trainer, settings = self._trainer, self._settings
        model = trainer.accelerator.unwrap_model(trainer.model)
        parts = model, trainer.processing_class, settings.renderer, settings.generate, settings.engine
        devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
        answers: dict[int, dict[str, str]] = {}
        without: list[int] = []
        with (
            torch.random.fork_rng(devices),
            HFEngine(*parts, one_by_one=settings.one_by_one, trains=True) as engine,
            Counting("answering", "rows", bar=not trainer.is_in_train) as progress,
        ):
            replies = self._replies(engine, dataset, own, without)
            for number in range(1, rounds + 1):
                for row, answer in self._next(replies):
                    answers[row] = answer
                if trainer.stopping.is_asked():
                    break
                progress(number, rounds)
            replies.close()
        if without:
            get_logger().warning(
                "%d of %d rows have no reply, which counts as an empty one: context or memory has no room for it",
                *(len(without), len(own)),
            )
        return answers

    def _next(self, replies: Generator[tuple[int, dict[str, str]]]) -> list[tuple[int, dict[str, str]]]:
        """One reply; none where there is no more, or a signal came in a training run."""

        def wait() -> list[tuple[int, dict[str, str]]]:
            return [one for one in [next(replies, None)] if one is not None]

        return self._trainer.stopping.fetch(wait) if self._trainer.is_in_train else wait()

    def _replies(
        self, engine: Engine, dataset: Any, rows: Sequence[int], without: list[int]
    ) -> Generator[tuple[int, dict[str, str]]]:
        """(row, answer) as they end. A row for whose reply there is no room has an empty one, and goes to `without`."""
        settings, tokenizer = self._settings, self._trainer.processing_class
        renderer, sampling = settings.renderer, Sampling.of(settings.generate)
        fits = [row for row in rows if self._has_room(engine, dataset[row])]
        asked = (
            request_of(dataset[row], renderer, replace(sampling, seed=seed_of(settings.seed, row))) for row in fits
        )
        for row in sorted({*rows} - {*fits}):
            without.append(row)
            yield row, answer_of(tokenizer, renderer, dataset[row], Piece(), sampling)
        for number, reply in engine.run_all(asked):
            row = fits[number]
            if reply.end and reply.end.error and reply.end.error.code in _NO_ROOM:
                without.append(row)
                reply = Piece()
            yield row, answer_of(tokenizer, renderer, dataset[row], reply, sampling)

    def _has_room(self, engine: Engine, row: dict[str, Any]) -> bool:
        prompt, _ = prompt_and_label(row, self._settings.renderer.stop_ids)
        return engine.context is None or len(prompt) < engine.context

    # ---- what is told of them ----

    def _tell(self, prefix: str, found: Sequence[dict[str, str]], figures: dict[str, Any]) -> None:
        step, name = self._trainer.state.global_step, prefix.removeprefix("eval").removeprefix("_")
        place = f"step {step}" + (f" ({name})" if name else "")
        told = [form.format(figures[key]) for key, form in _TOLD.items() if key in figures]
        get_logger().info("%s  %s", place, "  ".join([f"{len(found)} replies", *told]))
        samples = found[: self._settings.samples]
        for one in samples:
            texts = [_short(one[key]) for key in ("predict", "label")]
            get_logger().info("%s  reply %s  expected %s", place, *texts)
        if self._settings.samples:
            lines = [{"step": step, "dataset": name, **{key: one[key] for key in ANSWERED}} for one in samples]
            write_samples(Path(self._trainer.args.output_dir) / GENERATIONS_NAME, step, name, lines)


def write_samples(path: Path, step: int, dataset: str, samples: Sequence[dict[str, Any]]) -> None:
    """Put samples behind what the file holds, but for those of later steps and of this very evaluation: an evaluation
    that is made again, in a run that went back, replaces what was written then."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        one = json.loads(line)
        if one["step"] < step or (one["step"] == step and one["dataset"] != dataset):
            kept.append(line)
    lines = kept + [json.dumps(one, ensure_ascii=False) for one in samples]
    write_atomically(path, "".join(line + "\n" for line in lines))


def _short(text: str) -> str:
    line = json.dumps(text, ensure_ascii=False)
    return line if len(line) <= _WIDTH else f'{line[: _WIDTH - 4]} ..."'
