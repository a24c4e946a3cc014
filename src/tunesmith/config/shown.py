"""Which test shows the effect of which key. The page of keys names it; a test checks that it exists.

A working key that is not in this table is shown to arrive in its section, or in transformers' arguments.
"""

from __future__ import annotations

from functools import cache

__all__ = ["shown_by"]

_ARRIVES = "tests/unit/config/test_keys.py::test_a_working_key_reaches_its_section"
_PASSED_ON = "tests/contracts/test_hf_arguments.py::test_a_training_argument_reaches_transformers"

_LEGACY = "tests/unit/config/test_legacy.py::"
_EFFECTS = "tests/unit/config/test_effects.py::"
_DATA = "tests/unit/data/test_data_build.py::"
_INFO = "tests/unit/data/test_dataset_info.py::"
_BAD = "tests/unit/data/test_bad_input.py::"
_METHODS = "tests/unit/methods/test_methods.py::"
_ENGINE = "tests/unit/engines/test_hf.py::"
_RUN = "tests/e2e/test_run.py::"
_EXACT = "tests/e2e/test_exactness.py::"
_EXPORT = "tests/e2e/test_adapters_and_export.py::"

# Passed on, but what transformers makes of them depends on the machine or the launcher, or has another type.
_DECIDED_ELSEWHERE = frozenset(["accelerator_config", "ddp_backend", "debug", "fp16", "local_rank", "tf32", "use_cpu"])

_SHOWN: dict[str, str] = {
    _LEGACY + "test_an_older_name_arrives_under_its_present_one": (
        "warmup_ratio evaluation_strategy group_by_length no_cuda per_gpu_train_batch_size per_gpu_eval_batch_size "
        "adafactor"
    ),
    _LEGACY + "test_transformers_names_for_checkpointing_set_ours": (
        "gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing activation_checkpointing_kwargs"
    ),
    _EFFECTS + "test_strict_keys_makes_it_an_error": "strict_keys",
    _DATA + "test_rows_become_tokens_with_their_place": "dataset",
    _DATA + "test_eval_datasets_as_one_or_each_by_itself": "eval_dataset eval_on_each_dataset",
    _INFO + "test_a_path_needs_no_table_and_may_start_here_or_in_dataset_dir": "dataset_dir",
    _DATA + "test_what_is_too_long_is_cut_and_counted": "cutoff_len",
    _DATA + "test_several_datasets_are_mixed": "mix_strategy",
    "tests/property/test_data_properties.py::test_weights_are_kept": "interleave_probs",
    _DATA + "test_batches_do_not_change_the_result": "preprocessing_batch_size",
    _DATA + "test_max_samples_takes_the_first_rows_of_each_dataset_and_reads_no_further": "max_samples",
    _DATA + "test_val_size_holds_rows_out": "val_size",
    _DATA + "test_pre_training_without_packing_cuts_and_counts": "packing",
    _BAD + "test_skip_drops_and_counts": "on_bad_row",
    _BAD + "test_skip_has_a_limit": "max_bad_rows",
    "tests/parity/test_named_templates.py::test_text_equals_the_official_template": "template",
    _METHODS + "test_full_trains_every_weight_in_float32": "finetuning_type",
    _METHODS + "test_freeze_trains_the_last_layers": "freeze_trainable_layers",
    _METHODS + "test_freeze_trains_named_parts_and_extra_modules": "freeze_trainable_modules freeze_extra_modules",
    _METHODS + "test_lora_dropout_and_additional_target": "lora_dropout lora_target additional_target",
    _METHODS + "test_lora_scaling": "lora_rank lora_alpha use_rslora use_dora",
    _METHODS + "test_create_new_adapter_merges_the_old_one": "create_new_adapter",
    _METHODS + "test_training_goes_on_with_the_last_adapter": "adapter_name_or_path",
    _ENGINE + "test_sampling_draws_from_the_distribution_that_transformers_would": "temperature top_p top_k",
    _ENGINE + "test_greedy_equals_transformers": "do_sample repetition_penalty",
    _ENGINE + "test_the_limit_ends_a_reply": "max_new_tokens",
    _ENGINE + "test_max_length_counts_the_prompt": "max_length",
    _ENGINE + "test_without_a_cache_the_reply_is_the_same": "use_kv_cache",
    _RUN + "test_a_run_leaves_its_config_plan_data_report_metrics_and_curve": (
        "model_name_or_path output_dir plot_loss compute_accuracy"
    ),
    _RUN + "test_recomputing_activations_changes_nothing": "disable_gradient_checkpointing use_reentrant_gc",
    _RUN + "test_random_weights_start_at_the_loss_of_guessing": "train_from_scratch",
    _RUN + "test_early_stopping_ends_a_run_that_gets_worse": "early_stopping_steps",
    _RUN + "test_overwrite_starts_afresh_and_clears_what_was_there": "overwrite_output_dir",
    _RUN + "test_pure_bf16_trains_bf16_weights": "pure_bf16",
    _RUN + "test_bf16_trains_float32_adapters_on_bf16_weights": "bf16",
    _RUN + "test_predictions_stand_beside_the_expected_answers": "do_train do_predict predict_with_generate",
    _RUN + "test_pre_training_packs_text_into_full_blocks": "stage",
    _RUN + "test_a_tensorboard_log_holds_the_same_curve": "report_to logging_dir",
    _RUN + "test_the_best_model_is_what_is_kept": "load_best_model_at_end metric_for_best_model",
    _EXACT + "test_a_resumed_run_gives_the_bits_of_one_that_never_stopped": (
        "resume_from_checkpoint save_strategy save_steps"
    ),
    _EXACT + "test_accumulation_changes_nothing": "per_device_train_batch_size gradient_accumulation_steps",
    _EXPORT + "test_the_adapter_loads_in_plain_peft_and_the_merged_model_equals_it": "export_dir",
    _EXPORT + "test_shards_have_the_size_that_was_asked_for": "export_size",
    _EXPORT + "test_the_dtype_of_an_export_can_be_chosen": "infer_dtype",
}


@cache
def _by_key() -> dict[str, str]:
    pairs = [(key, test) for test, keys in _SHOWN.items() for key in keys.split()]
    assert len(dict(pairs)) == len(pairs), "a key is named twice"
    return dict(pairs)


def shown_by(key: str, passed_on: bool) -> str:
    """The test, as pytest names it, that shows what a working key does."""
    return _by_key().get(key) or (_PASSED_ON if passed_on and key not in _DECIDED_ELSEWHERE else _ARRIVES)
