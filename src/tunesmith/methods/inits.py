"""How the matrices of a LoRA begin, where it is not PEFT's default: from the base's weights, or from what the base does
with rows of the data.

PEFT has the arithmetic. Here is what it is told, and that it ends.

    pissa    https://arxiv.org/abs/2404.02948   principal singular vectors of the base, which lose them
    olora    https://arxiv.org/abs/2406.01775   a QR decomposition, in the same way
    corda    https://arxiv.org/abs/2406.05223   singular vectors under the covariance of the inputs
    lora_ga  https://arxiv.org/abs/2407.05000   singular vectors of the first gradient
    loftq    https://arxiv.org/abs/2310.08659   what quantizing took from the base (methods/loftq.py)
    eva      https://arxiv.org/abs/2410.07170   principal components of the inputs; ranks go where they explain more
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem, UsageError
from tunesmith.core.log import get_logger
from tunesmith.methods import loftq
from tunesmith.methods.residual import save_as_plain

if TYPE_CHECKING:
    from peft import LoraConfig

    from tunesmith.config.method import MethodConfig
    from tunesmith.methods.base import Calibration

__all__ = ["prepare", "settings_of_init"]

_PASSES = 50
"""How often eva reads its rows at most; three or four passes are usual."""


def settings_of_init(config: MethodConfig) -> dict[str, Any]:
    """What PEFT's LoraConfig is told of it."""
    from peft.tuners.lora.config import CordaConfig, EvaConfig, LoraGAConfig

    kind = config.begins_as
    names = {"default": True, "loftq": True, "pissa": f"pissa_niter_{config.pissa_iter}"}
    found: dict[str, Any] = {"init_lora_weights": names.get(kind, kind)}
    if kind == "pissa" and config.pissa_iter < 0:
        found["init_lora_weights"] = "pissa"
    more = {"eva": ("eva_config", EvaConfig), "corda": ("corda_config", CordaConfig)}
    more["lora_ga"] = ("lora_ga_config", LoraGAConfig)
    if kind in more:
        name, make = more[kind]
        given = dict(config.peft_settings.get(name) or {})
        try:
            found[name] = make(**given)
        except (TypeError, ValueError) as error:
            problem = Problem("E-METHOD-011", "PEFT refuses these settings", f"peft_settings: {name}", str(error))
            raise UsageError(problem) from error
    return found


def prepare(
    config: MethodConfig,
    model: Any,
    settings: LoraConfig,
    calibration: Calibration | None,
    put_on: Callable[[], Any],
    hub: Mapping[str, Any],
) -> Any:
    """The model with its adapter, which `put_on` makes, as it begins. `hub`: what a download needs. Raises UsageError
    where it cannot begin so."""
    kind = config.begins_as
    if config.looks_at_rows:
        assert calibration is not None, "the contract of a method"
        get_logger().info("init_lora_weights: %s looks at %d rows", kind, config.lora_init_rows)
    if kind == "corda":
        _corda(model, settings, calibration)
    elif kind == "lora_ga":
        _lora_ga(model, settings, calibration)
    made = put_on()
    if kind == "eva":
        _eva(made, calibration)
    elif kind == "loftq":
        loftq.begin(made, hub)
    if config.moves_base:
        save_as_plain(made)
    return made


def _corda(model: Any, settings: Any, calibration: Any) -> None:
    import torch
    from peft.tuners.lora.corda import preprocess_corda

    training = model.training

    def run() -> None:
        with torch.no_grad():
            for batch in calibration.batches():
                calibration.loss(model, batch)

    try:
        preprocess_corda(model, settings, run)
    except (ValueError, RuntimeError) as error:
        raise UsageError(_too_few("corda", error)) from error
    finally:
        model.train(training)


def _lora_ga(model: Any, settings: Any, calibration: Any) -> None:
    from peft.tuners.lora.loraga import preprocess_loraga

    def step() -> None:
        for batch in calibration.batches():
            calibration.loss(model, batch).backward()

    with warnings.catch_warnings():
        # Its hooks count the calls of a layer; that no input has a gradient where the first layers are does not matter.
        warnings.filterwarnings("ignore", "Full backward hook is firing")
        preprocess_loraga(model, settings, step)
    model.zero_grad(set_to_none=True)


def _eva(model: Any, calibration: Any) -> None:
    """PEFT reads the rows again and again until the components stand."""
    from peft import initialize_lora_eva_weights

    batches = [_Held(batch) for batch in calibration.batches()]
    left = _PASSES * len(batches)

    def forward(model: Any, held: _Held) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise DataError(_too_few("eva", f"the components of the inputs still move after {_PASSES} passes"))
        calibration.loss(model, held.batch)

    initialize_lora_eva_weights(
        model,
        dataloader=batches,
        forward_fn=forward,
        prepare_model_inputs_fn=None,
        prepare_layer_inputs_fn=None,
        gather_distributed_inputs=False,  # every process reads the same rows
        show_progress_bar=False,
    )


class _Held:
    """A batch that is where it belongs: PEFT would move the parts of a mapping one by one."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self.batch = batch

    def to(self, device: Any) -> _Held:
        return self


def _too_few(kind: str, error: object) -> Problem:
    got = (str(error).splitlines() or [""])[0]
    fix = "a higher lora_init_rows, a smaller lora_rank, or another init_lora_weights"
    return Problem("E-METHOD-016", "the rows do not tell enough to begin with", f"init_lora_weights: {kind}", got, fix)
