"""What is optimised."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import later, section, works

_PPO = "PPO"
_REWARD = "reward models"


@section
class ObjectiveConfig:
    """The stage and the constants of its loss."""

    stage: Literal["pt", "sft", "rm", "ppo", "dpo", "kto"] = works("sft", later=("ppo",))
    """Training stage: plain text (pt), chats (sft), pairs of answers (dpo, rm: a reward model), liked or not (kto)."""
    compute_accuracy: bool = works(False)
    """Report the share of trained tokens that the model would pick, at evaluation."""
    early_stopping_steps: int | None = works(None, least=1)
    """Stop after this many evaluations without improvement."""
    use_dft_loss: bool = works(False)
    """sft: weight each token's loss by its probability (DFT). `eval_nll_loss` is plain."""
    use_asft_loss: bool = works(False)
    """sft: DFT plus a divergence from the reference model (ASFT). `eval_nll_loss` is plain."""
    asft_alpha: float = works(0.1, least=0)
    """sft: weight of that divergence."""
    use_eaft_loss: bool = works(False)
    """sft: weight each token's loss by the entropy of the 20 likeliest tokens (EAFT). `eval_nll_loss` is plain."""
    eaft_alpha: float = works(1.0, least=0)
    """sft: exponent of that weight, (entropy / 3) ** alpha; 0 gives the plain loss."""
    pref_beta: float = works(0.1, above=0)
    """dpo, kto: strength of the pull towards the reference model; in losses without one, scale of rewards."""
    pref_ftx: float = works(0.0, least=0)
    """dpo, kto: weight of an added fine-tuning loss on the chosen answers, a mean over the tokens of each."""
    pref_bco_weight: float = works(0.0, least=0)
    """dpo: weight of an added BCO loss; the sum is divided by 1 plus it."""
    pref_loss: tuple[str, ...] = works(("sigmoid",))
    """dpo: the loss on pairs of answers, one or several (docs/objectives.md lists them)."""
    pref_loss_weights: tuple[float, ...] = works((), least=0)
    """dpo: weights of several losses; left out, 1 each."""
    pref_divergence: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = works("reverse_kl")
    """dpo: what keeps the model near the reference (f-DPO)."""
    pref_divergence_alpha: float = works(1.0)
    """dpo: alpha of pref_divergence: alpha_divergence; 1 is reverse_kl."""
    use_wpo: bool = works(False)
    """dpo: weigh pairs by how likely their answers are under the model itself (WPO)."""
    dpo_label_smoothing: float = works(0.0, least=0, below=1)
    """dpo: assumed share of wrongly labelled pairs."""
    kto_loss: Literal["kto", "apo_zero_unpaired", "bco"] = works("kto")
    """kto: the loss on single answers (docs/objectives.md)."""
    kto_chosen_weight: float = works(1.0, least=0)
    """kto: weight of liked answers."""
    kto_rejected_weight: float = works(1.0, least=0)
    """kto: weight of disliked answers."""
    simpo_gamma: float = works(0.5)
    """dpo: margin of pref_loss: simpo and alphapo, in rewards."""
    alphapo_alpha: float = works(0.25)
    """dpo: shape of the reward of pref_loss: alphapo; 0 is SimPO's."""
    cpo_alpha: float = works(1.0, least=0)
    """dpo: weight of the fine-tuning term of pref_loss: cpo, cpo_hinge and cpo_ipo."""
    discopop_tau: float = works(0.05, above=0, most=1)
    """dpo: temperature of pref_loss: discopop."""
    ld_alpha: float | None = works(None, least=0, most=1)
    """dpo: weight of the tokens that an answer has more than the other one (LD-DPO)."""
    prefix_sharing: Literal["auto", "off"] = works("auto")
    """dpo, rm: compute what both answers begin with once (auto: where the model allows it)."""
    center_rewards_coefficient: float = works(0.0, least=0)
    """rm: weight of the squared sum of both rewards of a pair, which keeps rewards near zero; 0.01, say."""
    ppo_buffer_size: int = later(1, _PPO)
    """Mini-batches per buffer of experience."""
    ppo_epochs: int = later(4, _PPO)
    """Passes over each buffer."""
    ppo_score_norm: bool = later(False, _PPO)
    """Normalise rewards."""
    ppo_target: float = later(6.0, _PPO)
    """Divergence that the adaptive penalty aims at."""
    ppo_whiten_rewards: bool = later(False, _PPO)
    """Whiten rewards before advantages are computed."""
    ref_model: str | None = works(None)
    """dpo, kto, use_asft_loss: weights of the reference model; left out, the model before training."""
    ref_model_adapters: tuple[str, ...] = works(())
    """dpo, kto, use_asft_loss: adapters of the reference model, merged one after the other."""
    ref_model_quantization_bit: int | None = works(None)
    """dpo, kto, use_asft_loss: bits per weight of the reference model, with quantization_method."""
    precompute_ref_log_probs: bool = works(False)
    """dpo, kto: ask the reference once, before training, and keep what it says in the data cache; then it is freed."""
    reward_model: str | None = later(None, _REWARD)
    """Reward model: a path, an adapter or a URL."""
    reward_model_adapters: tuple[str, ...] = later((), _REWARD)
    """Adapters of the reward model."""
    reward_model_quantization_bit: int | None = later(None, _REWARD)
    """Bits per weight of the reward model."""
    reward_model_type: Literal["lora", "full", "api"] = later("lora", _REWARD)
    """What `reward_model` is: an adapter, a whole model, or a service."""
