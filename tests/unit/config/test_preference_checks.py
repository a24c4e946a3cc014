"""What of preferences does not go together: one error a mistake, before anything is read."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.config.preference_facts import PAIR_FACTS
from tunesmith.core.errors import UsageError

DPO: dict[str, Any] = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o", "stage": "dpo"}


def codes(keys: dict[str, Any]) -> list[str]:
    try:
        load_config({**DPO, **keys})
    except UsageError as error:
        return [problem.code for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"pref_loss": "sigmiod"}, ["E-CONFIG-002"]),
        ({"pref_loss": "sigmiod", "ref_model": "r"}, ["E-CONFIG-002"]),
        ({"pref_loss": "sigmoid,sigmoid"}, ["E-CONFIG-021"]),
        ({"pref_loss": "sigmoid,sft", "pref_loss_weights": [1.0]}, ["E-CONFIG-023"]),
        ({"pref_loss": "exo_pair"}, ["E-CONFIG-022"]),
        ({"pref_loss": "robust", "dpo_label_smoothing": 0.5}, ["E-CONFIG-021"]),
        ({"pref_loss": "nca_pair", "pref_divergence": "forward_kl"}, ["E-CONFIG-021"]),
        ({"pref_loss": "aot", "use_wpo": True}, ["E-CONFIG-021"]),
        ({"pref_loss": "orpo", "ref_model": "r"}, ["E-CONFIG-021"]),
        ({"ref_model_quantization_bit": 4}, ["E-CONFIG-022"]),
        ({"precompute_ref_log_probs": True, "streaming": True, "max_steps": 9}, ["E-CONFIG-021"]),
        ({"precompute_ref_log_probs": True, "streaming": True, "max_steps": 9, "pref_loss": "orpo"}, []),
        ({"pref_beta": 0}, ["E-CONFIG-004"]),
        ({"discopop_tau": 2, "pref_loss": "discopop"}, ["E-CONFIG-004"]),
    ],
)
def test_what_does_not_go_together_is_one_error(keys: dict[str, Any], expected: list[str]) -> None:
    assert codes(keys) == expected


@pytest.mark.parametrize("name", PAIR_FACTS)
def test_every_loss_is_accepted_with_what_it_needs(name: str) -> None:
    assert codes({"pref_loss": name, "dpo_label_smoothing": 0.1 if PAIR_FACTS[name].smooths else 0.0}) == []


def test_a_mixture_may_compare_where_one_of_its_losses_does() -> None:
    assert codes({"pref_loss": "sft,sigmoid", "pref_loss_weights": [1.0, 0.2], "ref_model": "r"}) == []
