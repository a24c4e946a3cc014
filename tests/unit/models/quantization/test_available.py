"""What a quantizer needs is looked for before weights are read, and told with the line that installs it."""

from __future__ import annotations

import pytest

from tunesmith.config.quantizer_facts import QUANTIZERS
from tunesmith.core.errors import MachineError
from tunesmith.models.quantization import available
from tunesmith.models.quantization.available import check_available


@pytest.mark.parametrize(
    ("found", "text"),
    [(None, "bitsandbytes is not installed"), ("0.40.0", "bitsandbytes 0.40.0, and 0.46.1 is the least")],
)
def test_a_package_that_is_missing_or_old(monkeypatch: pytest.MonkeyPatch, found: str | None, text: str) -> None:
    monkeypatch.setattr(available, "package_version", lambda name: found)
    with pytest.raises(MachineError) as caught:
        check_available(QUANTIZERS["bnb4"], "cpu", "quantization_bit: 4")
    (problem,) = caught.value.problems
    assert (problem.code, problem.got) == ("E-QUANT-004", text)
    assert problem.fix == 'pip install "tunesmith[bitsandbytes]"'


def test_a_package_of_others_is_named_with_its_version() -> None:
    with pytest.raises(MachineError) as caught:
        check_available(QUANTIZERS["gptq"], "cpu", "model_name_or_path: m")
    assert caught.value.problems[0].fix == 'pip install "optimum>=1.24" "gptqmodel>=5.0"'


@pytest.mark.parametrize("name", ["torchao_int4", "higgs"])
def test_a_device_that_cannot(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(available, "package_version", lambda name: "99.0")
    with pytest.raises(MachineError) as caught:
        check_available(QUANTIZERS[name], "cpu", "here")
    assert caught.value.problems[0].code == "E-QUANT-005"


@pytest.mark.parametrize("name", ["bnb4", "bnb8", "hqq1", "hqq8", "torchao_int8", "torchao_fp8", "gguf"])
def test_what_runs_here(name: str) -> None:
    check_available(QUANTIZERS[name], "cpu", "here")
