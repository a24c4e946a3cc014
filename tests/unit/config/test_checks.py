"""Rules across sections."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.config.checks import CHECKS
from tunesmith.config.keys import all_keys
from tunesmith.config.verbs import VERBS
from tunesmith.core.errors import ConfigError

TRAIN = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
EVALUATED = {**TRAIN, "val_size": 0.1, "eval_strategy": "steps", "eval_steps": 10}
EXPORT = {"model_name_or_path": "m", "export_dir": "x"}


def codes(keys: dict[str, Any], verb: str = "train") -> list[str]:
    try:
        load_config({key: value for key, value in keys.items() if value is not None}, verb=verb)
    except ConfigError as error:
        return [problem.code.removeprefix("E-CONFIG-") for problem in error.problems]
    return []


@pytest.mark.parametrize(
    ("verb", "keys"),
    [("train", TRAIN), ("preview", TRAIN), ("chat", {"model_name_or_path": "m"}), ("export", EXPORT)],
)
def test_each_verb_names_every_key_that_it_cannot_do_without(verb: str, keys: dict[str, Any]) -> None:
    assert codes(keys, verb) == []
    needed = [key for key in keys if not (verb == "preview" and key == "output_dir")]
    for key in needed:
        assert codes({**keys, key: None}, verb) == ["020"]
    assert codes({}, verb) == ["020"] * len(needed)
    assert codes({}, "show") == []


@pytest.mark.parametrize(
    ("keys", "code"),
    [
        ({**TRAIN, "do_train": False}, "024"),
        ({**TRAIN, "do_eval": True}, "022"),
        ({**TRAIN, "do_predict": True}, "022"),
        ({**TRAIN, "eval_strategy": "epoch"}, "022"),
        ({**TRAIN, "evaluation_strategy": "epoch"}, "022"),
        ({**TRAIN, "eval_on_start": True}, "022"),
        ({**TRAIN, "val_size": 0.1, "eval_dataset": "e"}, "021"),
        ({**TRAIN, "dataset": None, "do_eval": True, "val_size": 0.1}, "022"),
        ({**TRAIN, "val_size": 1.5}, "004"),
        ({**TRAIN, "dataset": "a,b", "interleave_probs": "0.5,0.5"}, "021"),
        ({**TRAIN, "dataset": "a,b", "interleave_probs": "1", "mix_strategy": "interleave_over"}, "023"),
        ({**TRAIN, "dataset": "a,b", "interleave_probs": "1,0", "mix_strategy": "interleave_over"}, "004"),
        ({**TRAIN, "train_on_prompt": True, "mask_history": True}, "021"),
        ({**TRAIN, "packing": False, "neat_packing": True}, "021"),
        ({**TRAIN, "image_max_pixels": 1023}, "021"),
        ({**TRAIN, "video_min_pixels": 65537}, "021"),
        ({**TRAIN, "use_dft_loss": True, "use_eaft_loss": True}, "021"),
        ({**TRAIN, "use_asft_loss": True, "use_eaft_loss": True}, "021"),
        ({**TRAIN, "use_asft_loss": True, "ref_model_quantization_bit": 4}, "022"),
        ({**TRAIN, "use_asft_loss": True, "asft_alpha": -1}, "004"),
        ({**TRAIN, "use_eaft_loss": True, "label_smoothing_factor": 0.1}, "021"),
        ({**TRAIN, "label_smoothing_factor": 1.0}, "004"),
        ({**TRAIN, "use_eaft_loss": True, "eaft_alpha": -1}, "004"),
        ({**TRAIN, "streaming": True}, "022"),
        ({**TRAIN, "streaming": True, "max_steps": 9, "val_size": 0.1, "do_eval": True}, "021"),
        ({**TRAIN, "streaming": True, "max_steps": 9, "tokenized_path": "p"}, "021"),
        ({**TRAIN, "adapter_name_or_path": "a", "finetuning_type": "full"}, "021"),
        ({**TRAIN, "adapter_name_or_path": "a", "train_from_scratch": True}, "021"),
        ({**TRAIN, "fp16": True, "bf16": True}, "021"),
        ({**TRAIN, "fp16": True, "pure_bf16": True}, "021"),
        ({**TRAIN, "upcast_layernorm": True, "pure_bf16": True}, "021"),
        ({**EVALUATED, "fp16_full_eval": True, "bf16_full_eval": True}, "021"),
        ({**TRAIN, "logging_steps": 0}, "004"),
        ({**TRAIN, "save_steps": 2.5}, "004"),
        ({**TRAIN, "load_best_model_at_end": True}, "022"),
        ({**EVALUATED, "load_best_model_at_end": True, "save_strategy": "epoch"}, "022"),
        ({**EVALUATED, "load_best_model_at_end": True, "save_steps": 15}, "022"),
        ({**TRAIN, "early_stopping_steps": 3}, "022"),
        ({**TRAIN, "save_strategy": "best"}, "022"),
        ({**TRAIN, "lr_scheduler_type": "reduce_lr_on_plateau"}, "022"),
        ({**TRAIN, "disable_shuffling": True, "group_by_length": True}, "021"),
        ({**EVALUATED, "stage": "pt", "do_train": True, "do_predict": True}, "021"),
        (
            {
                **EVALUATED,
                "do_train": True,
                "do_predict": True,
                "predict_with_generate": True,
                "compute_accuracy": True,
            },
            "021",
        ),
        ({**TRAIN, "dataloader_prefetch_factor": 2}, "022"),
        ({**TRAIN, "dataloader_persistent_workers": True}, "022"),
        ({**TRAIN, "output_dir": "./m"}, "021"),
    ],
)
def test_what_cannot_be_meant_is_an_error(keys: dict[str, Any], code: str) -> None:
    assert codes(keys) == [code]


@pytest.mark.parametrize(
    "keys",
    [
        {**TRAIN, "do_train": False, "do_eval": True, "val_size": 0.1},
        {**TRAIN, "dataset": None, "do_eval": True, "eval_dataset": "e"},
        {**TRAIN, "dataset": None, "do_predict": True, "predict_with_generate": True, "eval_dataset": "e"},
        {**TRAIN, "val_size": 20},
        {**TRAIN, "val_size": 1},
        {**TRAIN, "dataset": "a,b", "interleave_probs": "1,3", "mix_strategy": "interleave_under"},
        {**TRAIN, "stage": "pt", "packing": True},
        {**TRAIN, "packing": True, "flash_attn": "fa2"},
        {**TRAIN, "packing": True},
        {**TRAIN, "packing": True, "neat_packing": True},
        {**TRAIN, "adapter_name_or_path": "a,b"},
        {**TRAIN, "bf16": True, "pure_bf16": True},
        {**TRAIN, "bf16": True, "upcast_layernorm": True},
        {**TRAIN, "logging_steps": 0.1, "save_steps": 0.5},
        {**TRAIN, "save_strategy": "no", "save_steps": 0},
        {**EVALUATED, "load_best_model_at_end": True, "save_steps": 20, "early_stopping_steps": 3},
        {**EVALUATED, "load_best_model_at_end": True, "save_strategy": "best"},
        {**TRAIN, "disable_shuffling": True, "train_sampling_strategy": "sequential"},
    ],
)
def test_what_fits_together_is_accepted(keys: dict[str, Any]) -> None:
    assert codes(keys) == []


@pytest.mark.parametrize("stage", ["rm", "dpo", "kto", "ppo"])
def test_answers_are_not_split_and_prompts_not_packed(stage: str) -> None:
    keys = {"model_name_or_path": "m", "dataset": "d", "stage": stage}
    for policy in ("truncate", "drop", "error"):
        assert codes({**keys, "on_too_long": policy}, "preview") == []
    assert codes({**keys, "on_too_long": "split"}, "preview") == ["021"]
    for packing in ("packing", "neat_packing"):
        assert codes({**keys, packing: True}, "inspect") == (["021"] if stage == "ppo" else [])


def test_an_export_never_overwrites_what_it_reads() -> None:
    assert codes({**EXPORT, "export_dir": "m/"}, "export") == ["021"]
    assert codes({**EXPORT, "adapter_name_or_path": "a,x"}, "export") == ["021"]


def test_rules_name_keys_and_verbs_that_exist() -> None:
    for item in CHECKS:
        assert item.keys <= all_keys().keys()
        assert set(item.verbs) <= set(VERBS)


def test_every_rule_is_left_out_where_its_key_is_wrong_by_itself() -> None:
    assert codes({**TRAIN, "mask_history": "what", "train_on_prompt": True}) == ["002"]
    assert codes({**TRAIN, "val_size": "x", "do_eval": True}) == ["002"]
