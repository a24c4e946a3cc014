"""Rules about scores of a dataset: which rows a reward model reads, and who computes."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem

__all__ = ["SCORE_CHECKS"]

SCORE_CHECKS: list[Check] = []
_rule = rules_into(SCORE_CHECKS)
_SCORE = ("score",)
_ANSWERED = ("rm", "dpo", "sft", "kto")
"""Stages whose rows have answers."""


@_rule(_SCORE, "stage")
def _what_is_scored_is_an_answer(config: RunConfig) -> Iterator[Problem]:
    stage = config.objective.stage
    if stage not in _ANSWERED:
        what = f"score reads answers, and rows of stage {stage} have none"
        fix = "stage: rm for pairs, sft for chats, kto for answers that were liked or not"
        yield contradiction(config, "stage", what, fix)


@_rule(_SCORE, "on_too_long")
def _a_row_stays_one(config: RunConfig) -> Iterator[Problem]:
    if config.data.on_too_long == "split":
        what = '"on_too_long: split" makes several samples of a row, and a row has one score'
        yield contradiction(config, "on_too_long", what, "on_too_long: truncate, drop or error")


@_rule(_SCORE, "infer_backend")
def _rewards_are_computed_here(config: RunConfig) -> Iterator[Problem]:
    backend = config.engine.infer_backend
    if backend != "huggingface":
        what = f'"infer_backend: {backend}" writes texts, and gives no rewards'
        yield contradiction(config, "infer_backend", what, "infer_backend: huggingface")
