"""What each loss of preferences is compared with, in tests/parity/test_trl_losses.py or in tests/unit/losses."""

from __future__ import annotations

from collections.abc import Mapping

DPO_NAMES = (
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "discopop",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "aot",
    "aot_unpaired",
)
CPO_NAMES = ("orpo", "simpo", "alphapo", "cpo", "cpo_hinge", "cpo_ipo")
KTO_NAMES = ("kto", "apo_zero_unpaired")
BY_HAND = "the formula by hand, and in float64"

WITNESSES: Mapping[str, str] = {
    **dict.fromkeys(DPO_NAMES, "`DPOTrainer`"),
    "sft": "`DPOTrainer`, pair by pair",
    **dict.fromkeys(CPO_NAMES, "`CPOTrainer`, pair by pair"),
    "simpo": "`CPOTrainer`, `TPOTrainer`",
    "orpo": "`ORPOTrainer`, pair by pair",
    "kto_pair": BY_HAND,
    **dict.fromkeys(KTO_NAMES, "`KTOTrainer`"),
    "bco": BY_HAND,
}
"""Loss -> TRL's code, or what there is where TRL has none."""
