"""What a config needs depends on what it is for."""

from __future__ import annotations

import pytest

from tunesmith.config import load_config
from tunesmith.config.verbs import LOOKING
from tunesmith.core.errors import ConfigError

DPO = {"model_name_or_path": "m", "dataset": "x.jsonl", "stage": "dpo", "pref_beta": 0.2}


def test_inspecting_needs_data_but_no_model() -> None:
    assert load_config({"dataset": "x.jsonl"}, verb="inspect").data.dataset == ("x.jsonl",)
    with pytest.raises(ConfigError, match="dataset"):
        load_config({"model_name_or_path": "m"}, verb="inspect")
    with pytest.raises(ConfigError, match="model_name_or_path"):
        load_config({"dataset": "x.jsonl"}, verb="preview")


@pytest.mark.parametrize("verb", LOOKING)
def test_rows_of_every_stage_can_be_looked_at(verb: str) -> None:
    config = load_config(DPO, verb=verb)
    assert config.objective.stage == "dpo"
    assert config.warnings == ()
    with pytest.raises(ConfigError, match="there is no key"):
        load_config({**DPO, "pref_betta": 0.2}, verb=verb)


@pytest.mark.parametrize("verb", LOOKING)
def test_keys_of_evaluation_data_have_an_effect(verb: str) -> None:
    keys = {"model_name_or_path": "m", "dataset": "x.jsonl", "val_size": 0.1, "eval_on_each_dataset": True}
    assert load_config(keys, verb=verb).warnings == ()
