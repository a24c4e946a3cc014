"""What is optimised."""

from __future__ import annotations

from typing import Literal

from tunesmith.config.fields import later, section, works

_PREFERENCE = "training on preferences"
_PPO = "PPO"
_REWARD = "reward models"
_LOSSES = "other losses for fine-tuning"


@section
class ObjectiveConfig:
    """The stage and the constants of its loss."""

    stage: Literal["pt", "sft", "rm", "ppo", "dpo", "kto"] = works("sft", later=("rm", "ppo", "dpo", "kto"))
    """Training stage: pre-training on plain text (pt) or fine-tuning on chats (sft)."""
    compute_accuracy: bool = works(False)
    """Report the share of trained tokens that the model would pick, at evaluation."""
    early_stopping_steps: int | None = works(None, least=1)
    """Stop after this many evaluations without improvement."""
    use_dft_loss: bool = works(False)
    """sft: weight each token's loss by its probability (DFT). `eval_nll_loss` is plain."""
    use_asft_loss: bool = later(False, _LOSSES)
    """sft: DFT plus a divergence from the reference model (ASFT)."""
    asft_alpha: float = later(0.1, _LOSSES)
    """sft: weight of that divergence."""
    use_eaft_loss: bool = works(False)
    """sft: weight each token's loss by the entropy of the 20 likeliest tokens (EAFT). `eval_nll_loss` is plain."""
    eaft_alpha: float = works(1.0, least=0)
    """sft: exponent of that weight, (entropy / 3) ** alpha; 0 gives the plain loss."""
    pref_beta: float = later(0.1, _PREFERENCE)
    """Strength of the pull towards the reference model."""
    pref_ftx: float = later(0.0, _PREFERENCE)
    """Weight of an added fine-tuning loss on the chosen answers."""
    pref_bco_weight: float = later(0.0, _PREFERENCE)
    """Weight of an added BCO loss."""
    pref_loss: Literal["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"] = later("sigmoid", _PREFERENCE)
    """Loss on pairs of answers."""
    dpo_label_smoothing: float = later(0.0, _PREFERENCE)
    """Assumed share of wrongly labelled pairs."""
    kto_chosen_weight: float = later(1.0, _PREFERENCE)
    """Weight of liked answers."""
    kto_rejected_weight: float = later(1.0, _PREFERENCE)
    """Weight of disliked answers."""
    simpo_gamma: float = later(0.5, _PREFERENCE)
    """Margin of SimPO."""
    ld_alpha: float | None = later(None, _PREFERENCE)
    """Weight of the longer answer's surplus tokens (LD-DPO)."""
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
    ref_model: str | None = later(None, _PREFERENCE)
    """Weights of the reference model."""
    ref_model_adapters: tuple[str, ...] = later((), _PREFERENCE)
    """Adapters of the reference model."""
    ref_model_quantization_bit: int | None = later(None, _PREFERENCE)
    """Bits per weight of the reference model."""
    reward_model: str | None = later(None, _REWARD)
    """Reward model: a path, an adapter or a URL."""
    reward_model_adapters: tuple[str, ...] = later((), _REWARD)
    """Adapters of the reward model."""
    reward_model_quantization_bit: int | None = later(None, _REWARD)
    """Bits per weight of the reward model."""
    reward_model_type: Literal["lora", "full", "api"] = later("lora", _REWARD)
    """What `reward_model` is: an adapter, a whole model, or a service."""
