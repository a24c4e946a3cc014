"""What `import tunesmith` offers: the same functions that the command line calls. Heavy imports happen inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from tunesmith.config import RunConfig, load_config
from tunesmith.core.errors import Problem, UsageError
from tunesmith.core.log import get_logger

if TYPE_CHECKING:
    from tunesmith.engines.conversation import Conversation
    from tunesmith.evaluate.report import Evaluation
    from tunesmith.train.results import Result

__all__ = [
    "Source",
    "as_config",
    "chat",
    "compare",
    "evaluate_model",
    "export_model",
    "predict",
    "score",
    "train",
    "with_result",
]

Source: TypeAlias = str | Path | Mapping[str, Any] | RunConfig | None


# What training has made of a model by now.
_MADE: dict[str, Any] = {"train_from_scratch": False, "mixture_of_depths": None}


def as_config(source: Source, overrides: Mapping[str, Any], verb: str) -> RunConfig:
    """A config from a file, a mapping, keywords alone, or a config that is loaded already.

    Raises ConfigError with all problems.
    """
    if isinstance(source, RunConfig):
        if not overrides:
            return source
        source = source.to_flat(secrets="keep")
    return load_config(source, overrides, verb=verb)


def with_result(config: RunConfig) -> RunConfig:
    """For all verbs that use a model: a training config stands for what that training saved in its output_dir.

    Unchanged where the config names an adapter itself, has no output_dir, or nothing is there yet, and where another
    server has the model.
    """
    if config.engine.infer_backend == "remote":
        return config
    output_dir = config.train.output_dir if "output_dir" in config.user_keys else None
    if output_dir is None or config.model.adapter_name_or_path:
        return config
    folder = Path(str(output_dir)).expanduser()
    if (folder / "adapter_config.json").is_file():
        change: dict[str, Any] = {"adapter_name_or_path": (str(folder),)}
    elif (folder / "config.json").is_file() and any(folder.glob("*.safetensors")):
        change = {"model_name_or_path": str(folder), **_MADE}
    else:
        get_logger().info("nothing is saved in %s yet: this is %s itself", folder, config.model.model_name_or_path)
        return config
    get_logger().info("using what training saved in %s", folder)
    return replace(config, model=replace(config.model, **change))


def train(source: Source = None, **overrides: Any) -> Result:
    """Train as a config says: `tunesmith.train("run.yaml", learning_rate=1e-4)`.

    `source` is a path, a mapping of keys, or a RunConfig; keyword arguments overrule its keys.
    """
    from tunesmith.train.run import train as run

    return run(as_config(source, overrides, "train"))


def export_model(source: Source = None, **overrides: Any) -> Path:
    """Merge an adapter into its base model and save it; returns the folder."""
    from tunesmith.export.merge import export_model as run

    return run(with_result(as_config(source, overrides, "export")))


def evaluate_model(source: Source = None, **overrides: Any) -> Evaluation:
    """Ask a model the questions of a benchmark: `tunesmith.evaluate_model("run.yaml", task="mmlu_test")`.

    With `save_dir` the results are written there as well.
    """
    from tunesmith.evaluate.harness import PREFIX, evaluate_tasks
    from tunesmith.evaluate.multiple_choice import evaluate_choices
    from tunesmith.evaluate.report import folder_for_results

    config = with_result(as_config(source, overrides, "eval"))
    with folder_for_results(config.evaluate.save_dir) as folder:
        harness = str(config.evaluate.task).startswith(PREFIX)
        evaluation = evaluate_tasks(config) if harness else evaluate_choices(config)
        if folder is not None:
            evaluation.save(folder)
    return evaluation


def predict(source: Source = None, **overrides: Any) -> dict[str, Any]:
    """Answer the rows of a dataset: `tunesmith.predict("run.yaml", eval_dataset="test.jsonl")`.

    Predictions and figures go to `output_dir`; returns the figures.
    """
    from tunesmith.evaluate.dataset import predict_dataset

    return predict_dataset(with_result(as_config(source, overrides, "predict")))


def score(source: Source = None, **overrides: Any) -> dict[str, Any]:
    """Give the rewards of a reward model to the rows of a dataset: `tunesmith.score("run.yaml", eval_dataset=...)`.

    Scores and figures go to `output_dir`; returns the figures.
    """
    from tunesmith.evaluate.scores import score_dataset

    return score_dataset(with_result(as_config(source, overrides, "score")))


def chat(source: Source = None, **overrides: Any) -> Conversation:
    """Load a model, with its adapter if the config names one, and begin a conversation.

    with tunesmith.chat("run.yaml") as conversation:
        print(conversation.ask("Who are you?"))
    """
    from tunesmith.engines import make_chat_engine
    from tunesmith.engines.conversation import Conversation

    config = with_result(as_config(source, overrides, "chat"))
    return Conversation(make_chat_engine(config), system=config.template.default_system)


def compare(source: Source = None, **overrides: Any) -> dict[str, Conversation]:
    """Two conversations, "base" and "tuned": the model that training began with, and what it made of it.

    One adapter is loaded beside its base and both are answered in one batch; otherwise both models are loaded. Raises
    UsageError where the config names nothing that was tuned.
    """
    from tunesmith.engines import make_engine
    from tunesmith.engines.conversation import Conversation

    base = as_config(source, overrides, "chat")
    tuned = with_result(base)
    base = replace(base, model=replace(base.model, adapter_name_or_path=()))
    if tuned.model == base.model:
        what, fix = (
            "there is nothing to compare with the base",
            "name adapter_name_or_path, or the config of a training",
        )
        raise UsageError(Problem("E-CLI-022", what, base.model.model_name_or_path, fix=fix))
    system, engine = base.template.default_system, make_engine(base)
    others = tuned.model.adapter_name_or_path
    if tuned.model.model_name_or_path == base.model.model_name_or_path and len(others) == 1:
        try:
            engine.load_adapter(_TUNED, others[0])
            return {"base": Conversation(engine, system), _TUNED: Conversation(engine, system, adapter=_TUNED)}
        except UsageError as error:
            get_logger().info("the base is loaded twice: %s", error.problems[0].what)
    return {"base": Conversation(engine, system), _TUNED: Conversation(make_engine(tuned), system)}


_TUNED = "tuned"
