"""Which optimizers there are, and what each goes with. Nothing here imports torch.

One line for each optimizer. `optim` names one, or a key of its own asks for it (`use_galore`); `tests` walk the table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunesmith.config.run_config import RunConfig

__all__ = [
    "DEFAULT_OPTIM",
    "OPTIMIZERS",
    "OUR_OPTIMS",
    "REFUSED_OPTIMS",
    "SWITCHES",
    "OptimizerFacts",
    "asked_switches",
    "optimizer_of",
    "steps_in_backward",
]

DEFAULT_OPTIM = "adamw_torch_fused"
_WHOLE = ("full", "freeze")
_ADAMW = ("adamw_torch", "adamw_torch_fused")
_ADAMW_8BIT = ("adamw_8bit", "adamw_bnb_8bit")
_RATES = ("weight_lr_power", "r")
_LOW_RANK = "it makes the states of whole weights small, and an adapter's are small already"
_BY_BLOCKS = "it takes turns between whole layers, and an adapter's states are small already"
_PER_HEAD = "its blocks are heads and rows of whole weights, and an adapter has neither"


@dataclass(frozen=True, slots=True)
class OptimizerFacts:
    """`asked` is how a config asks for it. `methods`: the finetuning types it is for, None for all, and `why_not`
    others. `in_backward`: it may step in the backward pass. `ranks`: it trains on several. `deepspeed`: it may be
    wrapped by DeepSpeed. `package`: what has to be installed beside torch and transformers. `runs`: values of `optim`
    that it runs inside. `options`: what `optim_args` may say. `gpu_only`: it has no code for a processor."""

    name: str
    asked: str
    package: str | None = None
    methods: tuple[str, ...] | None = None
    why_not: str = ""
    in_backward: bool = False
    ranks: bool = True
    deepspeed: bool = True
    runs: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    ours: bool = False
    gpu_only: bool = False

    @property
    def averages(self) -> bool:
        """The learning rate follows from averaging, not from a schedule."""
        return self.name.startswith("schedule_free_")


def _optim(name: str, *options: str, package: str | None = None, in_backward: bool = False) -> OptimizerFacts:
    return OptimizerFacts(name, f"optim: {name}", package, in_backward=in_backward, options=options)


def _ours(name: str, *options: str, asked: str | None = None) -> OptimizerFacts:
    asked = asked or f"optim: {name}"
    return OptimizerFacts(name, asked, in_backward=True, options=options, ours=True)


def _bnb(name: str, *options: str, gpu_only: bool = False) -> OptimizerFacts:
    return replace(_optim(name, *options, package="bitsandbytes"), gpu_only=gpu_only)


def _whole(
    name: str,
    asked: str,
    why_not: str,
    runs: tuple[str, ...],
    *,
    in_backward: bool = True,
    ranks: bool = True,
    deepspeed: bool = False,
) -> OptimizerFacts:
    return OptimizerFacts(name, asked, None, _WHOLE, why_not, in_backward, ranks, deepspeed, runs, ours=True)


_MIX = ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3")
_INSIDE = (*_ADAMW, *_ADAMW_8BIT, "adafactor")

_TABLE = (
    _optim("adamw_torch", in_backward=True),
    _optim("adamw_torch_fused", in_backward=True),
    _optim("adafactor", in_backward=True),
    _optim("sgd", "momentum", "dampening", "weight_decay", "nesterov", in_backward=True),
    _optim("adagrad", "lr_decay", "weight_decay", "eps", in_backward=True),
    _optim("rmsprop", "momentum", "alpha", "eps", "weight_decay", "centered", in_backward=True),
    _optim("adamw_torch_8bit", "bf16_stochastic_round", package="torchao"),
    _optim("adamw_torch_4bit", "bf16_stochastic_round", package="torchao"),
    _bnb("adamw_8bit"),
    _bnb("adamw_bnb_8bit"),
    _bnb("paged_adamw_8bit"),
    _bnb("paged_adamw_32bit"),
    _bnb("ademamix", *_MIX),
    _bnb("ademamix_8bit", *_MIX),
    _bnb("paged_ademamix_8bit", *_MIX, gpu_only=True),
    _bnb("paged_ademamix_32bit", *_MIX, gpu_only=True),
    _bnb("lion_8bit"),
    _bnb("lion_32bit"),
    _bnb("paged_lion_8bit"),
    _bnb("paged_lion_32bit"),
    _bnb("rmsprop_bnb"),
    _bnb("rmsprop_bnb_8bit"),
    _bnb("rmsprop_bnb_32bit"),
    _ours("stable_adamw"),
    _ours("schedule_free_adamw", *_RATES),
    _ours("schedule_free_sgd", *_RATES),
    _ours("schedule_free_radam", *_RATES),
    _ours("lion"),
    _ours("soap", "precondition_frequency", "max_precondition_dim"),
    _ours("muon", "momentum", "nesterov", "ns_steps", asked="use_muon: true"),
    _whole("adam_mini", "use_adam_mini: true", _PER_HEAD, (*_ADAMW, "adam_mini"), deepspeed=True),
    _whole("galore", "use_galore: true", _LOW_RANK, _INSIDE),
    _whole("apollo", "use_apollo: true", _LOW_RANK, _ADAMW),
    _whole("badam", "use_badam: true", _BY_BLOCKS, _INSIDE, in_backward=False, ranks=False),
    _whole("badam_ratio", "use_badam: true, badam_mode: ratio", _BY_BLOCKS, _INSIDE, ranks=False),
)
OPTIMIZERS: dict[str, OptimizerFacts] = {one.name: one for one in _TABLE}
"""All optimizers by name."""

OUR_OPTIMS = ("adam_mini", "lion", "muon", "soap")
"""Values of `optim` that transformers does not have."""

SWITCHES = ("use_galore", "use_apollo", "use_badam", "use_adam_mini", "use_muon")
"""Keys that ask for an optimizer of their own."""

REFUSED_OPTIMS: dict[str, str] = {
    "galore_adamw": "use_galore: true",
    "galore_adamw_8bit": "use_galore: true, and optim: adamw_8bit",
    "galore_adafactor": "use_galore: true, and optim: adafactor",
    "galore_adamw_layerwise": "use_galore: true, and galore_layerwise: true",
    "galore_adamw_8bit_layerwise": "use_galore: true, galore_layerwise: true, and optim: adamw_8bit",
    "galore_adafactor_layerwise": "use_galore: true, galore_layerwise: true, and optim: adafactor",
    "apollo_adamw": "use_apollo: true",
    "apollo_adamw_layerwise": "use_apollo: true, and apollo_layerwise: true",
    "lomo": "optim: sgd, and optimizer_in_bwd: true (the package lomo-optim is not maintained)",
    "adalomo": "optim: adafactor, and optimizer_in_bwd: true (the package lomo-optim is not maintained)",
    "grokadamw": "optim: adamw_torch (the package grokadamw is not maintained)",
    "adamw_anyprecision": "optim: adamw_torch, and pure_bf16: true (the package torchdistx is not maintained)",
    "adamw_torch_xla": "optim: adamw_torch (TPUs are not supported)",
    "adamw_torch_npu_fused": "optim: adamw_torch",
}
"""Names of transformers whose package is not maintained or not used -> what to write instead."""


def asked_switches(config: RunConfig) -> list[str]:
    """The keys among SWITCHES that are on."""
    return [key for key in SWITCHES if getattr(config.optimizer, key)]


def optimizer_of(config: RunConfig) -> OptimizerFacts:
    """What the config asks for. Where it asks for several (an error), the first."""
    optim = str(config.train.value("optim"))
    for key in asked_switches(config):
        name = key.removeprefix("use_")
        return OPTIMIZERS["badam_ratio" if name == "badam" and config.optimizer.badam_mode == "ratio" else name]
    return OPTIMIZERS.get(optim, OPTIMIZERS[DEFAULT_OPTIM])


def steps_in_backward(config: RunConfig) -> str | None:
    """The key that has the optimizer step in the backward pass; None where it steps after it."""
    ours = config.optimizer
    keys = {
        "optimizer_in_bwd": ours.optimizer_in_bwd,
        "galore_layerwise": ours.use_galore and ours.galore_layerwise,
        "apollo_layerwise": ours.use_apollo and ours.apollo_layerwise,
    }
    return next((key for key, on in keys.items() if on), None)
