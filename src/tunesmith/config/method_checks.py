"""Rules about which weights train: what does not go together is refused before anything is read."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.run_config import RunConfig
from tunesmith.config.tuners import TUNERS
from tunesmith.core.errors import Problem
from tunesmith.core.suggest import did_you_mean

__all__ = ["METHOD_CHECKS"]

METHOD_CHECKS: list[Check] = []
_rule = rules_into(METHOD_CHECKS)

_TRAIN = ("train",)
_ALL = ("train", "predict", "score", "eval", "preview", "chat", "api", "export")
_ADAPTERS = ("lora", "oft", "peft")


@_rule(_ALL, "adapter_name_or_path", "finetuning_type")
def _adapters_belong_to_a_method(config: RunConfig) -> Iterator[Problem]:
    if config.model.adapter_name_or_path and config.method.finetuning_type not in _ADAPTERS:
        what = (
            f'"adapter_name_or_path" goes with finetuning_type: lora, oft or peft, not {config.method.finetuning_type}'
        )
        fix = "finetuning_type: lora, or merge the adapter first (tunesmith export)"
        yield contradiction(config, "adapter_name_or_path", what, fix)


@_rule(_TRAIN, "finetuning_type", "peft_type")
def _the_kind_of_adapter_is_known(config: RunConfig) -> Iterator[Problem]:
    if config.method.finetuning_type != "peft":
        return
    name = (config.method.peft_type or "").lower()
    where, names = config.place("peft_type"), sorted(kind for kind, tuner in TUNERS.items() if not tuner.refused)
    if not name:
        what = '"finetuning_type: peft" needs "peft_type": which of PEFT\'s adapters'
        yield Problem("E-CONFIG-022", what, config.place("finetuning_type"), fix="one of: " + ", ".join(names))
    elif name not in TUNERS:
        fix = did_you_mean(name, names) or "one of: " + ", ".join(names)
        yield Problem("E-CONFIG-003", f'PEFT has no adapter "{name}"', where, name, fix)
    elif TUNERS[name].refused:
        yield contradiction(config, "peft_type", f"peft_type: {name} does not train here", str(TUNERS[name].refused))


@_rule(_TRAIN, "peft_type", "peft_settings", "adapter_name_or_path")
def _settings_without_a_default_are_given(config: RunConfig) -> Iterator[Problem]:
    tuner = TUNERS.get((config.method.peft_type or "").lower())
    if config.method.finetuning_type != "peft" or tuner is None or config.model.adapter_name_or_path:
        return
    for name in tuner.needs:
        if name not in config.method.peft_settings:
            what = f'peft_type: {config.method.peft_type} needs "{name}" in "peft_settings"'
            yield Problem("E-CONFIG-022", what, config.place("peft_type"), fix=f"peft_settings: {{{name}: ...}}")


@_rule(_TRAIN, "peft_type", "peft_settings")
def _experts_have_names_and_folders(config: RunConfig) -> Iterator[Problem]:
    asked = config.method.finetuning_type == "peft" and (config.method.peft_type or "").lower() == "xlora"
    given = config.method.peft_settings.get("adapters")
    if not asked or given is None:
        return
    if not isinstance(given, dict) or not given or not all(isinstance(path, str) for path in given.values()):
        what = '"adapters" of "peft_settings" are names with the folders of trained adapters'
        fix = "adapters: {one: saves/one, other: saves/other}"
        yield Problem("E-CONFIG-004", what, config.place("peft_settings"), str(given), fix)


@_rule(_TRAIN, "pissa_init", "init_lora_weights")
def _one_beginning(config: RunConfig) -> Iterator[Problem]:
    begins = config.method.init_lora_weights
    if config.method.pissa_init and begins not in ("default", "pissa"):
        what = f'"pissa_init" and "init_lora_weights: {begins}" both say how the matrices begin'
        yield contradiction(config, "pissa_init", what, "keep one of them")


@_rule(_TRAIN, "pissa_init", "init_lora_weights", "use_dora", "target_parameters", "finetuning_type")
def _what_the_matrices_begin_with_is_a_product(config: RunConfig) -> Iterator[Problem]:
    method = config.method
    if not (method.moves_base or method.looks_at_rounding):
        return
    does = "gives back what rounding took from" if method.looks_at_rounding else "takes a product out of"
    for key, given in (("use_dora", method.use_dora), ("target_parameters", bool(method.target_parameters))):
        if given:
            what = f'"{key}" does not go with init_lora_weights: {method.begins_as}, which {does} a layer'
            yield contradiction(config, key, what, "keep one of them")


@_rule(_TRAIN, "use_dora", "target_parameters", "lora_dropout", "finetuning_type")
def _weights_without_a_module(config: RunConfig) -> Iterator[Problem]:
    method = config.method
    if method.finetuning_type != "lora" or not method.target_parameters:
        return
    for key, given in (("use_dora", method.use_dora), ("lora_dropout", method.lora_dropout)):
        if given:
            what = f'"{key}" needs a layer, and "target_parameters" are weights without one'
            yield contradiction(config, key, what, "keep one of them")


@_rule(_TRAIN, "finetuning_type", "use_llama_pro", "layers_to_transform")
def _layers_are_chosen_once(config: RunConfig) -> Iterator[Problem]:
    if config.method.finetuning_type == "lora" and config.method.use_llama_pro and config.method.layers_to_transform:
        what = '"use_llama_pro" and "layers_to_transform" both say which layers train'
        yield contradiction(config, "layers_to_transform", what, "keep one of them")


@_rule(_TRAIN, "finetuning_type", "use_llama_pro")
def _added_blocks_are_trained_alone(config: RunConfig) -> Iterator[Problem]:
    if config.method.use_llama_pro and config.method.finetuning_type == "full":
        what = '"use_llama_pro" trains added blocks, "finetuning_type: full" all'
        yield contradiction(config, "use_llama_pro", what, "finetuning_type: freeze or lora")


@_rule(_TRAIN, "layers_to_transform", "rank_pattern", "alpha_pattern")
def _numbers_are_numbers(config: RunConfig) -> Iterator[Problem]:
    method = config.method
    for number in method.layers_to_transform:
        if number < 0 or number != int(number):
            what = '"layers_to_transform" are numbers of layers, from 0 on'
            yield Problem("E-CONFIG-004", what, config.place("layers_to_transform"), f"{number:g}")
    for key, kind, given in (
        ("rank_pattern", "whole numbers from 1 on", method.rank_pattern),
        ("alpha_pattern", "numbers above 0", method.alpha_pattern),
    ):
        for name, value in given.items():
            fits = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
            if not fits or (key == "rank_pattern" and value != int(value)):
                what = f'"{key}" maps names of modules to {kind}'
                yield Problem("E-CONFIG-004", what, config.place(key), f"{name}: {value}")


@_rule(("export",), "merge_method", "merge_weights", "adapter_name_or_path")
def _each_adapter_has_a_weight(config: RunConfig) -> Iterator[Problem]:
    export, names = config.export, config.model.adapter_name_or_path
    if export.merge_method == "in_order":
        return
    if len(names) < 2:
        what = f'"merge_method: {export.merge_method}" weighs several adapters against each other'
        yield Problem("E-CONFIG-022", what, config.place("merge_method"), fix="adapter_name_or_path: one,two")
    elif export.merge_weights and len(export.merge_weights) != len(names):
        what = f'"merge_weights" has {len(export.merge_weights)} numbers for {len(names)} adapters'
        yield Problem("E-CONFIG-023", what, config.place("merge_weights"), fix="one number for each adapter")


@_rule(_TRAIN, "finetuning_type", "peft_type", "optimizer_in_bwd")
def _ranks_need_gradients(config: RunConfig) -> Iterator[Problem]:
    adaptive = config.method.finetuning_type == "peft" and (config.method.peft_type or "").lower() == "adalora"
    if adaptive and config.optimizer.optimizer_in_bwd:
        what = '"peft_type: adalora" looks at gradients that "optimizer_in_bwd" has let go'
        yield contradiction(config, "optimizer_in_bwd", what, "keep one of them")
