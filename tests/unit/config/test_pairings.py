"""All pairs of method, quantization and optimizer: each is declared, or refused with a reason at once."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest

from tests.method_cases import CASES
from tests.method_cases import declared as possible
from tunesmith import load_config
from tunesmith.config.method import MethodConfig
from tunesmith.config.optimizer_facts import OPTIMIZERS, OptimizerFacts
from tunesmith.config.quantization_checks import method_kinds
from tunesmith.config.quantizer_facts import ON_THE_FLY, QuantizerFacts
from tunesmith.core.errors import ConfigError, Problem

ASKED = {"model_name_or_path": "m", "dataset": "d", "output_dir": "o"}
# Optimizers that step in the backward pass, or average in place of a schedule, need more to be asked for.
MORE = {"schedule_free": {"lr_scheduler_type": "constant"}}


def problems(**keys: object) -> list[Problem]:
    try:
        load_config({**ASKED, **keys})
    except ConfigError as error:
        return list(error.problems)
    return []


def quantizing(facts: QuantizerFacts) -> dict[str, object]:
    method = "bnb" if facts.library == "bitsandbytes" else facts.library
    kind = {"quantization_type": "fp8"} if facts.name == "torchao_fp8" else {}
    return {"quantization_method": method, "quantization_bit": int(facts.bits or 0), **kind}


def optimizing(facts: OptimizerFacts) -> dict[str, object]:
    parts = (part.split(": ") for part in facts.asked.split(", "))
    keys: dict[str, object] = {name: value == "true" or value for name, value in parts}
    return keys | (MORE["schedule_free"] if facts.averages else {})


def told(found: list[Problem]) -> bool:
    return bool(found) and all(one.code and one.what and one.where and one.fix for one in found)


@pytest.mark.parametrize("quantizer", ON_THE_FLY)
def test_every_method_with_every_quantizer(quantizer: str) -> None:
    facts = ON_THE_FLY[quantizer]
    for name, case in CASES.items():
        asked = {**case.settings, **quantizing(facts)}
        found = problems(**asked)
        config = replace(load_config(ASKED), method=MethodConfig(**case.settings))  # some train on such a base alone
        declared = all(facts.can_train(kind) for kind in method_kinds(config))
        assert (not found) == declared, (name, quantizer, found)
        assert declared or (told(found) and {one.code for one in found} == {"E-QUANT-002"}), (name, found)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_method_with_every_optimizer(optimizer: str) -> None:
    facts = OPTIMIZERS[optimizer]
    kinds = {case.settings["finetuning_type"]: name for name, case in CASES.items() if possible(name, "fp32")}
    for kind, name in kinds.items():
        found = problems(**CASES[name].settings, **optimizing(facts))
        declared = facts.methods is None or kind in facts.methods
        assert (not found) == declared, (name, optimizer, found)
        assert declared or (told(found) and {one.code for one in found} == {"E-OPTIM-003"}), (name, found)


def test_every_quantizer_with_every_optimizer() -> None:
    """Adapters on a quantized base train with whatever trains adapters."""
    trains = [facts for facts in ON_THE_FLY.values() if facts.can_train("lora")]
    assert len(trains) >= 10
    for quantizer, optimizer in product(trains, OPTIMIZERS.values()):
        found = problems(finetuning_type="lora", **quantizing(quantizer), **optimizing(optimizer))
        declared = optimizer.methods is None or "lora" in optimizer.methods
        assert (not found) == declared, (quantizer.name, optimizer.name, found)
        assert declared or told(found)
