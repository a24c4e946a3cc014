"""Base and adapter together are the model that they were made from, and PEFT's own initialisation is the witness."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import tiny_model as random_model
from tunesmith.convert.initial import InitialSettings, initial_adapter, loftq, low_rank, pissa
from tunesmith.convert.weights import open_weights
from tunesmith.core.errors import UsageError

IDS = torch.arange(3, 60)[None]
# Of bitsandbytes, where it looks for kernels that a CPU build has not.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:bitsandbytes")


def run(kind: str, source: Path, target: Path, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {"rank": 8, "alpha": None, "targets": ("all",), "iterations": -1, **changes}
    return initial_adapter(
        kind, source, target, InitialSettings(**values), max_shard_size=10**9, progress=lambda done, total: None
    )


def logits(folder: Path, adapter: str | None = None, **options: Any) -> torch.Tensor:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, **options)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def moved(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max() / one.abs().max())


def test_parts_of_a_diagonal_weight_are_known_by_hand() -> None:
    weight = torch.diag(torch.tensor([9.0, 4.0, 1.0]))
    base, b, a = pissa(weight, 2, scaling=4.0, iterations=-1)
    assert torch.allclose(base, torch.diag(torch.tensor([0.0, 0.0, 1.0])), atol=1e-6)
    assert torch.allclose(4.0 * b @ a, torch.diag(torch.tensor([9.0, 4.0, 0.0])), atol=1e-6)
    assert torch.allclose(b.abs(), a.abs().T, atol=1e-6)  # each has the root of the singular values
    assert torch.allclose(b.abs().amax(0), torch.tensor([3.0, 2.0]) / 2, atol=1e-6)


def test_the_fast_decomposition_is_near_the_exact_one() -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 30)
    (b, a), (fast_b, fast_a) = low_rank(weight, 6, -1), low_rank(weight, 6, 16)
    assert float((weight - fast_b @ fast_a).norm() / (weight - b @ a).norm()) < 1.001


@pytest.mark.parametrize("iterations", [-1, 16])
def test_pissa_answers_as_the_model_and_is_that_of_peft(iterations: int, tiny_model: Path, tmp_path: Path) -> None:
    found = run("pissa-init", tiny_model, tmp_path / "new", iterations=iterations)
    assert found["logits_moved"] < 1e-5
    before = logits(tiny_model)
    assert moved(before, logits(tmp_path / "new", found["adapter"])) < 1e-5
    assert moved(before, logits(tmp_path / "new")) > 0.1  # the base alone is another model
    if iterations == -1:
        assert_as_peft(tiny_model, tmp_path / "new")


def assert_as_peft(source: Path, target: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source)
    config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "down_proj"], init_lora_weights="pissa")
    theirs = {
        name.removeprefix("base_model.model.").replace(".base_layer", ""): one
        for name, one in get_peft_model(model, config).state_dict().items()
    }
    ours = dict(open_weights(target))
    for name in (f"model.layers.1.{kind}.weight" for kind in ("self_attn.q_proj", "mlp.down_proj")):
        assert torch.allclose(ours[name], theirs[name], atol=1e-5)


@pytest.mark.slow
def test_pissa_of_half_precision_stays_so(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16).save_pretrained(half)
    found = run("pissa-init", half, tmp_path / "new")
    assert {entry.dtype for entry in open_weights(tmp_path / "new").entries.values()} == {torch.bfloat16}
    assert 0 < found["logits_moved"] < 0.05


def test_the_adapter_is_one_of_peft_that_names_its_base(tiny_model: Path, tmp_path: Path) -> None:
    found = run("pissa-init", tiny_model, tmp_path / "new", targets=("q_proj", "v_proj"), alpha=8)
    kept = json.loads((Path(found["adapter"]) / "adapter_config.json").read_text())
    assert (kept["r"], kept["lora_alpha"], sorted(kept["target_modules"])) == (8, 8, ["q_proj", "v_proj"])
    assert kept["base_model_name_or_path"] == str(tmp_path / "new")
    assert kept["init_lora_weights"] is True  # loading it begins nothing anew
    assert moved(logits(tiny_model), logits(tmp_path / "new", found["adapter"])) < 1e-5


def test_one_turn_of_loftq_is_quantizing_and_fitting_the_error() -> None:
    torch.manual_seed(0)
    weight = torch.randn(64, 64)
    base, b, a = loftq(weight, 4, scaling=2.0, iterations=1)
    left, values, right = torch.linalg.svd(weight - base)
    best = left[:, :4] @ torch.diag(values[:4]) @ right[:4]
    assert torch.allclose(2.0 * b @ a, best, atol=1e-5)
    again, _, _ = loftq(base, 4, scaling=2.0, iterations=1)
    assert torch.allclose(again, base, atol=1e-6)  # what 4 bits hold, they hold
    later, b, a = loftq(weight, 4, scaling=2.0, iterations=5)
    assert (weight - later - 2 * b @ a).norm() < (weight - base - best).norm()


@pytest.mark.slow
def test_loftq_in_4_bits_is_nearer_to_the_model_than_4_bits_alone(tmp_path: Path) -> None:
    from transformers import BitsAndBytesConfig

    source = tmp_path / "model"  # of sizes that bitsandbytes multiplies on a CPU
    random_model(
        "llama", None, hidden_size=64, intermediate_size=128, num_key_value_heads=4, head_dim=16
    ).save_pretrained(source)
    found = run("loftq-init", source, tmp_path / "new", iterations=4, rank=16)
    quantized = {"quantization_config": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")}
    before = logits(source)
    with_adapter = moved(before, logits(tmp_path / "new", found["adapter"], **quantized))
    assert with_adapter < 0.7 * moved(before, logits(source, **quantized))
    # The base loses nothing by 4 bits; products of bitsandbytes on a CPU are rounded otherwise.
    assert with_adapter == pytest.approx(moved(before, logits(tmp_path / "new", found["adapter"])), rel=0.05)


@pytest.mark.slow
def test_gpt2_whose_weights_lie_the_other_way(tmp_path: Path) -> None:
    random_model("gpt2", None).save_pretrained(tmp_path / "model")
    assert run("pissa-init", tmp_path / "model", tmp_path / "new", rank=4)["logits_moved"] < 1e-4


@pytest.mark.parametrize(("changes", "where"), [({"targets": ("q_prj",)}, "--target"), ({"rank": 4096}, "--rank")])
def test_what_does_not_fit_is_refused(changes: dict[str, Any], where: str, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        run("pissa-init", tiny_model, tmp_path / "new", **changes)
    assert (caught.value.code, caught.value.problems[0].where) == ("E-CONVERT-017", where)
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_the_same_command_gives_the_same_files(tiny_model: Path, tmp_path: Path) -> None:
    files = []
    for _ in range(2):
        run("pissa-init", tiny_model, tmp_path / "new", iterations=2)
        files.append((tmp_path / "new" / "model.safetensors").read_bytes())
        shutil.rmtree(tmp_path / "new")
    assert files[0] == files[1]
