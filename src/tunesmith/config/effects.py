"""Keys without effect under the chosen verb, stage or method."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tunesmith.config.effect_rule import Rule, keys_of, trains
from tunesmith.config.engine_checks import sends_messages
from tunesmith.config.generation_checks import answers_in_training
from tunesmith.config.keys import all_keys
from tunesmith.config.objective_effects import objective_rules
from tunesmith.config.quantizer_facts import quantizer_of
from tunesmith.config.run_config import RunConfig
from tunesmith.config.verbs import LOOKING

__all__ = ["Rule", "idle_keys", "rules", "without_effect"]


def without_effect(config: RunConfig) -> dict[str, Rule]:
    """The keys that the user wrote and that change nothing here, each with the first rule that says so."""
    found: dict[str, Rule] = {}
    if config.verb == "show":
        return found
    for rule in rules():
        named = [name for name in config.values if name in rule.keys and name not in found]
        if named and not rule.holds(config):
            found |= dict.fromkeys(named, rule)
    return found


def idle_keys(config: RunConfig) -> frozenset[str]:
    """All keys, given or not, that change nothing here, whatever their value. `val_size` leaves rows out even so."""
    return frozenset(key for rule in rules() if not rule.holds(config) for key in rule.keys) - {"val_size"}


def _evaluates(config: RunConfig) -> bool:
    return config.train.do_eval or config.train.do_predict or bool(config.train.value("eval_on_start"))


def _harness(config: RunConfig) -> bool:
    return str(config.evaluate.task).startswith("lm_eval:")


def _is_bnb4(config: RunConfig) -> bool:
    facts = quantizer_of(config)
    return facts is not None and facts.name == "bnb4"


def _predicts(config: RunConfig) -> bool:
    asks = config.train.do_predict or answers_in_training(config)
    return config.verb in ("chat", "api", "predict") or (config.verb == "train" and asks)


def _draws(config: RunConfig) -> bool:
    """While it is trained a model is asked for the likeliest tokens, unless the user wrote otherwise."""
    only_in_training = config.verb == "train" and not config.train.do_predict
    return config.generate.do_sample and ("do_sample" in config.values or not only_in_training)


def _section(*names: str) -> frozenset[str]:
    return frozenset(key.name for key in all_keys().values() if key.section in names)


# Keys of training that say what a model is, and those that other verbs read too.
_SHARED = "stage finetuning_type strict_keys seed output_dir use_cpu no_cuda cutoff_len dataset_dir"
_MODEL_IN_TRAINING = (
    "enable_liger_kernel disable_gradient_checkpointing gradient_checkpointing_mode use_unsloth_gc use_reentrant_gc "
    "upcast_layernorm train_from_scratch print_param_status shift_attn "
    "moe_aux_loss_coef"
)
_EIGHT_BITS = "qat fp8 fp8_backend fp8_enable_fsdp_float8_all_gather"
_MASK = "train_on_prompt mask_history train_turns loss_weights template_check"
_LORA = (
    "lora_rank lora_alpha lora_dropout use_rslora use_dora init_lora_weights lora_init_rows pissa_init pissa_iter "
    "target_parameters rank_pattern alpha_pattern"
)
_OFT = "module_dropout oft_rank oft_block_size oft_target"
_ADAPTER = "additional_target create_new_adapter adapter_folder layers_to_transform peft_settings"
_FREEZE = "freeze_trainable_modules freeze_extra_modules"
_OPTIMIZERS = {
    "use_galore": "galore_target galore_rank galore_update_interval galore_scale galore_proj_type galore_layerwise",
    "use_apollo": (
        "apollo_target apollo_rank apollo_update_interval apollo_scale apollo_proj apollo_proj_type apollo_scale_type "
        "apollo_layerwise"
    ),
    "use_badam": (
        "badam_mode badam_start_block badam_switch_mode badam_switch_interval badam_update_ratio badam_mask_mode "
        "badam_verbose"
    ),
}
_EVALUATION = (
    "eval_dataset eval_steps eval_delay eval_on_each_dataset per_device_eval_batch_size per_gpu_eval_batch_size "
    "compute_accuracy bf16_full_eval fp16_full_eval"
)
# Keys of data that say how a model is trained on it.
_TRAINED = "mix_strategy interleave_probs val_size packing neat_packing streaming buffer_size"
_CACHE = "use_kv_cache kv_cache_gb"
_BATCH = "max_batch_requests prefill_chunk_tokens"

_OF_HF = "use_kv_cache kv_cache_gb prefill_chunk_tokens flash_attn rope_scaling rope_factor rope_factors"
_OF_REMOTE = "remote_url remote_model remote_prompts remote_timeout remote_retries"
_OF_VLLM = "vllm_maxlen vllm_gpu_util vllm_enforce_eager vllm_max_lora_rank vllm_config"
_OF_SGLANG = "sglang_maxlen sglang_mem_fraction sglang_tp_size sglang_config sglang_lora_backend"
_HERE = "infer_dtype max_batch_requests max_queued_requests"

_HUB = (
    "hub_model_id hub_token hub_private_repo hub_strategy hub_always_push hub_revision push_to_hub_model_id "
    "push_to_hub_organization push_to_hub_token"
)


def _engine_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            keys_of(_OF_HF),
            lambda c: trains(c) or c.verb == "export" or c.engine.infer_backend == "huggingface",
            "only with infer_backend: huggingface",
            of_verb=True,
        ),
        Rule(keys_of(_OF_REMOTE), lambda c: c.engine.infer_backend == "remote", "only with infer_backend: remote"),
        Rule(
            keys_of(_OF_VLLM), lambda c: c.engine.infer_backend == "vllm", "only with infer_backend: vllm", of_verb=True
        ),
        Rule(
            keys_of(_OF_SGLANG),
            lambda c: c.engine.infer_backend == "sglang",
            "only with infer_backend: sglang",
            of_verb=True,
        ),
        Rule(
            _section("model", "template") - keys_of("default_system") | keys_of(_HERE),
            lambda c: not sends_messages(c),
            "the server has the model and its template",
            of_verb=True,
        ),
    )


def _optimizer_rules() -> tuple[Rule, ...]:
    def on(switch: str) -> Callable[[RunConfig], bool]:
        return lambda c: bool(getattr(c.optimizer, switch))

    return (
        *(Rule(keys_of(keys), on(switch), f"only with {switch}: true") for switch, keys in _OPTIMIZERS.items()),
        Rule(
            keys_of("badam_update_ratio badam_mask_mode"),
            lambda c: c.optimizer.badam_mode == "ratio",
            "only with badam_mode: ratio",
        ),
        Rule(
            keys_of("badam_start_block badam_switch_mode badam_verbose"),
            lambda c: c.optimizer.badam_mode == "layer",
            "only with badam_mode: layer",
        ),
        Rule(
            keys_of("loraplus_lr_embedding"),
            lambda c: c.optimizer.loraplus_lr_ratio is not None,
            "only with loraplus_lr_ratio",
        ),
    )


@cache
def rules() -> tuple[Rule, ...]:
    """All rules; the first that fails for a key is the one that is told."""
    return (*_rules_of_verbs(), *_rules_of_settings())


def _rules_of_verbs() -> tuple[Rule, ...]:
    data = _section("data")
    keys = keys_of(f"{_MASK} {_MODEL_IN_TRAINING} {_EIGHT_BITS}")
    training = _section("method", "objective", "optimizer", "train", "track") | keys
    return (
        Rule((training | keys_of(_TRAINED)) - keys_of(_SHARED), trains, "only in training", of_verb=True),
        Rule(
            keys_of("max_samples offline"),
            lambda c: trains(c) or c.verb in ("predict", "score", "eval"),
            "only in training, prediction, score and eval",
            of_verb=True,
        ),
        Rule(
            data - keys_of(f"{_SHARED} max_samples offline"),
            lambda c: trains(c) or c.verb in ("predict", "score"),
            "only in training, prediction and score",
            of_verb=True,
        ),
        Rule(
            keys_of("dataset"),
            lambda c: c.verb not in ("predict", "score") or not c.data.eval_dataset,
            "eval_dataset is what is read",
            of_verb=True,
        ),
        Rule(_section("export"), lambda c: c.verb == "export", "only in export", of_verb=True),
        Rule(keys_of("infer_dtype"), lambda c: not trains(c) or c.verb == "stats", "not in training", of_verb=True),
        Rule(_section("generate"), _predicts, "only in chat, api and prediction", of_verb=True),
        Rule(
            keys_of(_CACHE),
            lambda c: _predicts(c) or c.verb == "eval",
            "only in chat, api, eval and prediction",
            of_verb=True,
        ),
        Rule(
            keys_of(_BATCH),
            lambda c: _predicts(c) or c.verb in ("score", "eval"),
            "only in chat, api, eval, score and prediction",
            of_verb=True,
        ),
        Rule(
            keys_of("max_queued_requests"),
            lambda c: not trains(c) and c.verb not in ("export", "score"),
            "not in training, export and score",
            of_verb=True,
        ),
        Rule(
            _section("engine") - keys_of(f"{_CACHE} {_BATCH} max_queued_requests"),
            lambda c: not trains(c) and c.verb != "export",
            "not in training and export",
            of_verb=True,
        ),
        *_engine_rules(),
        Rule(_section("evaluate"), lambda c: c.verb == "eval", "only in eval", of_verb=True),
    )


def _method_rules() -> tuple[Rule, ...]:
    def of(*kinds: str) -> Callable[[RunConfig], bool]:
        return lambda c: c.method.finetuning_type in kinds

    return (
        Rule(keys_of(_LORA), of("lora"), "only with finetuning_type: lora"),
        Rule(keys_of(_OFT), of("oft"), "only with finetuning_type: oft"),
        Rule(keys_of(_ADAPTER), of("lora", "oft", "peft"), "only with finetuning_type: lora, oft or peft"),
        Rule(keys_of("peft_type"), of("peft"), "only with finetuning_type: peft"),
        Rule(keys_of(_FREEZE), of("freeze"), "only with finetuning_type: freeze"),
        Rule(
            keys_of("lora_target"),
            lambda c: of("lora", "peft")(c) or (of("oft")(c) and "oft_target" not in c.user_keys),
            "only with finetuning_type: lora or peft, and with oft where oft_target is left out",
        ),
        Rule(
            keys_of("freeze_trainable_layers"),
            lambda c: of("freeze")(c) or c.method.use_llama_pro,
            "only with finetuning_type: freeze, or use_llama_pro",
        ),
        Rule(
            keys_of("freeze_trainable_modules"),
            lambda c: not c.method.use_llama_pro or c.method.freeze_trainable_modules == ("all",),
            "use_llama_pro trains whole blocks",
        ),
        Rule(keys_of("use_llama_pro"), of("freeze", "lora"), "only with finetuning_type: freeze or lora"),
        Rule(keys_of("pissa_iter"), lambda c: c.method.begins_as == "pissa", "only with pissa_init: true"),
        Rule(
            keys_of("lora_init_rows"),
            lambda c: c.method.looks_at_rows,
            "only with init_lora_weights: eva, corda, lora_ga",
        ),
    )


def _quantization_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            keys_of("quantization_method quantization_type quantization_device_map"),
            lambda c: c.quantization.quantization_bit is not None,
            "only with quantization_bit",
        ),
        Rule(
            keys_of("quantization_type"),
            lambda c: _is_bnb4(c) or c.quantization.quantization_method == "torchao",
            "only with quantization_method: bnb and quantization_bit: 4, or torchao",
        ),
        Rule(
            keys_of("double_quantization bnb_4bit_quant_storage"),
            _is_bnb4,
            "only with quantization_method: bnb and quantization_bit: 4",
        ),
        Rule(keys_of("fp8_backend"), lambda c: c.launch.fp8, "only with fp8: true"),
        Rule(
            keys_of("fp8_enable_fsdp_float8_all_gather"),
            lambda c: bool(c.train.value("fsdp")) or not c.launch.fp8,  # without fp8 it is an error
            "only with fsdp",
        ),
    )


def _model_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            keys_of("add_special_tokens"),
            lambda c: c.model.new_special_tokens_config is None,
            "new_special_tokens_config takes its place",
        ),
        Rule(keys_of("init_special_tokens"), lambda c: c.model.adds_tokens, "no tokens are added"),
        Rule(
            keys_of("flash_attn"),
            lambda c: not (c.model.shift_attn and trains(c)),
            "shift_attn attends by SDPA, in groups",
        ),
        Rule(
            keys_of("use_reentrant_gc"),
            lambda c: c.model.moe_aux_loss_coef is None,
            "with moe_aux_loss_coef it is the kind that is not re-entrant",
        ),
        Rule(
            keys_of("mixture_of_depths_capacity"),
            lambda c: c.model.mixture_of_depths == "convert",
            "only with mixture_of_depths: convert",
        ),
        Rule(
            keys_of("use_kv_cache kv_cache_gb"),
            lambda c: c.model.mixture_of_depths is None,
            "a mixture of depths reads everything again for each token",
        ),
        Rule(keys_of("rope_factor"), lambda c: c.model.rope_scaling is not None, "only with rope_scaling"),
        Rule(keys_of("rope_factors"), lambda c: c.model.rope_scaling == "longrope", "only with rope_scaling: longrope"),
        Rule(
            keys_of("use_reentrant_gc gradient_checkpointing_mode use_unsloth_gc"),
            lambda c: not c.model.disable_gradient_checkpointing,
            "disable_gradient_checkpointing is on",
        ),
    )


def _data_and_stage_rules() -> tuple[Rule, ...]:
    return (
        Rule(_section("template"), lambda c: c.objective.stage != "pt" or not trains(c), "not in stage pt"),
        Rule(keys_of("buffer_size"), lambda c: c.data.streaming, "only with streaming: true"),
        Rule(
            keys_of("overwrite_cache"),
            lambda c: not c.data.streaming or bool(c.data.eval_dataset),
            "a stream is not kept",
        ),
        Rule(
            keys_of("dataloader_num_workers dataloader_prefetch_factor dataloader_persistent_workers"),
            lambda c: not c.data.streaming or _evaluates(c),
            "processes of preprocessing_num_workers prepare a stream",
        ),
        Rule(keys_of("dataloader_drop_last"), lambda c: not c.data.streaming, "the batches of a stream are all full"),
        Rule(
            keys_of("train_on_prompt mask_history train_turns"),
            lambda c: c.objective.stage in ("pt", "sft") or not trains(c),
            "the answers are what is trained on in rm, dpo and kto, and no prompt is",
        ),
        *objective_rules(),
        Rule(
            keys_of("max_bad_rows"),
            lambda c: "skip" in (c.data.on_bad_row, c.data.on_bad_media),
            "only with on_bad_row: skip or on_bad_media: skip",
        ),
        Rule(keys_of("media_dir on_bad_media"), lambda c: c.objective.stage != "pt", "documents of pt are texts"),
        Rule(
            keys_of("on_too_long"),
            lambda c: c.objective.stage != "pt" or not c.data.packs("pt"),
            "packing cuts documents into blocks and drops nothing",
        ),
    )


def _event_rules() -> tuple[Rule, ...]:
    return (
        Rule(
            keys_of(_EVALUATION),
            lambda c: c.verb in (*LOOKING, "predict", "score") or _evaluates(c),
            "nothing asks for evaluation",
        ),
        Rule(
            keys_of("val_size"),
            lambda c: c.verb in LOOKING or _evaluates(c),
            "nothing asks for evaluation, so these rows are merely left out",
        ),
        Rule(
            keys_of("predict_with_generate"),
            lambda c: c.train.do_predict or answers_in_training(c),
            "only with do_predict: true, or where something is evaluated",
        ),
        Rule(
            keys_of("eval_generate_samples log_generations"),
            answers_in_training,
            "only with predict_with_generate: true, where something is evaluated",
        ),
        Rule(keys_of(_HUB), lambda c: bool(c.train.value("push_to_hub")), "only with push_to_hub: true"),
        Rule(keys_of("top_p top_k temperature"), _draws, "only with do_sample: true"),
        Rule(keys_of("max_length"), lambda c: not c.generate.max_new_tokens, "max_new_tokens counts"),
        Rule(
            keys_of("eval_steps"), lambda c: c.train.value("eval_strategy") == "steps", "only with eval_strategy: steps"
        ),
        Rule(
            keys_of("save_steps"), lambda c: c.train.value("save_strategy") == "steps", "only with save_strategy: steps"
        ),
    )


def _rules_of_settings() -> tuple[Rule, ...]:
    return (
        Rule(keys_of("lang download_mode"), lambda c: not _harness(c), "tasks of lm_eval bring their own"),
        Rule(keys_of("offline"), lambda c: c.verb != "eval" or not _harness(c), "HF_DATASETS_OFFLINE says so there"),
        Rule(keys_of("merge_weights"), lambda c: c.export.merge_method != "in_order", "only with another merge_method"),
        Rule(
            keys_of("merge_density"),
            lambda c: c.export.merge_method in ("ties", "dare_linear", "dare_ties"),
            "only with merge_method: ties, dare_linear or dare_ties",
        ),
        Rule(_section("serve"), lambda c: c.verb == "api", "only in api", of_verb=True),
        *_method_rules(),
        *_quantization_rules(),
        *_optimizer_rules(),
        Rule(keys_of("adapter_folder"), lambda c: bool(c.model.adapter_name_or_path), "no adapter is given"),
        *_data_and_stage_rules(),
        *_model_rules(),
        *_event_rules(),
    )
