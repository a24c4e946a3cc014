"""Tasks of lm-evaluation-harness, answered by an engine. The package is imported when a task of it is asked for.

task: lm_eval:arc_easy,hellaswag
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import MachineError, Problem, UsageError
from tunesmith.core.machine import package_version
from tunesmith.core.suggest import did_you_mean
from tunesmith.engines import make_engine
from tunesmith.evaluate.report import Evaluation
from tunesmith.runs.facts import model_facts, versions

if TYPE_CHECKING:
    from tunesmith.config import RunConfig

__all__ = ["PREFIX", "evaluate_tasks"]

PREFIX = "lm_eval:"
_Z = 1.959963984540054
"""Standard errors of half a 95 % interval."""


def evaluate_tasks(config: RunConfig) -> Evaluation:
    """Raises MachineError where the package is not installed, UsageError for a task that it does not know."""
    begin = time.perf_counter()
    evaluate = config.evaluate
    names = [name.strip() for name in str(evaluate.task).removeprefix(PREFIX).split(",")]
    manager = _manager(evaluate.task_dir if "task_dir" in config.user_keys else None)
    for name in names:
        if not manager.match_tasks([name]):
            fix = did_you_mean(name, manager.all_tasks) or "`lm-eval ls tasks` lists all"
            raise UsageError(Problem("E-EVAL-001", "lm-evaluation-harness has no such task", "task", name, fix))
    results = _run(config, names, manager)
    metrics = {
        "task": evaluate.task,
        "tasks": {name: _figures(own) for name, own in results["results"].items()},
        "n_shot": {name: count for name, count in results["n-shot"].items() if count is not None},
        "questions": {name: own["effective"] for name, own in results["n-samples"].items()},
        "task_versions": dict(results["versions"]),
        "chat_template": "template" in config.user_keys,
        "seed": config.train.value("seed"),
        "model": model_facts(config),
        "versions": {**versions(), "lm_eval": package_version("lm_eval")},
        "seconds": round(time.perf_counter() - begin, 1),
    }
    return Evaluation(metrics, _questions(results["samples"]), _table(metrics))


def _manager(task_dir: str | None) -> Any:
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        what, fix = f"the package {error.name} is missing", "pip install 'tunesmith[eval]'"
        raise MachineError(Problem("E-EVAL-008", what, "task", fix=fix)) from error
    return TaskManager(include_path=task_dir)


def _run(config: RunConfig, names: list[str], manager: Any) -> Mapping[str, Any]:
    import lm_eval

    from tunesmith.evaluate.harness_model import EngineModel

    seed = int(config.train.value("seed"))
    with make_engine(config) as engine:
        found: Mapping[str, Any] = lm_eval.simple_evaluate(
            EngineModel(engine, config.evaluate.batch_size, seed),
            tasks=names,
            num_fewshot=config.evaluate.n_shot if "n_shot" in config.user_keys else None,
            limit=config.data.max_samples,
            apply_chat_template="template" in config.user_keys,
            task_manager=manager,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    return found


def _figures(own: Mapping[str, Any]) -> dict[str, Any]:
    """`acc,none` and `acc_stderr,none` become one entry."""
    found: dict[str, Any] = {}
    for key, value in own.items():
        name, comma, filtered = key.partition(",")
        if not comma or name.endswith("_stderr") or not isinstance(value, int | float):
            continue
        told = own.get(f"{name}_stderr,{filtered}")
        error = float(told) if isinstance(told, int | float) else None
        found[name if filtered == "none" else f"{name} ({filtered})"] = {
            "value": value,
            "standard_error": error,
            "interval": [value - _Z * error, value + _Z * error] if error is not None else None,
        }
    return found


def _questions(samples: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One for each question of each task: what was asked, answered and scored. What JSON does not know is text."""
    keep = ("doc_id", "target", "arguments", "resps", "filtered_resps", "filter", "metrics")
    rows = [
        {"task": task, **{key: sample[key] for key in keep if key in sample}, **_scores(sample)}
        for task, own in samples.items()
        for sample in own
    ]
    plain: list[dict[str, Any]] = json.loads(json.dumps(rows, default=str))
    return plain


def _scores(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sample[name] for name in sample.get("metrics", ()) if name in sample}


def _table(metrics: Mapping[str, Any]) -> list[str]:
    lines = [f"{'task':<32} {'metric':<24} {'value':>9}   95 % interval"]
    for task, figures in metrics["tasks"].items():
        for name, figure in figures.items():
            interval = figure["interval"]
            said = f"{interval[0]:.4f} - {interval[1]:.4f}" if interval else "not known"
            lines.append(f"{task:<32} {name:<24} {figure['value']:9.4f}   {said}")
    return lines
