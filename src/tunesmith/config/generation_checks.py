"""Rules about replies to rows of a dataset: predictions after training, and figures while it trains."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem

__all__ = ["GENERATION_CHECKS", "REPLY_FIGURES", "answers_in_training"]

GENERATION_CHECKS: list[Check] = []
_rule = rules_into(GENERATION_CHECKS)
_TRAIN = ("train",)
_WITHOUT_REPLIES = {"pt": "stage pt has none", "rm": "a model of stage rm writes nothing"}

REPLY_FIGURES = ("exact_match", "bleu-4", "rouge-1", "rouge-2", "rouge-l")
"""Names of metrics that only replies have; their `accuracy` is also the name of one that counts tokens."""


def answers_in_training(config: RunConfig) -> bool:
    """Whether evaluations of a training run answer their rows."""
    train = config.train
    return bool(train.value("predict_with_generate")) and (train.do_eval or bool(train.value("eval_on_start")))


@_rule(_TRAIN, "train_on_prompt", "do_predict", "predict_with_generate", "do_eval", "eval_strategy", "eval_on_start")
def _predictions_have_prompts(config: RunConfig) -> Iterator[Problem]:
    if not config.template.train_on_prompt:
        return
    for key, asks in (
        ("do_predict", config.train.do_predict),
        ("predict_with_generate", answers_in_training(config)),
    ):
        if asks:
            what = f'"{key}" asks the model for what is trained, and with "train_on_prompt" that is the prompt too'
            yield contradiction(config, key, what, "predict in a run of its own, without train_on_prompt")


@_rule(_TRAIN, "stage", "do_predict", "predict_with_generate")
def _prompts_are_there_to_answer(config: RunConfig) -> Iterator[Problem]:
    stage = config.objective.stage
    for key, wrong, why in (
        ("do_predict", stage in _WITHOUT_REPLIES, f"answers prompts, and {_WITHOUT_REPLIES.get(stage)}"),
        ("predict_with_generate", stage != "sft", f"compares replies with expected ones, and stage {stage} has none"),
    ):
        if wrong and config.train.value(key):
            yield contradiction(config, key, f'"{key}" {why}', "stage: sft, or remove the key")


@_rule(("predict",), "stage")
def _predictions_answer_prompts(config: RunConfig) -> Iterator[Problem]:
    if (reason := _WITHOUT_REPLIES.get(config.objective.stage)) is not None:
        fix = "tunesmith score, which writes rewards" if config.objective.stage == "rm" else "stage: sft"
        yield contradiction(config, "stage", f"predict answers prompts, and {reason}", fix)


@_rule(_TRAIN, "predict_with_generate", "compute_accuracy")
def _predictions_have_their_own_metrics(config: RunConfig) -> Iterator[Problem]:
    if config.train.value("predict_with_generate") and config.objective.compute_accuracy:
        what = '"compute_accuracy" counts tokens under the loss, "predict_with_generate" writes answers'
        yield contradiction(config, "compute_accuracy", what, "keep one of them")


@_rule(_TRAIN, "metric_for_best_model", "predict_with_generate")
def _figures_of_replies_need_replies(config: RunConfig) -> Iterator[Problem]:
    watched = config.train.value("metric_for_best_model")
    if watched and watched.endswith(REPLY_FIGURES) and not config.train.value("predict_with_generate"):
        what = '"metric_for_best_model" is a figure of replies, which evaluations write only if they are asked to'
        where = config.place("metric_for_best_model")
        yield Problem("E-CONFIG-022", what, where, watched, "predict_with_generate: true")
