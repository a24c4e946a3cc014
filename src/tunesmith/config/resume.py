"""What may change between a run and its resume.

    frozen   what was trained so far would not fit: an error, unless `resume_allow` names the key
    live     holds from the step of the resume on; the run records the change
    ignored  names and places, that decide nothing about what is learnt

The global batch is frozen; how it is split (micro-batch, accumulation, processes) is not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tunesmith.config.keys import all_keys

if TYPE_CHECKING:
    from tunesmith.config.run_config import RunConfig

__all__ = ["Policy", "policy_of", "resume_values"]

Policy: TypeAlias = Literal["frozen", "live", "ignored"]

_FROZEN = """
model_name_or_path adapter_name_or_path adapter_folder model_revision upcast_layernorm train_from_scratch
resize_vocab add_tokens add_special_tokens new_special_tokens_config init_special_tokens rope_scaling rope_factor
rope_factors shift_attn moe_aux_loss_coef mixture_of_depths mixture_of_depths_capacity
dataset cutoff_len on_too_long streaming buffer_size mix_strategy interleave_probs max_samples val_size packing
neat_packing on_bad_row on_bad_media
image_max_pixels image_min_pixels video_max_pixels video_min_pixels video_fps video_maxlen audio_sampling_rate
image_do_pan_and_scan crop_to_patches
template train_on_prompt mask_history train_turns loss_weights tool_format default_system enable_thinking
preserve_thinking
finetuning_type pure_bf16 freeze_trainable_layers freeze_trainable_modules freeze_extra_modules additional_target
lora_alpha lora_dropout lora_rank lora_target use_rslora use_dora create_new_adapter init_lora_weights lora_init_rows
pissa_init pissa_iter target_parameters layers_to_transform rank_pattern alpha_pattern peft_type peft_settings
freeze_vision_tower freeze_multi_modal_projector freeze_language_model
module_dropout oft_rank oft_block_size oft_target use_llama_pro
stage use_dft_loss use_asft_loss asft_alpha use_eaft_loss eaft_alpha
pref_beta pref_ftx pref_bco_weight pref_loss pref_loss_weights pref_divergence pref_divergence_alpha use_wpo
dpo_label_smoothing simpo_gamma alphapo_alpha cpo_alpha discopop_tau ld_alpha center_rewards_coefficient
kto_loss kto_chosen_weight kto_rejected_weight
ref_model ref_model_adapters ref_model_quantization_bit
use_galore galore_target galore_rank galore_proj_type use_apollo apollo_target apollo_rank apollo_proj apollo_proj_type
apollo_scale_type use_badam badam_mode badam_start_block badam_switch_mode badam_update_ratio badam_mask_mode
badam_switch_interval use_adam_mini use_muon lr_groups loraplus_lr_ratio loraplus_lr_embedding
disable_shuffling optim label_smoothing_factor bf16 fp16 neftune_noise_alpha seed data_seed
dataloader_drop_last train_sampling_strategy
quantization_method quantization_bit quantization_type double_quantization qat fp8 fp8_backend
"""

_LIVE = """
fp8_enable_fsdp_float8_all_gather bnb_4bit_quant_storage
flash_attn fast_path prefix_sharing precompute_ref_log_probs use_unsloth_gc enable_liger_kernel
disable_gradient_checkpointing gradient_checkpointing_mode use_reentrant_gc trust_remote_code
eval_dataset eval_on_each_dataset max_bad_rows
compute_accuracy early_stopping_steps
do_sample temperature top_p top_k max_length max_new_tokens repetition_penalty skip_special_tokens
optimizer_in_bwd
galore_update_interval galore_scale galore_layerwise apollo_update_interval apollo_scale apollo_layerwise badam_verbose
per_device_train_batch_size gradient_accumulation_steps num_train_epochs max_steps learning_rate lr_scheduler_type
lr_scheduler_kwargs warmup_steps optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon max_grad_norm
bf16_full_eval fp16_full_eval tf32 torch_compile torch_compile_backend torch_compile_mode torch_empty_cache_steps
logging_strategy logging_steps logging_first_step eval_strategy eval_steps eval_delay per_device_eval_batch_size
eval_on_start save_only_model save_strategy save_steps save_on_each_node save_total_limit load_best_model_at_end
metric_for_best_model greater_is_better ignore_data_skip restore_callback_states_from_checkpoint full_determinism
use_cpu dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout debug
do_train do_eval do_predict predict_with_generate eval_generate_samples log_generations
async_save on_disk_full on_nonfinite stop_grace
"""

_IGNORED = """
quantization_device_map
cache_dir infer_dtype hf_hub_token ms_hub_token om_hub_token print_param_status
dataset_dir offline overwrite_cache preprocessing_batch_size preprocessing_num_workers tokenized_path
template_check media_dir
strict_keys include_effective_tokens_per_second peak_tflops overwrite_output_dir memory_probe logging_dir warmup_ratio
evaluation_strategy group_by_length no_cuda per_gpu_train_batch_size per_gpu_eval_batch_size adafactor
gradient_checkpointing gradient_checkpointing_kwargs activation_checkpointing activation_checkpointing_kwargs
use_liger_kernel resume_allow
infer_backend vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config
sglang_maxlen sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend
remote_url remote_model remote_prompts remote_timeout remote_retries
use_kv_cache kv_cache_gb max_batch_requests max_queued_requests prefill_chunk_tokens
adapters adapter_dir task task_dir batch_size lang n_shot save_dir download_mode
export_dir export_size export_device merge_method merge_weights merge_density plot_loss
output_dir log_on_each_node log_level log_level_replica report_to run_name project trackio_space_id trackio_bucket_id
trackio_static_space_id skip_memory_metrics resume_from_checkpoint
disk_reserve_gb push_to_hub hub_model_id hub_token hub_private_repo hub_strategy hub_always_push hub_revision
push_to_hub_model_id push_to_hub_organization push_to_hub_token
"""

_POLICIES: dict[str, Policy] = {
    **dict.fromkeys(_FROZEN.split(), "frozen"),
    **dict.fromkeys(_LIVE.split(), "live"),
    **dict.fromkeys(_IGNORED.split(), "ignored"),
}


def policy_of(key: str) -> Policy | None:
    """What a change of this key means on a resume; None for a key that has no effect in any run."""
    return _POLICIES.get(key)


def resume_values(config: RunConfig) -> dict[str, Any]:
    """The values that a checkpoint records, as plain JSON: those of all keys that are not ignored, defaults too."""
    return {
        name: _plain(config.train.value(name) if key.passed_on else getattr(getattr(config, key.section), name))
        for name, key in all_keys().items()
        if policy_of(name) in ("frozen", "live") and not key.mark.secret
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
