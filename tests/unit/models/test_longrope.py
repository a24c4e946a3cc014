"""LongRoPE by given factors: the formula of the paper, what is written, who reads it, and what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import tunesmith
from tests.busy_engine import answers, engine_of, generated, greedy
from tests.tiny_models import tiny_config, tiny_model
from tunesmith.config import load_config
from tunesmith.config.model import ModelConfig
from tunesmith.core.errors import ConfigError, UsageError
from tunesmith.engines.base import Request
from tunesmith.models.families import FLAT, SHIMS
from tunesmith.models.load import load
from tunesmith.models.rope import check_positions, context_of, longest_kinds, scale_positions, switch_of

pytestmark = pytest.mark.usefixtures("torch_one_thread")

BASE, ORIGINAL, TIMES = 10000.0, 64, 4
"""Of the tiny types: base of the frequencies, context; and times as long as that."""
FACTORS = {"short_factor": [1.0, 1.0, 1.25, 1.5], "long_factor": [1.0, 2.0, 5.0, 9.0]}


def keys(**more: Any) -> ModelConfig:
    return ModelConfig(**{"model_name_or_path": "x", "rope_scaling": "longrope", "rope_factors": FACTORS, **more})


def scaled(model_type: str = "llama", longest: int | None = ORIGINAL * TIMES, **more: Any) -> Any:
    settings = tiny_config(model_type)
    assert scale_positions(settings, keys(**more), longest)
    return settings


def frequencies(settings: Any, length: int) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    rotary = AutoModelForCausalLM.from_config(settings).model.rotary_emb
    rotary(torch.zeros(1), torch.arange(length)[None])
    found: torch.Tensor = rotary.inv_freq
    return found


# ---- the numbers ----


@pytest.mark.parametrize(("length", "name"), [(ORIGINAL, "short_factor"), (ORIGINAL + 1, "long_factor")])
@pytest.mark.parametrize("model_type", ["llama", "phi3"])
def test_longrope_frequencies_are_those_of_the_paper(model_type: str, length: int, name: str) -> None:
    """theta_i = 1 / (lambda_i * base^(2i/d)), with the lambdas of short sequences within the original context."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    settings = scaled(model_type)
    found = frequencies(settings, length)
    wanted = [1 / (FACTORS[name][i] * BASE ** (2 * i / 8)) for i in range(4)]
    assert torch.allclose(found, torch.tensor(wanted), rtol=1e-5)
    theirs, warmer = ROPE_INIT_FUNCTIONS["longrope"](settings, seq_len=length)
    assert torch.equal(found, theirs)
    # as many times longer as 4, of a context of 64: sqrt(1 + ln 4 / ln 64) = sqrt(1 + 1/3)
    assert warmer == pytest.approx(math.sqrt(4 / 3))
    assert (context_of(settings), switch_of(settings), longest_kinds(settings)) == (256, ORIGINAL, ["longrope"])


def test_attention_may_be_as_warm_as_the_factors_were_searched_with() -> None:
    from transformers import AutoModelForCausalLM

    rope = (settings := scaled(rope_factors={**FACTORS, "attention_factor": 1.5})).rope_parameters
    assert rope["attention_factor"] == 1.5
    assert AutoModelForCausalLM.from_config(settings).model.rotary_emb.attention_scaling == 1.5


@pytest.mark.parametrize("model_type", ["phi", "glm"])
def test_heads_that_turn_in_part_have_fewer_frequencies(model_type: str) -> None:
    settings = tiny_config(model_type)  # half of 8 numbers turn: two frequencies
    assert settings.rope_parameters["partial_rotary_factor"] == 0.5
    with pytest.raises(UsageError, match="the model has 2 frequencies"):
        scale_positions(settings, keys(), 256)
    two = {name: values[:2] for name, values in FACTORS.items()}
    assert scale_positions(settings, keys(rope_factors=two), 256)
    assert frequencies(settings, 65).tolist() == pytest.approx([1.0, 1 / (2 * BASE ** (2 / 4))])


@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump])
def test_factors_may_stand_in_a_file(tmp_path: Path, write: Any) -> None:
    (tmp_path / "factors").write_text(write(FACTORS))
    rope = scaled(rope_factors=str(tmp_path / "factors")).rope_parameters
    assert (rope["short_factor"], rope["long_factor"]) == (FACTORS["short_factor"], FACTORS["long_factor"])


def test_a_model_that_brings_factors_can_get_others_and_a_longer_context() -> None:
    """Phi-3 tells by how much it is longer by its two contexts alone: 64 of 16 is 4."""
    rope = {"rope_type": "longrope", "rope_theta": BASE, **{name: [1.0] * 4 for name in FACTORS}}
    brought = {"original_max_position_embeddings": 16, "rope_parameters": rope}
    settings = tiny_config("phi3", **brought)
    assert not settings.rope_parameters.get("factor")
    assert scale_positions(settings, keys(), None)
    assert (settings.rope_parameters["long_factor"], settings.rope_parameters["factor"]) == (FACTORS["long_factor"], 4)
    assert (context_of(settings), switch_of(settings)) == (64, 16)
    assert scale_positions(settings, keys(), 100), "rows of 100 are twice as much: 8 times of 16"
    assert (context_of(settings), switch_of(settings), settings.rope_parameters["factor"]) == (128, 16, 8)


# ---- what is saved, and used ----


@pytest.mark.parametrize("model_type", ["llama", "phi3", "gemma3_text"])
def test_transformers_reads_back_what_is_saved(model_type: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    settings = scaled(model_type)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(settings).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    for length in (9, ORIGINAL + 6):
        ids = torch.randint(3, 97, (1, length), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            assert torch.equal(model(ids).logits, again(ids).logits)


@pytest.mark.parametrize("model_type", ["llama", "phi3"])
def test_a_reply_that_grows_beyond_the_original_context_is_read_again(model_type: str) -> None:
    """Each token is the one after a forward over all before it. `generate` does the same for Phi-3, whose class forgets
    its keys there; llama's goes on with keys that were turned by the short factors."""
    rope = scaled(model_type, rope_factor=4.0).rope_parameters
    changes = {"rope_parameters": rope, "max_position_embeddings": 256}
    if model_type == "phi3":
        changes["original_max_position_embeddings"] = ORIGINAL
    reference = tiny_model(model_type, None, **changes)
    prompt = torch.randint(3, 97, (ORIGINAL - 4,), generator=torch.Generator().manual_seed(1)).tolist()
    ids, gaps = list(prompt), []
    for _ in range(12):
        with torch.no_grad():
            best = reference(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2)
        gaps.append(float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    assert min(gaps) > 1e-4, "no token is decided by rounding"
    with engine_of(tiny_model(model_type, None, **changes), stop_ids=()) as engine:
        (piece,) = answers(engine, [Request(tuple(prompt), greedy(12))])
    assert [token.id for token in piece.tokens] == ids[len(prompt) :]
    if model_type == "phi3":
        assert generated(reference, prompt, 12, ()).ids == ids[len(prompt) :]


@pytest.fixture
def longer(tiny_model: Path, tiny_data: Path, tmp_path: Path) -> dict[str, Any]:
    """Two steps of the tiny model, whose context is 512 and whose heads have 8 frequencies."""
    return {
        "model_name_or_path": str(tiny_model),
        "dataset": "new",
        "dataset_dir": str(tiny_data),
        "rope_scaling": "longrope",
        "rope_factors": {"short_factor": [1.0] * 8, "long_factor": [1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]},
        "cutoff_len": 1200,
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "output_dir": str(tmp_path / "out"),
        "save_strategy": "no",
        "use_cpu": True,
    }


@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_what_was_trained_is_used_without_the_keys(longer: dict[str, Any], method: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = tunesmith.train({**longer, "finetuning_type": method}).output_dir
    named = {"model_name_or_path": str(folder)}
    if method == "lora":
        named = {"model_name_or_path": longer["model_name_or_path"], "adapter_name_or_path": str(folder)}
    merged = tunesmith.export_model({**named, "export_dir": str(tmp_path / "merged"), "infer_dtype": "float32"})
    rope = json.loads((merged / "config.json").read_text())["rope_parameters"]
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("longrope", 3.0, 512)
    assert rope["long_factor"] == longer["rope_factors"]["long_factor"]
    ids = torch.randint(3, 800, (1, 600), generator=torch.Generator().manual_seed(0))
    with tunesmith.chat({**named, "use_cpu": True}) as conversation, torch.no_grad():
        assert conversation.engine.context == 1536
        used = conversation.engine.model(ids).logits
        assert torch.allclose(used, AutoModelForCausalLM.from_pretrained(merged)(ids).logits, atol=1e-4)


def refusal(settings: Any, factors: dict[str, list[float]]) -> UsageError | None:
    try:
        scale_positions(settings, keys(rope_factors=factors, rope_factor=2.0), 100)
    except UsageError as error:
        return error
    return None


@pytest.mark.slow
@pytest.mark.parametrize("model_type", sorted(FLAT | SHIMS.keys()))
def test_every_type_turns_by_the_factors_or_is_refused(model_type: str, tmp_path: Path) -> None:
    """What the module of the positions computes is the formula; what cannot be so is an error before there is one."""
    from transformers import AutoConfig, AutoModelForCausalLM

    settings, factors = tiny_config(model_type), FACTORS
    refused = refusal(settings, factors)
    if refused and (number := re.search(r"has (\d+) frequencies", str(refused))):
        factors = {name: [1.0 + i for i in range(int(number[1]))] for name in FACTORS}
        refused = refusal(settings, factors)
    if refused:
        assert refused.code == "E-MODEL-019"
        return
    model = AutoModelForCausalLM.from_config(settings).eval()
    if model_type == "zamba2":  # its class has no place for a recipe, which is seen when it is there
        with pytest.raises(UsageError, match="computes its positions by itself"):
            check_positions(model, keys())
        return
    check_positions(model, keys())
    rope = settings.rope_parameters
    rope, kind = (rope["full_attention"], "full_attention") if "full_attention" in rope else (rope, None)
    rotary = next(module for module in model.modules() if "longrope" in str(getattr(module, "rope_type", "")))
    told = {} if kind is None else {"layer_type": kind}
    length = int(rope["original_max_position_embeddings"]) + 1
    rotary(torch.zeros(1), torch.arange(length)[None], **told)
    found = getattr(rotary, "inv_freq" if kind is None else f"{kind}_inv_freq")
    size = len(factors["long_factor"])
    wanted = [1 / (factor * rope["rope_theta"] ** (i / size)) for i, factor in enumerate(factors["long_factor"])]
    assert found.tolist() == pytest.approx(wanted, rel=1e-4)
    settings.save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == settings.rope_parameters


# ---- what is refused ----

SHORT = FACTORS["short_factor"]
WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (None, "needs the factors"),
    "no long ones": ({"short_factor": SHORT}, "long_factor is a list of numbers"),
    "other lengths": ({"short_factor": SHORT, "long_factor": SHORT[:3]}, "other lengths"),
    "zero": ({"short_factor": SHORT, "long_factor": [1.0, 0, 2, 3]}, "numbers above 0"),
    "a text": ({"short_factor": SHORT, "long_factor": ["a", 1, 2, 3]}, "numbers above 0"),
    "true": ({"short_factor": SHORT, "long_factor": [True, 1, 2, 3]}, "numbers above 0"),
    "one number": ({"short_factor": SHORT, "long_factor": 2.0}, "long_factor is a list"),
    "an unknown key": ({**FACTORS, "long_mscale": 1.2}, "long_mscale is nothing"),
    "a cold attention": ({**FACTORS, "attention_factor": 0}, "attention_factor is a number above 0"),
    "no file": ("nowhere.yaml", "cannot be read"),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("verb", ["train", "chat"])
def test_factors_that_cannot_be_are_errors_of_the_config(name: str, verb: str) -> None:
    given, said = WRONG[name]
    config = {"model_name_or_path": "x", "rope_scaling": "longrope", "dataset": "y", "output_dir": "z"}
    with pytest.raises(ConfigError, match=said) as caught:
        load_config(config | ({} if given is None else {"rope_factors": given}), verb=verb)
    assert [problem.code for problem in caught.value.problems] == ["E-MODEL-034"]


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "{", "word"])
def test_a_file_of_something_else_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "factors.yaml").write_text(text)
    config = {"model_name_or_path": "x", "rope_scaling": "longrope", "rope_factors": str(tmp_path / "factors.yaml")}
    with pytest.raises(ConfigError, match="mapping with short_factor and long_factor"):
        load_config(config, verb="chat")


def test_a_wrong_number_of_factors_is_told_before_the_weights_are_read(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UsageError) as caught:
        load(keys(model_name_or_path=str(tmp_path / "model")), dtype="float32")
    (problem,) = caught.value.problems
    assert (problem.code, problem.got) == ("E-MODEL-019", "4 factors")
    assert "8 numbers" in problem.fix


def test_a_type_that_needs_more_than_factors_is_told() -> None:
    with pytest.raises(UsageError, match="short_mscale"):
        scale_positions(tiny_config("phimoe"), keys(), 256)


def test_a_recipe_that_the_type_would_not_read_back_is_told() -> None:
    with pytest.raises(UsageError, match="does not take this recipe"):
        scale_positions(tiny_config("phi3"), ModelConfig(model_name_or_path="x", rope_scaling="yarn"), 256)


def test_factors_without_the_recipe_are_without_effect() -> None:
    config = load_config({"model_name_or_path": "x", "rope_scaling": "yarn", "rope_factors": FACTORS}, verb="chat")
    assert any("rope_factors" in line for line in config.warnings)
