"""Which losses of preferences there are, and what each needs. Nothing here imports torch.

One line for each loss of pairs (`losses/preference.py` has the formulas) and of single answers (`losses/feedback.py`).
Tests and docs/objectives.md walk the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DIVERGENCES", "FEEDBACK_FACTS", "OTHER_NAMES", "PAIR_FACTS", "FeedbackFacts", "PairFacts"]

DIVERGENCES = ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence")
"""What keeps the policy near the reference, https://arxiv.org/abs/2309.16240. DPO's own is the first."""


@dataclass(frozen=True, slots=True)
class PairFacts:
    """`source` is the paper. `reference`: it compares with a reference model. `averages`: it reads log probabilities
    per token, not sums. `smooths`: it reads the share of wrong labels (`dpo_label_smoothing`), which is below
    `less_than` and, where it `has_to_smooth`, above 0. `divergence`: it takes others than reverse_kl. `whole_step`: a
    pair's loss depends on the other pairs of the optimizer step, so the function has to see all of them at once.
    `ranked`: its losses come in order of rank, so they cannot be weighed by pair (WPO). `sft`: it has a fine-tuning
    term of its own."""

    title: str
    source: str
    reference: bool = True
    averages: bool = False
    smooths: bool = False
    less_than: float = 1.0
    has_to_smooth: bool = False
    divergence: bool = False
    whole_step: bool = False
    ranked: bool = False
    sft: bool = False


def _free(title: str, source: str, *, averages: bool = False, smooths: bool = False, sft: bool = False) -> PairFacts:
    return PairFacts(title, source, reference=False, averages=averages, smooths=smooths, sft=sft)


_DPO, _SLIC, _IPO = "2305.18290", "2305.10425", "2310.12036"
_APO, _AOT, _CPO = "2408.06266", "2406.05882", "2401.08417"

PAIR_FACTS: Mapping[str, PairFacts] = {
    "sigmoid": PairFacts("DPO", _DPO, smooths=True, divergence=True),
    "sigmoid_norm": PairFacts("DPO per token", "2411.15124", averages=True, divergence=True),
    "hinge": PairFacts("hinge of SLiC", _SLIC, divergence=True),
    "ipo": PairFacts("IPO", _IPO, averages=True, divergence=True),
    "robust": PairFacts("robust DPO", "2403.00409", smooths=True, less_than=0.5, divergence=True),
    "exo_pair": PairFacts("EXO", "2402.00856", smooths=True, has_to_smooth=True, divergence=True),
    "discopop": PairFacts("DiscoPOP", "2406.08414", divergence=True),
    "nca_pair": PairFacts("NCA", "2402.05369"),
    "bco_pair": PairFacts("BCO", "2404.04656"),
    "sppo_hard": PairFacts("SPPO, hard labels", "2405.00675"),
    "apo_zero": PairFacts("APO-zero", _APO),
    "apo_down": PairFacts("APO-down", _APO),
    "aot": PairFacts("AOT, paired", _AOT, smooths=True, whole_step=True, ranked=True),
    "aot_unpaired": PairFacts("AOT, unpaired", _AOT, smooths=True, whole_step=True, ranked=True),
    "kto_pair": PairFacts("KTO of pairs", "2402.01306", whole_step=True),
    "orpo": _free("ORPO", "2403.07691", averages=True, sft=True),
    "simpo": _free("SimPO", "2405.14734", averages=True, smooths=True),
    "alphapo": _free("AlphaPO", "2501.03884", averages=True, smooths=True),
    "cpo": _free("CPO", _CPO, smooths=True, sft=True),
    "cpo_hinge": _free("CPO with SLiC's hinge", _SLIC, sft=True),
    "cpo_ipo": _free("CPO with IPO's square", _IPO, averages=True, sft=True),
    "sft": _free("fine-tuning on the chosen answer", "2411.10442", averages=True, sft=True),
}

OTHER_NAMES: Mapping[str, str] = {"sppo": "sppo_hard", "discopo": "discopop", "aot_pair": "aot_unpaired"}
"""What else the losses are called. `aot_pair` is the name that TRL gave the unpaired one before 1.0."""


@dataclass(frozen=True, slots=True)
class FeedbackFacts:
    """`kl`: it reads an estimate of the divergence from the reference, of mismatched answers. `shift`: it reads the
    mean reward. Either is one number for a whole optimizer step."""

    title: str
    source: str
    kl: bool = False
    shift: bool = False


FEEDBACK_FACTS: Mapping[str, FeedbackFacts] = {
    "kto": FeedbackFacts("KTO", "2402.01306", kl=True),
    "apo_zero_unpaired": FeedbackFacts("APO-zero", _APO),
    "bco": FeedbackFacts("BCO", "2404.04656", shift=True),
}
