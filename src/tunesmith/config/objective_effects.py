"""Keys of the objective without effect under the chosen stage or loss."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.config.effect_rule import Rule, keys_of, trains
from tunesmith.config.preference_checks import compares, losses_of
from tunesmith.config.run_config import RunConfig

__all__ = ["objective_rules"]

_PAIRS = (
    "pref_bco_weight pref_loss pref_loss_weights pref_divergence pref_divergence_alpha use_wpo dpo_label_smoothing "
    "simpo_gamma alphapo_alpha cpo_alpha discopop_tau ld_alpha"
)
_FEEDBACK = "kto_loss kto_chosen_weight kto_rejected_weight"
_COMPARED = "ref_model ref_model_adapters ref_model_quantization_bit"
_TOKENS = "use_dft_loss use_asft_loss asft_alpha use_eaft_loss eaft_alpha"


def objective_rules() -> tuple[Rule, ...]:
    """Those of losses: which stage reads a key, and which loss."""

    def loss(*names: str) -> Callable[[RunConfig], bool]:
        return lambda c: not losses_of(c.objective).keys().isdisjoint(names)

    def some(fact: str) -> Callable[[RunConfig], bool]:
        return lambda c: any(getattr(facts, fact) for facts in losses_of(c.objective).values())

    def stages(*names: str) -> Callable[[RunConfig], bool]:
        return lambda c: c.objective.stage in names or not trains(c)

    return (
        Rule(keys_of(_TOKENS), stages("sft"), "only in stage sft"),
        Rule(keys_of("asft_alpha"), lambda c: c.objective.use_asft_loss, "only with use_asft_loss: true"),
        Rule(keys_of("eaft_alpha"), lambda c: c.objective.use_eaft_loss, "only with use_eaft_loss: true"),
        Rule(keys_of("label_smoothing_factor"), stages("pt", "sft"), "it smooths the labels of tokens, in pt and sft"),
        Rule(keys_of("compute_accuracy"), stages("pt", "sft"), "it counts the tokens of pt and sft"),
        Rule(keys_of(_PAIRS), stages("dpo"), "only in stage dpo"),
        Rule(keys_of(_FEEDBACK), stages("kto"), "only in stage kto"),
        Rule(keys_of("pref_beta pref_ftx"), stages("dpo", "kto"), "only in stages dpo and kto"),
        Rule(
            keys_of(_COMPARED),
            lambda c: stages("dpo", "kto")(c) or compares(c.objective),
            "only in stages dpo and kto, and with use_asft_loss: true",
        ),
        Rule(keys_of("precompute_ref_log_probs"), stages("dpo", "kto"), "only in stages dpo and kto"),
        Rule(
            keys_of("precompute_ref_log_probs"),
            lambda c: compares(c.objective) or not trains(c),
            "this pref_loss compares with no reference model",
        ),
        Rule(keys_of("prefix_sharing"), stages("dpo", "rm"), "only in stages dpo and rm"),
        Rule(keys_of("center_rewards_coefficient"), stages("rm"), "only in stage rm"),
        Rule(keys_of("dpo_label_smoothing"), some("smooths"), "this pref_loss reads no share of wrong labels"),
        Rule(keys_of("pref_divergence_alpha"), _has_alpha, "only with pref_divergence: alpha_divergence"),
        Rule(keys_of("simpo_gamma"), loss("simpo", "alphapo"), "only with pref_loss: simpo or alphapo"),
        Rule(keys_of("alphapo_alpha"), loss("alphapo"), "only with pref_loss: alphapo"),
        Rule(keys_of("cpo_alpha"), loss("cpo", "cpo_hinge", "cpo_ipo"), "only with pref_loss: cpo, cpo_hinge, cpo_ipo"),
        Rule(keys_of("discopop_tau"), loss("discopop"), "only with pref_loss: discopop"),
    )


def _has_alpha(config: RunConfig) -> bool:
    return config.objective.pref_divergence == "alpha_divergence"
