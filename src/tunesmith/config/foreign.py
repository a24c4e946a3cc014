"""Names that are no keys, with the key to write instead: other tools' names, and values that are derived."""

from __future__ import annotations

__all__ = ["DERIVED", "ELSEWHERE", "NEWER_NAMES"]

# Names that exist only in LLaMA-Factory's rewrite (v1), and what its released version (v0) calls them.
NEWER_NAMES: dict[str, str] = {
    "train_dataset": "dataset",
    "model": "model_name_or_path",
    "custom_chat_template": "template",
    "model_class": "stage (stage: rm trains a classifier head)",
    "init_config": "train_from_scratch or low_cpu_mem_usage",
    "peft_config": "finetuning_type with lora_rank, lora_target, ...",
    "kernel_config": "flash_attn",
    "quant_config": "quantization_method with quantization_bit",
    "sample_backend": "infer_backend",
    "micro_batch_size": "per_device_train_batch_size",
    "global_batch_size": "gradient_accumulation_steps (times per_device_train_batch_size and the number of devices)",
    "batching_strategy": "packing",
    "batching_workers": "preprocessing_num_workers or dataloader_num_workers",
    "enable_activation_checkpointing": "disable_gradient_checkpointing",
    "dist_config": "deepspeed or fsdp",
    "dp_size": "no key: it follows from the number of processes",
    "cp_size": "context_parallel_size",
    "cp_mode": "context_parallel_size",
    "mp_replicate_size": "fsdp_config",
    "mp_shard_size": "fsdp_config",
    "dist_timeout": "ddp_timeout",
    "optim_config": "optim",
    "lr_scheduler_config": "lr_scheduler_type with lr_scheduler_kwargs",
    "save_epochs": "save_strategy: epoch",
    "save_ckpt_as_hf": "save_only_model",
}

# Computed for every run and shown in its plan; what decides them can be set.
DERIVED: dict[str, str] = {
    "compute_dtype": "bf16, fp16 or pure_bf16 for training, infer_dtype for chat and export",
    "device_map": "use_cpu for training, export_device for export",
    "model_max_length": "cutoff_len",
    "block_diag_attn": "neat_packing",
    "megatron_bridge_args": "the keys of the backend plug-in `megatron`",
}

# What other tools call things, where the spelling alone would not lead to the key.
ELSEWHERE: dict[str, str] = {
    "adapter": "finetuning_type: lora",
    "adapter_path": "adapter_name_or_path",
    "base_model": "model_name_or_path",
    "chat_template": "template",
    "datasets": "dataset",
    "epochs": "num_train_epochs",
    "load_in_4bit": "quantization_bit: 4",
    "load_in_8bit": "quantization_bit: 8",
    "lora_r": "lora_rank",
    "lr": "learning_rate",
    "lr_scheduler": "lr_scheduler_type",
    "max_seq_len": "cutoff_len",
    "max_seq_length": "cutoff_len",
    "model_id": "model_name_or_path",
    "model_name": "model_name_or_path",
    "modules_to_save": "additional_target",
    "num_epochs": "num_train_epochs",
    "optimizer": "optim",
    "sample_packing": "packing",
    "sequence_len": "cutoff_len",
    "system_prompt": "default_system",
    "target_modules": "lora_target",
    "val_set_size": "val_size",
}
