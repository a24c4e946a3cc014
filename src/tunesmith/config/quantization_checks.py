"""Rules about quantization: what can be quantized, what trains on it, and what goes with arithmetic in eight bits."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.quantizer_facts import ON_THE_FLY, bits_of, quantizer_of
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem

__all__ = ["QUANTIZATION_CHECKS", "method_kinds"]

QUANTIZATION_CHECKS: list[Check] = []
_rule = rules_into(QUANTIZATION_CHECKS)
_TRAIN = ("train",)
_USES = ("chat", "api", "predict", "score", "eval")
_LOADS = (*_TRAIN, *_USES, "export")
_RANDOM = ("default", "gaussian")
"""Ways in which the matrices of LoRA begin that ask nothing of the weights, not even their type."""
_METHOD = ("finetuning_type", "peft_type", "use_dora", "use_rslora", "pissa_init", "init_lora_weights", "use_llama_pro")
_HALF_OF_IT = ("bf16_full_eval", "fp16_full_eval")


def method_kinds(config: RunConfig) -> dict[str, str]:
    """What of the method a quantized base has to have a branch for -> the key that asks for it."""
    method = config.method
    kinds: dict[str, str] = {method.finetuning_type: "finetuning_type"}
    if method.finetuning_type == "peft":
        kinds = {(method.peft_type or "").lower(): "peft_type"}
    elif method.finetuning_type == "lora":
        begins = method.begins_as not in _RANDOM
        asked = {
            "dora": ("use_dora", method.use_dora),
            "rslora": ("use_rslora", method.use_rslora),
            method.begins_as: ("pissa_init" if method.pissa_init else "init_lora_weights", begins),
        }
        kinds |= {kind: key for kind, (key, given) in asked.items() if given}
    if method.use_llama_pro and method.finetuning_type in ("lora", "freeze"):
        kinds["added blocks"] = "use_llama_pro"
    return kinds


@_rule(_LOADS, "quantization_method", "quantization_bit", "quantization_type")
def _there_is_such_a_quantizer(config: RunConfig) -> Iterator[Problem]:
    asked = config.quantization
    if asked.quantization_bit is None or quantizer_of(config):
        return
    method, bits = asked.quantization_method, bits_of(asked.quantization_method)
    where, got = config.place("quantization_bit"), f"quantization_bit: {asked.quantization_bit}"
    if bits:
        what, fix = f"{method} has no such number of bits", f"quantization_bit: {', '.join(f'{b:g}' for b in bits)}"
    else:
        what = f'"quantization_method: {method}" names a kind of checkpoint, and quantizes nothing while loading'
        fix = "quantization_method: bnb, hqq or torchao; for a checkpoint of that kind leave both keys out"
    yield Problem("E-QUANT-001", what, where, got, fix)


@_rule(_LOADS, "quantization_method", "quantization_bit", "quantization_type")
def _floats_of_eight_bits_are_torchaos(config: RunConfig) -> Iterator[Problem]:
    facts = quantizer_of(config)
    if facts and config.quantization.quantization_type == "fp8" and facts.name != "torchao_fp8":
        what = f'"quantization_type: fp8" is of torchao with 8 bits, and the base is quantized with {facts.name}'
        fix = "quantization_method: torchao with quantization_bit: 8, or quantization_type: nf4"
        yield contradiction(config, "quantization_type", what, fix)


@_rule(_TRAIN, "quantization_method", "quantization_bit", *_METHOD)
def _adapters_train_on_it(config: RunConfig) -> Iterator[Problem]:
    facts = quantizer_of(config)
    if facts is None or not config.train.do_train:
        return
    for kind, key in method_kinds(config).items():
        if not facts.can_train(kind):
            others = [name for name, one in ON_THE_FLY.items() if one.can_train(kind)]
            what = f"{kind} does not train on weights that are quantized with {facts.name}"
            if kind in ("full", "freeze"):
                fix = "finetuning_type: lora, or leave quantization_bit out (qat: int8 trains weights to be quantized)"
            elif others:
                fix = f"quantize with {', '.join(others[:4])}, or leave quantization_bit out"
            elif kind == "pissa":
                fix = "tunesmith convert pissa-init, and train its base and adapter; or init_lora_weights: loftq"
            elif key == "init_lora_weights":
                fix = "init_lora_weights: loftq, or leave quantization_bit out"
            else:
                fix = f"leave quantization_bit out, or {key} out"
            yield Problem("E-QUANT-002", what, config.place(key), fix=fix)


@_rule(_TRAIN, "quantization_method", "quantization_bit", *_METHOD)
def _rounding_takes_something(config: RunConfig) -> Iterator[Problem]:
    if config.method.looks_at_rounding and config.train.do_train and config.quantization.quantization_bit is None:
        what = '"init_lora_weights: loftq" begins with what quantizing takes from the weights, and nothing is quantized'
        yield contradiction(config, "init_lora_weights", what, "quantization_bit: 4; or init_lora_weights: pissa")


@_rule(_TRAIN, "quantization_bit", "quantization_device_map")
def _training_stays_on_its_device(config: RunConfig) -> Iterator[Problem]:
    if config.quantization.quantization_device_map and config.train.do_train:
        what = '"quantization_device_map" spreads a model over devices to generate, and each process trains on one'
        yield contradiction(config, "quantization_device_map", what, "leave it out")


@_rule(_LOADS, "quantization_method", "quantization_bit", "quantization_device_map")
def _four_bits_of_bitsandbytes_spread(config: RunConfig) -> Iterator[Problem]:
    facts = quantizer_of(config)
    if config.quantization.quantization_device_map and facts and facts.name != "bnb4":
        what = f'"quantization_device_map" is for bitsandbytes with 4 bits, and the base is quantized with {facts.name}'
        yield contradiction(config, "quantization_device_map", what, "leave it out")


@_rule((*_TRAIN, *_USES), "quantization_bit", "adapter_name_or_path", "create_new_adapter")
def _nothing_is_merged_into_it(config: RunConfig) -> Iterator[Problem]:
    if config.quantization.quantization_bit is None:
        return
    fix = "merge them first with tunesmith export, without quantization_bit, and name the result as the model"
    if len(config.model.adapter_name_or_path) > 1:
        what = "all adapters but the last are merged into the weights, and these are quantized"
        yield contradiction(config, "adapter_name_or_path", what, fix)
    elif config.verb == "train" and config.model.adapter_name_or_path and config.method.create_new_adapter:
        what = '"create_new_adapter" merges the adapter into the weights, and these are quantized'
        yield contradiction(config, "create_new_adapter", what, fix)


@_rule(("export",), "quantization_bit")
def _merging_wants_whole_weights(config: RunConfig) -> Iterator[Problem]:
    if config.quantization.quantization_bit is not None:
        what = '"export" writes whole weights, and merging into quantized ones would round them again'
        fix = "leave quantization_bit out: an adapter that was trained on quantized weights fits the whole ones"
        yield contradiction(config, "quantization_bit", what, fix)


@_rule((*_TRAIN, *_USES), "quantization_bit", "train_from_scratch", "infer_backend", *_HALF_OF_IT)
def _a_base_is_read_and_kept(config: RunConfig) -> Iterator[Problem]:
    if config.quantization.quantization_bit is None:
        return
    if config.verb == "train":
        if config.model.train_from_scratch:
            what = '"train_from_scratch" gives random weights, and adapters want ones that were trained'
            yield contradiction(config, "train_from_scratch", what, "leave quantization_bit out")
        for key in (key for key in _HALF_OF_IT if config.train.value(key)):
            what = f'"{key}" changes the type of all weights, and quantized ones have their own'
            yield contradiction(config, key, what, "bf16: true has the same arithmetic in training and evaluation")
    elif config.engine.infer_backend in ("vllm", "sglang"):
        name = config.engine.infer_backend
        what = f'"quantization_bit" quantizes models of infer_backend: huggingface, and {name} loads its own'
        fix = f'{name}_config: {{"quantization": "bitsandbytes"}} in its place'
        yield contradiction(config, "quantization_bit", what, fix)


# --- weights that are trained to be quantized, and arithmetic in eight bits ---


@_rule(_TRAIN, "qat", "quantization_bit", "finetuning_type", "fp8", "pure_bf16", "optimizer_in_bwd")
def _what_is_trained_is_rounded(config: RunConfig) -> Iterator[Problem]:
    if config.quantization.qat is None or not config.train.do_train:
        return
    if config.quantization.quantization_bit is not None:
        what = '"qat" trains weights that are rounded later, and those of "quantization_bit" are rounded already'
        yield contradiction(config, "qat", what, "keep one of them")
    if config.method.finetuning_type not in ("full", "freeze"):
        what = f'"qat" rounds what is trained, and {config.method.finetuning_type} leaves the weights as they are'
        fix = "finetuning_type: full; or quantization_method: torchao with quantization_bit: 8, for adapters"
        yield Problem("E-QUANT-002", what, config.place("qat"), fix=fix)
    if config.launch.fp8:
        yield contradiction(config, "qat", '"qat" and "fp8" both replace the linear layers', "keep one of them")


@_rule(_TRAIN, "fp8", "fp8_backend", "fp8_enable_fsdp_float8_all_gather", "quantization_bit", "fp16")
def _eight_bits_have_their_place(config: RunConfig) -> Iterator[Problem]:
    launch = config.launch
    if not launch.fp8:
        if launch.fp8_enable_fsdp_float8_all_gather:
            what = '"fp8_enable_fsdp_float8_all_gather" needs fp8'
            yield Problem("E-CONFIG-022", what, config.place("fp8_enable_fsdp_float8_all_gather"), fix="fp8: true")
        return
    if launch.fp8_backend not in ("auto", "torchao"):
        what = f'"fp8_backend: {launch.fp8_backend}" changes the layers behind the back of the Trainer'
        yield Problem("E-QUANT-003", what, config.place("fp8_backend"), fix="fp8_backend: torchao, or auto")
    if config.quantization.quantization_bit is not None:
        what = '"fp8" rounds weights at every step, and those of "quantization_bit" are rounded already'
        yield contradiction(config, "fp8", what, "keep one of them")
    if config.train.value("fp16"):
        yield contradiction(config, "fp8", '"fp8" goes with bfloat16, not with fp16', "bf16: true")
