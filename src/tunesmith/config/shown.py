"""Which test shows the effect of which key. The page of keys names it.

Tests check that every working key is in this table, and no other, and that the tests exist.
"""

from __future__ import annotations

from functools import cache

__all__ = ["shown_by"]

_LEGACY = "tests/unit/config/test_legacy.py::"
_EFFECTS = "tests/unit/config/test_effects.py::"
_DATA = "tests/unit/data/test_data_build.py::"
_INFO = "tests/unit/data/test_dataset_info.py::"
_MEDIA = "tests/unit/data/test_media_rows.py::"
_BAD = "tests/unit/data/test_bad_input.py::"
_METHODS = "tests/unit/methods/test_methods.py::"
_ADAPTERS = "tests/unit/methods/test_adapters.py::"
_ENGINE = "tests/unit/engines/test_hf.py::"
_REMOTE = "tests/unit/engines/test_remote.py::"
_SERVING = "tests/unit/engines/test_serving.py::"
_RUN = "tests/e2e/test_run.py::"
_ARGUMENTS = "tests/e2e/test_training_arguments.py::"
_EVALUATION = "tests/e2e/test_evaluation_and_checkpoints.py::"
_PLAN = "tests/unit/train/test_plan.py::"
_LOADING = "tests/unit/models/test_loading.py::"
_TOKENS = "tests/unit/models/test_vocabulary.py::"
_ROPE = "tests/unit/models/test_rope.py::"
_TEMPLATE = "tests/unit/render/test_template_keys.py::"
_GROUPS = "tests/unit/train/optimizers/test_groups.py::"
_OPTIMIZERS = "tests/unit/train/optimizers/test_settings.py::"
_EXACT = "tests/e2e/test_exactness.py::"
_EXPORT = "tests/e2e/test_adapters_and_export.py::"
_CHOICE = "tests/unit/evaluate/test_multiple_choice.py::"
_QUANTIZED = "tests/e2e/test_quantized_training.py::"
_STREAM = "tests/unit/data/test_streaming.py::"

_IMAGES = "tests/unit/media/test_images.py::"
_VIDEO = "tests/unit/media/test_video.py::"
_PROCESSORS = "tests/unit/media/test_processor.py::"
_AUDIO = "tests/unit/media/test_audio.py::"

_PAIRS = "tests/unit/objectives/test_dpo.py::"
_FEEDBACK = "tests/unit/objectives/test_kto.py::"
_PREFERENCES = "tests/e2e/test_preference_runs.py::"
_PRECOMPUTED = "tests/e2e/test_precomputed_references.py::"
_REWARDS = "tests/unit/objectives/test_rm.py::"

_SHOWN: dict[str, str] = {
    _IMAGES + "test_images_are_brought_to_size": "image_max_pixels image_min_pixels",
    _PROCESSORS + "test_tiles_follow_the_config": "crop_to_patches",
    _PROCESSORS + "test_pan_and_scan_follows_the_config": "image_do_pan_and_scan",
    _VIDEO + "test_keys_say_how_many_frames_of_which_size": "video_max_pixels video_min_pixels video_fps video_maxlen",
    _AUDIO + "test_the_key_is_the_rate": "audio_sampling_rate",
    _PAIRS + "test_the_keys_say_what_the_loss_is": (
        "pref_beta pref_ftx pref_bco_weight pref_loss_weights pref_divergence pref_divergence_alpha "
        "dpo_label_smoothing simpo_gamma alphapo_alpha cpo_alpha discopop_tau ld_alpha"
    ),
    _FEEDBACK + "test_the_keys_say_what_the_loss_is": "kto_loss kto_chosen_weight kto_rejected_weight",
    _REWARDS + "test_center_is_a_square_of_the_sum": "center_rewards_coefficient",
    _PAIRS + "test_the_split_of_a_batch_changes_nothing": "pref_loss",
    _PAIRS + "test_weights_of_wpo_are_those_of_the_policy": "use_wpo",
    _PREFERENCES + "test_a_prompt_is_computed_once_unless_it_is_not_to_be": "prefix_sharing",
    _PREFERENCES + "test_another_model_may_be_the_reference": "ref_model ref_model_quantization_bit",
    "tests/unit/objectives/test_asft.py::test_every_way_is_the_formula_on_all_logits": "use_asft_loss asft_alpha",
    _PRECOMPUTED + "test_a_run_without_a_reference_is_the_run_with_it": "precompute_ref_log_probs",
    _PREFERENCES + "test_adapters_of_the_reference_are_merged_into_it": "ref_model_adapters",
    _LEGACY + "test_an_older_name_arrives_under_its_present_one": (
        "warmup_ratio evaluation_strategy group_by_length no_cuda per_gpu_train_batch_size per_gpu_eval_batch_size "
        "adafactor"
    ),
    _LEGACY + "test_transformers_names_for_checkpointing_set_ours": (
        "gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing activation_checkpointing_kwargs"
    ),
    _LEGACY + "test_unsloths_name_for_checkpointing_moves_hidden_states": "use_unsloth_gc",
    _QUANTIZED + "test_learns_and_leaves_the_base_as_it_was": "quantization_method quantization_bit quantization_type",
    _QUANTIZED + "test_double_quantization_takes_less": "double_quantization",
    _QUANTIZED + "test_the_storage_changes_no_bit": "bnb_4bit_quant_storage",
    _QUANTIZED + "test_a_model_may_be_spread_to_generate": "quantization_device_map",
    "tests/e2e/test_qat.py::test_what_is_saved_computes_what_was_trained": "qat",
    "tests/unit/models/quantization/test_float8.py::test_eight_bits_compute_the_same_but_for_rounding": (
        "fp8 fp8_enable_fsdp_float8_all_gather"
    ),
    "tests/unit/config/test_quantization_checks.py::test_what_does_not_go_together_is_one_error": "fp8_backend",
    "tests/unit/models/test_checkpointing.py::test_selective_computes_attention_once": "gradient_checkpointing_mode",
    "tests/unit/models/test_liger.py::test_the_layers_are_patched_and_the_loss_is_not": "enable_liger_kernel",
    "tests/unit/models/test_liger.py::test_transformers_name_for_it_is_ours": "use_liger_kernel",
    _EFFECTS + "test_strict_keys_makes_it_an_error": "strict_keys",
    _DATA + "test_rows_become_tokens_with_their_place": "dataset",
    _DATA + "test_eval_datasets_as_one_or_each_by_itself": "eval_dataset eval_on_each_dataset",
    _INFO + "test_a_path_needs_no_table_and_may_start_here_or_in_dataset_dir": "dataset_dir",
    "tests/unit/data/sources/test_remote.py::test_offline_asks_nobody": "offline",
    "tests/unit/train/test_self_proof.py::test_off_is_off": "fast_path",
    "tests/e2e/test_drift.py::test_what_is_frozen_can_be_allowed": "resume_allow",
    "tests/e2e/test_saving.py::test_a_checkpoint_in_the_background_is_the_same": "async_save",
    "tests/e2e/test_saving.py::test_a_full_disk_stops_the_run_or_does_not": "on_disk_full",
    "tests/e2e/test_saving.py::test_room_that_is_held_is_given_up_for_a_checkpoint": "disk_reserve_gb",
    "tests/e2e/test_uploads.py::test_the_model_and_each_save_are_uploaded": (
        "push_to_hub hub_model_id hub_token hub_private_repo hub_always_push"
    ),
    "tests/e2e/test_uploads.py::test_what_is_uploaded_when": "hub_strategy hub_revision",
    "tests/e2e/test_uploads.py::test_the_card_names_no_path": "push_to_hub_organization",
    _LEGACY + "test_older_names_of_uploads": "push_to_hub_model_id push_to_hub_token",
    "tests/unit/train/test_step_memory.py::test_the_probe_finds_it_before_the_first_step": "memory_probe",
    "tests/unit/core/test_signals.py::test_a_run_that_does_not_stop_in_time_is_ended": "stop_grace",
    "tests/unit/train/test_nonfinite.py::test_skip_and_rollback_equal_a_run_without_that_step": "on_nonfinite",
    _STREAM + "test_an_epoch_holds_the_samples_of_the_whole_dataset_in_order": "streaming buffer_size",
    _DATA + "test_what_is_too_long_is_cut_and_counted": "cutoff_len on_too_long",
    _DATA + "test_several_datasets_are_mixed": "mix_strategy",
    "tests/property/test_data_properties.py::test_weights_are_kept": "interleave_probs",
    _DATA + "test_batches_do_not_change_the_result": "preprocessing_batch_size",
    "tests/unit/data/test_cache.py::test_the_second_run_encodes_nothing_and_has_the_same": "overwrite_cache",
    "tests/unit/data/test_cache.py::test_tokenized_path_keeps_and_verifies": "tokenized_path",
    "tests/unit/data/test_prepare.py::test_processes_give_what_one_gives": "preprocessing_num_workers",
    _DATA + "test_max_samples_takes_the_first_rows_of_each_dataset_and_reads_no_further": "max_samples",
    _DATA + "test_val_size_holds_rows_out": "val_size",
    _BAD + "test_skip_drops_and_counts": "on_bad_row",
    _BAD + "test_skip_has_a_limit": "max_bad_rows",
    _MEDIA + "test_rows_with_bad_media_are_left_out_and_counted": "on_bad_media",
    _MEDIA + "test_paths_begin_at_media_dir_then_at_the_folder_of_the_dataset": "media_dir",
    "tests/parity/test_named_templates.py::test_text_equals_the_models_own_template": "template",
    _METHODS + "test_full_trains_every_weight_in_float32": "finetuning_type",
    _METHODS + "test_freeze_trains_the_last_layers": "freeze_trainable_layers",
    _METHODS + "test_freeze_trains_named_parts_and_extra_modules": "freeze_trainable_modules freeze_extra_modules",
    _METHODS + "test_lora_dropout_and_additional_target": "lora_dropout lora_target additional_target",
    _METHODS + "test_lora_scaling": "lora_rank lora_alpha use_rslora use_dora",
    _ADAPTERS + "test_an_adapter_begins_as_the_base_model": "init_lora_weights",
    _ADAPTERS + "test_pissa_takes_the_largest_singular_vectors_out_of_the_base": "pissa_init pissa_iter",
    _ADAPTERS + "test_layers_and_patterns": "layers_to_transform rank_pattern alpha_pattern",
    _ADAPTERS + "test_fused_experts_are_adapted_without_a_module": "target_parameters",
    _ADAPTERS + "test_oft_takes_blocks_or_a_number_of_them": "oft_rank oft_block_size oft_target module_dropout",
    _ADAPTERS + "test_added_blocks_alone_train": "use_llama_pro",
    "tests/unit/methods/test_towers.py::test_which_parts_train_in_full": (
        "freeze_vision_tower freeze_multi_modal_projector freeze_language_model"
    ),
    _ADAPTERS + "test_any_kind_of_adapter_by_its_name": "peft_type",
    _ADAPTERS + "test_more_settings_go_to_peft_by_its_names": "peft_settings",
    "tests/unit/methods/test_combine.py::test_changes_are_combined_as_published": (
        "merge_method merge_weights merge_density"
    ),
    "tests/unit/train/test_calibration.py::test_so_many_rows_are_looked_at": "lora_init_rows",
    _METHODS + "test_create_new_adapter_merges_the_old_one": "create_new_adapter",
    _METHODS + "test_training_goes_on_with_the_last_adapter": "adapter_name_or_path",
    _ENGINE + "test_sampling_draws_from_the_distribution_that_transformers_would": "temperature top_p top_k",
    _ENGINE + "test_greedy_equals_transformers": "do_sample repetition_penalty",
    _ENGINE + "test_the_limit_ends_a_reply": "max_new_tokens",
    _ENGINE + "test_max_length_counts_the_prompt": "max_length",
    _ENGINE + "test_without_a_cache_the_reply_is_the_same": "use_kv_cache",
    _SERVING + "test_the_cache_stays_within_its_memory": "kv_cache_gb",
    _SERVING + "test_clients_take_turns": "max_batch_requests",
    _SERVING + "test_a_full_queue_refuses": "max_queued_requests",
    _SERVING + "test_replies_go_on_while_a_long_prompt_is_read": "prefill_chunk_tokens",
    _RUN + "test_a_run_leaves_its_config_plan_data_report_metrics_and_curve": (
        "model_name_or_path output_dir plot_loss compute_accuracy"
    ),
    _RUN + "test_recomputing_activations_changes_nothing": "disable_gradient_checkpointing use_reentrant_gc",
    "tests/e2e/test_optimizer_in_bwd.py::test_every_optimizer_gives_the_same_bits": "optimizer_in_bwd",
    _GROUPS + "test_the_first_pattern_that_fits_holds": "lr_groups",
    _GROUPS + "test_b_matrices_learn_faster": "loraplus_lr_ratio loraplus_lr_embedding",
    _OPTIMIZERS + "test_settings_of_galore": (
        "use_galore galore_target galore_rank galore_update_interval galore_scale galore_proj_type"
    ),
    _OPTIMIZERS + "test_settings_of_apollo": (
        "use_apollo apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type "
        "apollo_scale_type"
    ),
    _OPTIMIZERS + "test_layers_take_turns": (
        "use_badam badam_mode badam_start_block badam_switch_mode badam_switch_interval badam_verbose"
    ),
    _OPTIMIZERS + "test_a_share_of_each_weight_trains": "badam_update_ratio badam_mask_mode",
    _OPTIMIZERS + "test_keys_and_names_ask_for_the_same": "use_adam_mini use_muon",
    "tests/e2e/test_optimizers.py::test_layerwise_gives_the_same_bits": "galore_layerwise apollo_layerwise",
    _RUN + "test_random_weights_start_at_the_loss_of_guessing": "train_from_scratch",
    _RUN + "test_early_stopping_ends_a_run_that_gets_worse": "early_stopping_steps",
    _RUN + "test_overwrite_starts_afresh_and_clears_what_was_there": "overwrite_output_dir",
    _RUN + "test_pure_bf16_trains_bf16_weights": "pure_bf16",
    _RUN + "test_bf16_trains_float32_adapters_on_bf16_weights": "bf16",
    _RUN + "test_predictions_stand_beside_the_expected_answers": "do_train do_predict predict_with_generate",
    "tests/e2e/test_generations.py::test_replies_change_nothing_of_the_training": "log_generations",
    "tests/e2e/test_generations.py::test_rows_that_are_answered": "eval_generate_samples",
    _RUN + "test_pre_training_packs_text_into_full_blocks": "stage",
    _RUN + "test_a_template_that_is_not_the_models_own_is_an_error_when_strict": "template_check",
    _RUN + "test_a_tensorboard_log_holds_the_same_curve": "report_to logging_dir",
    _RUN + "test_the_best_model_is_what_is_kept": "load_best_model_at_end metric_for_best_model",
    _LOADING + "test_folder_revision_and_token_reach_every_download": "cache_dir model_revision hf_hub_token",
    "tests/unit/models/test_locate.py::test_tokens_reach_their_hub": "ms_hub_token om_hub_token",
    _LOADING + "test_an_adapter_may_lie_in_a_folder_below": "adapter_folder",
    _TOKENS + "test_new_tokens_are_one_token_each_and_get_rows": "add_tokens add_special_tokens resize_vocab",
    _TOKENS + "test_rows_begin_as_they_were_asked_to": "new_special_tokens_config init_special_tokens",
    _ROPE + "test_the_context_follows_cutoff_len_in_training": "rope_scaling",
    "tests/unit/models/test_shifted.py::test_a_run_trains_in_groups_and_is_judged_whole": "shift_attn",
    "tests/unit/models/test_balance.py::test_a_run_adds_the_loss_of_the_routers": "moe_aux_loss_coef",
    "tests/unit/models/test_depths.py::test_a_run_converts_learns_and_is_read_back": (
        "mixture_of_depths mixture_of_depths_capacity"
    ),
    _ROPE + "test_a_factor_can_be_given": "rope_factor",
    "tests/unit/models/test_longrope.py::test_longrope_frequencies_are_those_of_the_paper": "rope_factors",
    _LOADING + "test_the_attention_is_the_one_that_was_asked_for": "flash_attn",
    _LOADING + "test_code_of_a_model_runs_only_if_it_is_trusted": "trust_remote_code",
    _LOADING + "test_norms_are_held_in_float32_on_request": "upcast_layernorm",
    _LOADING + "test_every_weight_is_listed_on_request": "print_param_status",
    _TEMPLATE + "test_train_on_prompt": "train_on_prompt",
    _TEMPLATE + "test_mask_history": "mask_history",
    _TEMPLATE + "test_train_turns": "train_turns",
    "tests/unit/render/test_weights.py::test_rules_of_a_file_weigh_tokens": "loss_weights",
    _TEMPLATE + "test_default_system": "default_system",
    _TEMPLATE + "test_tool_format": "tool_format",
    _TEMPLATE + "test_enable_thinking": "enable_thinking",
    _TEMPLATE + "test_preserve_thinking": "preserve_thinking",
    "tests/unit/engines/test_engine_keys.py::test_the_engine_is_looked_up_by_its_name": "infer_backend",
    "tests/unit/engines/test_outside.py::test_what_vllm_is_started_with": (
        "vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config"
    ),
    "tests/unit/engines/test_outside.py::test_what_sglang_is_started_with": (
        "sglang_maxlen sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend"
    ),
    _REMOTE + "test_a_chat_with_a_server_elsewhere": "remote_url remote_model",
    _REMOTE + "test_ids_give_what_the_engine_itself_gives": "remote_prompts",
    _REMOTE + "test_silence_has_an_end": "remote_timeout",
    _REMOTE + "test_a_busy_server_is_asked_again": "remote_retries",
    "tests/unit/engines/test_engine_keys.py::test_special_tokens_inside_a_reply": "skip_special_tokens",
    "tests/unit/serve/test_adapters.py::test_adapters_of_the_config_can_be_named": "adapters",
    "tests/unit/serve/test_adapters.py::test_an_adapter_is_loaded_and_unloaded_by_its_name": "adapter_dir",
    "tests/unit/export/test_export_device.py::test_weights_are_merged_where_it_was_asked_for": "export_device",
    _PLAN + "test_the_processor_is_used_on_request": "use_cpu",
    _PLAN + "test_tf32_is_switched": "tf32",
    _PLAN + "test_processes_talk_through_the_backend_that_was_asked_for": "ddp_backend",
    _PLAN + "test_processes_wait_for_each_other_as_long_as_was_said": "ddp_timeout",
    "tests/unit/train/test_half_precision.py::test_steps_that_overflow_are_left_out": "fp16",
    "tests/e2e/test_losses.py::test_the_loss_of_a_run_is_the_one_that_was_asked_for": (
        "use_dft_loss use_eaft_loss eaft_alpha label_smoothing_factor"
    ),
    _ARGUMENTS + "test_the_number_of_steps": "num_train_epochs max_steps dataloader_drop_last",
    _ARGUMENTS + "test_the_learning_rate_follows_its_schedule": (
        "learning_rate lr_scheduler_type lr_scheduler_kwargs warmup_steps"
    ),
    _ARGUMENTS + "test_the_optimizer_has_the_values_that_were_asked_for": (
        "optim optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon"
    ),
    _ARGUMENTS + "test_the_gradient_is_clipped": "max_grad_norm",
    _ARGUMENTS + "test_the_data_seed_alone_decides_the_order": "data_seed",
    _ARGUMENTS + "test_rows_can_be_taken_in_their_order": "disable_shuffling",
    _ARGUMENTS + "test_rows_of_similar_length_come_together": "train_sampling_strategy",
    _ARGUMENTS + "test_loading_rows_in_other_processes_changes_nothing": (
        "dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers"
    ),
    _ARGUMENTS + "test_memory_is_pinned_for_a_gpu": "dataloader_pin_memory",
    _ARGUMENTS + "test_noise_is_added_in_training_only": "neftune_noise_alpha",
    _ARGUMENTS + "test_the_device_cache_is_emptied": "torch_empty_cache_steps",
    _ARGUMENTS + "test_memory_is_measured_on_request": "skip_memory_metrics",
    _ARGUMENTS + "test_full_determinism_forbids_other_algorithms": "full_determinism",
    _ARGUMENTS + "test_the_model_is_compiled_on_request": "torch_compile torch_compile_backend torch_compile_mode",
    _ARGUMENTS + "test_when_the_log_is_written": "logging_strategy logging_steps logging_first_step",
    _ARGUMENTS + "test_transformers_talks_as_loud_as_it_is_told": "log_level",
    _ARGUMENTS + "test_transformers_talks_on_other_processes_as_it_is_told": "log_level_replica log_on_each_node",
    _ARGUMENTS + "test_the_first_process_of_every_machine_may_save": "save_on_each_node",
    _ARGUMENTS + "test_a_service_is_told_the_names_of_the_run": (
        "run_name project trackio_space_id trackio_bucket_id trackio_static_space_id"
    ),
    _ARGUMENTS + "test_tokens_per_second_without_padding": "include_effective_tokens_per_second",
    "tests/e2e/test_throughput.py::test_mfu_is_told_where_the_peak_is_known": "peak_tflops",
    _EVALUATION + "test_when_evaluation_runs": "do_eval eval_strategy eval_steps eval_delay eval_on_start",
    _EVALUATION + "test_the_batches_of_evaluation": "per_device_eval_batch_size",
    _EVALUATION + "test_evaluation_may_halve_the_weights": "bf16_full_eval fp16_full_eval",
    _EVALUATION + "test_only_the_newest_checkpoints_are_kept": "save_total_limit",
    _EVALUATION + "test_a_checkpoint_without_the_optimizer_is_smaller_and_says_so": "save_only_model",
    _EVALUATION + "test_what_the_best_model_is_can_be_turned_round": "greater_is_better",
    _EVALUATION + "test_a_resumed_epoch_may_begin_again": "ignore_data_skip",
    _EVALUATION + "test_patience_may_be_counted_on": "restore_callback_states_from_checkpoint",
    _ARGUMENTS + "test_watching_every_module_stops_at_the_first_overflow": "debug",
    _ARGUMENTS + "test_settings_of_ddp_reach_it": (
        "ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph"
    ),
    _EXACT + "test_the_same_run_twice_gives_the_same_bits": "seed",
    _EXACT + "test_a_resumed_run_gives_the_bits_of_one_that_never_stopped": (
        "resume_from_checkpoint save_strategy save_steps"
    ),
    _EXACT + "test_packing_changes_neither_loss_nor_gradient": "packing neat_packing",
    _EXACT + "test_accumulation_changes_nothing": "per_device_train_batch_size gradient_accumulation_steps",
    _CHOICE + "test_every_answer_is_that_of_a_script_by_hand": "task task_dir n_shot",
    _CHOICE + "test_the_size_of_a_batch_changes_nothing": "batch_size",
    _CHOICE + "test_results_are_written_into_a_new_folder": "save_dir",
    "tests/unit/evaluate/test_fewshot.py::test_the_texts_are_those_of_the_field": "lang",
    "tests/unit/data/sources/test_hub.py::test_files_of_a_benchmark_are_chosen_by_their_names": "download_mode",
    _EXPORT + "test_the_adapter_loads_in_plain_peft_and_the_merged_model_equals_it": "export_dir",
    _EXPORT + "test_shards_have_the_size_that_was_asked_for": "export_size",
    _EXPORT + "test_the_dtype_of_an_export_can_be_chosen": "infer_dtype",
}


@cache
def _by_key() -> dict[str, str]:
    pairs = [(key, test) for test, keys in _SHOWN.items() for key in keys.split()]
    assert len(dict(pairs)) == len(pairs), "a key is named twice"
    return dict(pairs)


def shown_by(key: str) -> str:
    """The test, as pytest names it, that shows what a working key does."""
    return _by_key()[key]
