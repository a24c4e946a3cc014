"""Rules about preferences: which losses there are, and what goes with them (preference_facts.py)."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.config.check_table import Check, contradiction, rules_into
from tunesmith.config.objective import ObjectiveConfig
from tunesmith.config.preference_facts import OTHER_NAMES, PAIR_FACTS, PairFacts
from tunesmith.config.run_config import RunConfig
from tunesmith.core.errors import Problem
from tunesmith.core.suggest import did_you_mean

__all__ = ["PREFERENCE_CHECKS", "compares", "losses_of"]

PREFERENCE_CHECKS: list[Check] = []
_rule = rules_into(PREFERENCE_CHECKS)
_TRAIN = ("train",)
_REFERENCE = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")


def losses_of(config: ObjectiveConfig) -> dict[str, PairFacts]:
    """The facts of the losses that a config names, by their names here; those that there are."""
    names = [OTHER_NAMES.get(name, name) for name in config.pref_loss]
    return {name: PAIR_FACTS[name] for name in names if name in PAIR_FACTS}


def compares(config: ObjectiveConfig) -> bool:
    """Whether the loss compares with a reference model."""
    if config.stage == "dpo":
        return config.pref_bco_weight > 0 or any(facts.reference for facts in losses_of(config).values())
    return config.stage == "kto" or (config.stage == "sft" and config.use_asft_loss)


@_rule(_TRAIN, "stage", "pref_loss", "pref_loss_weights")
def _losses_are_known(config: RunConfig) -> Iterator[Problem]:
    keys = config.objective
    if keys.stage != "dpo":
        return
    known = (*PAIR_FACTS, *OTHER_NAMES)
    for name in keys.pref_loss:
        if name not in known:
            what = '"pref_loss" names no loss'
            fix = did_you_mean(name, known) or f"one of {', '.join(PAIR_FACTS)}"
            yield Problem("E-CONFIG-002", what, config.place("pref_loss"), name, fix)
    if not keys.pref_loss:
        yield Problem("E-CONFIG-020", '"pref_loss" is empty', config.place("pref_loss"), fix="pref_loss: sigmoid")
    if len(set(keys.pref_loss)) < len(keys.pref_loss):
        what, fix = '"pref_loss" names a loss twice', "each once, with pref_loss_weights"
        yield Problem("E-CONFIG-021", what, config.place("pref_loss"), ", ".join(keys.pref_loss), fix)
    given = len(keys.pref_loss_weights)
    if given and given != len(keys.pref_loss):
        what = f'"pref_loss" names {len(keys.pref_loss)} losses, and "pref_loss_weights" has {given} numbers'
        yield Problem("E-CONFIG-023", what, config.place("pref_loss_weights"), fix="one weight for each loss")


@_rule(_TRAIN, "stage", "pref_loss", "dpo_label_smoothing")
def _smoothing_fits(config: RunConfig) -> Iterator[Problem]:
    share = config.objective.dpo_label_smoothing
    for name, facts in losses_of(config.objective).items() if config.objective.stage == "dpo" else ():
        if facts.has_to_smooth and not share:
            what = f'"pref_loss: {name}" has no value without dpo_label_smoothing'
            yield Problem("E-CONFIG-022", what, config.place("pref_loss"), fix="dpo_label_smoothing: 0.1")
        elif facts.smooths and share >= facts.less_than:
            what = f'"pref_loss: {name}" needs "dpo_label_smoothing" below {facts.less_than:g}'
            yield Problem("E-CONFIG-021", what, config.place("dpo_label_smoothing"), str(share), "0.1, say")


@_rule(_TRAIN, "stage", "pref_loss", "pref_divergence")
def _divergence_fits(config: RunConfig) -> Iterator[Problem]:
    keys = config.objective
    if keys.stage == "dpo" and keys.pref_divergence != "reverse_kl":
        for name, facts in losses_of(keys).items():
            if not facts.divergence:
                what = f'"pref_loss: {name}" has no pref_divergence but reverse_kl'
                yield contradiction(
                    config, "pref_divergence", what, "pref_loss: sigmoid, or pref_divergence: reverse_kl"
                )


@_rule(_TRAIN, "stage", "pref_loss", "pref_bco_weight", "use_asft_loss", *_REFERENCE)
def _reference_is_used(config: RunConfig) -> Iterator[Problem]:
    keys = config.objective
    if keys.stage not in ("dpo", "kto") and not compares(keys):
        return
    given = [key for key in _REFERENCE if getattr(keys, key)]
    known = keys.stage != "dpo" or len(losses_of(keys)) == len(keys.pref_loss)  # or it is told already
    if given and known and not compares(keys):
        what = f'"pref_loss: {", ".join(keys.pref_loss)}" compares with no reference model'
        yield contradiction(config, given[0], what, f"leave {given[0]} out")
    elif given and not keys.ref_model:
        what, fix = f'"{given[0]}" says how to load a reference model, and none is named', "ref_model: a folder"
        yield Problem("E-CONFIG-022", what, config.place(given[0]), fix=fix)


@_rule(_TRAIN, "stage", "precompute_ref_log_probs", "streaming")
def _rows_are_known_before(config: RunConfig) -> Iterator[Problem]:
    keys = config.objective
    if keys.precompute_ref_log_probs and config.data.streaming and keys.stage in ("dpo", "kto") and compares(keys):
        what = '"precompute_ref_log_probs" reads all rows before training, and "streaming" does not know them by then'
        yield contradiction(
            config, "precompute_ref_log_probs", what, "streaming: false, or precompute_ref_log_probs: false"
        )


@_rule(_TRAIN, "stage", "finetuning_type")
def _rewards_have_a_head(config: RunConfig) -> Iterator[Problem]:
    kind = config.method.finetuning_type
    if config.objective.stage == "rm" and kind == "peft":
        what = '"finetuning_type: peft" is not for stage rm: some of those adapters cannot hold the new output layer'
        yield contradiction(config, "finetuning_type", what, "finetuning_type: lora, oft, freeze or full")


@_rule(_TRAIN, "stage", "moe_aux_loss_coef")
def _rewards_have_no_balance(config: RunConfig) -> Iterator[Problem]:
    if config.objective.stage == "rm" and config.model.moe_aux_loss_coef is not None:
        what = '"moe_aux_loss_coef" is for losses of tokens, and stage rm has one number for a sequence'
        yield contradiction(config, "moe_aux_loss_coef", what, "leave moe_aux_loss_coef out")


@_rule(_TRAIN, "stage", "use_wpo", "pref_loss")
def _wpo_weighs_one_step(config: RunConfig) -> Iterator[Problem]:
    whole = [name for name, facts in losses_of(config.objective).items() if facts.ranked]
    if config.objective.stage == "dpo" and config.objective.use_wpo and whole:
        what = f'"use_wpo" weighs pairs, and "pref_loss: {whole[0]}" is a loss of all pairs together'
        yield contradiction(config, "use_wpo", what, "pref_loss: sigmoid, or use_wpo: false")
