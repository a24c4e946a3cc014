"""Rules about replies to rows, and keys of them that have no effect."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config.generation_checks import REPLY_FIGURES
from tunesmith.config.load import load_config
from tunesmith.core.errors import ConfigError
from tunesmith.metrics.texts import score_texts

RUN = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "stage": "sft"}
EVALUATES = {"val_size": 0.1, "eval_strategy": "epoch"}
ANSWERS = {**EVALUATES, "predict_with_generate": True}


def codes(keys: dict[str, Any]) -> list[str]:
    try:
        load_config({**RUN, **keys}, verb="train")
    except ConfigError as error:
        return [problem.code.removeprefix("E-CONFIG-") for problem in error.problems]
    return []


def test_the_figures_are_those_that_are_computed() -> None:
    found = score_texts(["a"], ["a"], 1)
    assert {name for name in found if not name.endswith(("_low", "_high", "_signature"))} == {
        *REPLY_FIGURES,
        "accuracy",
    }


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({**ANSWERS, "stage": "dpo"}, "021"),
        ({**ANSWERS, "stage": "pt"}, "021"),
        ({**ANSWERS, "train_on_prompt": True}, "021"),
        ({**ANSWERS, "compute_accuracy": True}, "021"),
        ({**EVALUATES, "metric_for_best_model": "eval_rouge-l"}, "022"),
        ({**EVALUATES, "metric_for_best_model": "heldout_bleu-4"}, "022"),
        ({**ANSWERS, "eval_generate_samples": 0}, "004"),
    ],
)
def test_what_cannot_be_meant_is_an_error(keys: dict[str, Any], code: str) -> None:
    assert codes(keys) == [code]


@pytest.mark.parametrize(
    "keys",
    [
        ANSWERS,
        {**ANSWERS, "metric_for_best_model": "rouge-l", "load_best_model_at_end": True, "save_strategy": "epoch"},
        {**EVALUATES, "train_on_prompt": True},
        {"train_on_prompt": True, "predict_with_generate": True},
    ],
)
def test_what_fits_together_is_accepted(keys: dict[str, Any]) -> None:
    assert codes(keys) == []


@pytest.mark.parametrize(
    ("keys", "idle"),
    [
        ({**ANSWERS, "eval_generate_samples": 9, "log_generations": 1, "max_new_tokens": 9, "kv_cache_gb": 1}, ()),
        ({**EVALUATES, "eval_generate_samples": 9, "log_generations": 1}, ("eval_generate_samples", "log_generations")),
        ({**EVALUATES, "max_new_tokens": 9, "kv_cache_gb": 1}, ("max_new_tokens", "kv_cache_gb")),
        ({**ANSWERS, "temperature": 0.5}, ("temperature",)),
        ({**ANSWERS, "do_sample": True, "temperature": 0.5}, ()),
        ({**ANSWERS, "do_train": True, "do_predict": True, "temperature": 0.5}, ()),
        ({"val_size": 0.1, "do_train": True, "do_eval": True, "predict_with_generate": True}, ()),
        ({"predict_with_generate": True}, ("predict_with_generate",)),
    ],
)
def test_keys_that_count(keys: dict[str, Any], idle: tuple[str, ...]) -> None:
    told = " ".join(load_config({**RUN, **keys}, verb="train").warnings)
    assert all(key in told for key in idle)
    assert bool(told) == bool(idle)
