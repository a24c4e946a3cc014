"""Keys without effect: one warning that names them all, an error under strict_keys."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.config import load_config
from tunesmith.config.effects import rules
from tunesmith.core.errors import ConfigError

TRAIN = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}


def warning(verb: str = "train", **keys: Any) -> str:
    warnings = load_config({**TRAIN, **keys}, verb=verb).warnings
    assert len(warnings) <= 1
    return warnings[0] if warnings else ""


def test_a_plain_config_earns_no_warning() -> None:
    assert warning() == ""
    assert warning(lora_rank=4, val_size=0.1, eval_strategy="steps", eval_steps=5, plot_loss=True) == ""


def test_one_warning_names_all_keys_by_reason() -> None:
    text = warning(finetuning_type="full", lora_rank=8, use_dora=True, buffer_size=99)
    assert text == (
        "keys without effect: lora_rank, use_dora (only with finetuning_type: lora); "
        "buffer_size (only with streaming: true)"
    )


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ({"finetuning_type": "lora", "freeze_trainable_layers": 3}, "freeze_trainable_layers"),
        ({"finetuning_type": "freeze", "lora_target": "all"}, "lora_target"),
        ({"export_dir": "x"}, "export_dir"),
        ({"temperature": 0.5}, "temperature"),
        ({"max_bad_rows": 3}, "max_bad_rows"),
        ({"stage": "pt", "on_too_long": "drop"}, "on_too_long"),
        ({"stage": "pt", "template": "qwen"}, "template"),
        ({"eval_steps": 5}, "eval_steps"),
        ({"save_strategy": "epoch", "save_steps": 5}, "save_steps"),
        ({"compute_accuracy": True}, "compute_accuracy"),
        ({"adapter_folder": "x"}, "adapter_folder"),
        ({"stage": "pt", "use_dft_loss": True}, "use_dft_loss"),
        ({"stage": "pt", "use_eaft_loss": True, "eaft_alpha": 0.5}, "use_eaft_loss, eaft_alpha"),
        ({"use_dft_loss": True, "eaft_alpha": 0.5}, "eaft_alpha"),
        ({"use_dft_loss": True, "asft_alpha": 0.5}, "asft_alpha"),
        ({"stage": "pt", "use_asft_loss": True}, "use_asft_loss"),
        ({"ref_model": "r"}, "ref_model"),
        ({"use_asft_loss": True, "precompute_ref_log_probs": True}, "precompute_ref_log_probs"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs"),
        ({"stage": "dpo", "pref_loss": "orpo", "precompute_ref_log_probs": True}, "precompute_ref_log_probs"),
        ({"val_size": 0.1}, "val_size"),
        ({"disable_gradient_checkpointing": True, "use_reentrant_gc": False}, "use_reentrant_gc"),
        ({"disable_gradient_checkpointing": True, "use_unsloth_gc": True}, "use_unsloth_gc"),
        ({"gradient_checkpointing": False, "gradient_checkpointing_mode": "full"}, "gradient_checkpointing_mode"),
        ({"buffer_size": 5}, "buffer_size"),
        ({"predict_with_generate": True}, "predict_with_generate"),
        ({"streaming": True, "max_steps": 9, "dataloader_num_workers": 2}, "dataloader_num_workers"),
        ({"streaming": True, "max_steps": 9, "overwrite_cache": True}, "overwrite_cache"),
        ({"streaming": True, "max_steps": 9, "dataloader_drop_last": True}, "dataloader_drop_last"),
    ],
)
def test_a_key_without_effect_is_named(keys: dict[str, Any], named: str) -> None:
    assert f"{named} (" in warning(**keys)


@pytest.mark.parametrize("key", ["train_on_prompt", "mask_history"])
def test_what_is_trained_of_a_chat_is_no_question_for_pairs(key: str) -> None:
    keys = {"model_name_or_path": "m", "dataset": "d", key: True}
    (told,) = load_config({**keys, "stage": "dpo"}, verb="preview").warnings
    assert told.startswith(f"keys without effect: {key} (the answers are what is trained on")
    assert load_config({**keys, "stage": "sft"}, verb="preview").warnings == ()


def test_sampling_keys_count_in_chat_and_prediction() -> None:
    assert warning(do_predict=True, val_size=0.1, temperature=0.5, max_new_tokens=9) == ""
    assert load_config({"model_name_or_path": "m", "temperature": 0.5}, verb="chat").warnings == ()


def test_what_has_an_effect_in_predict_and_in_eval() -> None:
    model, asked = {"model_name_or_path": "m"}, {"eval_dataset": "d", "cutoff_len": 512, "max_samples": 3, "seed": 1}
    predict = {**model, **asked, "output_dir": "o", "temperature": 0.5, "kv_cache_gb": 2}
    assert load_config(predict, verb="predict").warnings == ()
    (told,) = load_config({**predict, "dataset": "t", "packing": True, "n_shot": 3}, verb="predict").warnings
    for text in ("packing (only in training)", "dataset (eval_dataset is what is read)", "n_shot (only in eval)"):
        assert text in told
    choices = {**model, "task": "mmlu_test", "lang": "zh", "download_mode": "force_redownload", "offline": True}
    assert load_config({**choices, "task_dir": "t", "max_samples": 3, "seed": 1}, verb="eval").warnings == ()
    (told,) = load_config({**choices, "task": "lm_eval:x", "temperature": 0.5}, verb="eval").warnings
    for text in ("lang, download_mode (tasks of lm_eval", "offline (HF_DATASETS_OFFLINE", "temperature (only in chat"):
        assert text in told


def test_what_has_an_effect_in_score() -> None:
    rows = {"eval_dataset": "d", "cutoff_len": 512, "max_samples": 3, "on_too_long": "drop", "stage": "rm", "seed": 1}
    keys = {"model_name_or_path": "m", "output_dir": "o", "infer_dtype": "float32", "fast_path": "require", **rows}
    batches = {"max_batch_requests": 4, "prefill_chunk_tokens": 64}
    assert load_config({**keys, **batches}, verb="score").warnings == ()
    (told,) = load_config({**keys, "dataset": "t", "max_queued_requests": 3, "temperature": 1}, verb="score").warnings
    for text in ("dataset (eval_dataset is what is read)", "max_queued_requests (not in", "temperature (only in chat"):
        assert text in told


def test_a_training_file_serves_chat_with_one_warning() -> None:
    text = warning("chat", learning_rate=1e-4, lora_rank=8)
    assert text == (
        "keys without effect: dataset (only in training, prediction and score); "
        "learning_rate, lora_rank (only in training)"
    )


def test_what_the_trainer_does_anyway_is_no_news() -> None:
    assert warning(remove_unused_columns=False, logging_nan_inf_filter=False) == ""


def test_strict_keys_makes_it_an_error() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({**TRAIN, "finetuning_type": "full", "lora_rank": 8, "buffer_size": 9, "strict_keys": True})
    assert [problem.code for problem in caught.value.problems] == ["E-CONFIG-011", "E-CONFIG-011"]
    assert {problem.where for problem in caught.value.problems} == {'key "lora_rank"', 'key "buffer_size"'}


def test_strict_keys_lets_one_file_serve_several_verbs() -> None:
    assert "only in training" in warning("chat", strict_keys=True)


def test_no_rule_is_written_for_keys_that_do_not_exist() -> None:
    assert all(rule.keys for rule in rules())
