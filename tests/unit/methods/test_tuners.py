"""Adapters of PEFT that bring a part of their own: a mixture of trained adapters (X-LoRA), a model beside the base
(Shadow), a package (AdaMSS)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tunesmith
from tests.busy_engine import answers, differing, engine_of, generated, greedy, prompts
from tests.tiny_models import tiny_model as tiny
from tunesmith.config.method import MethodConfig
from tunesmith.core.errors import ConfigError, MachineError, MissingInputError, UsageError
from tunesmith.engines.base import Request
from tunesmith.methods import METHODS
from tunesmith.methods.base import Adapters, Given
from tunesmith.methods.merge import attach_adapter, merge_adapters
from tunesmith.models.family import family_of
from tunesmith.models.loss_forward import HeadFacts, install

pytestmark = pytest.mark.usefixtures("torch_one_thread")

IDS = torch.randint(3, 97, (2, 9), generator=torch.Generator().manual_seed(0))
PLACES = torch.tensor([[row, place] for row in (0, 1) for place in range(8)])
ASKED = {"loss_positions": PLACES, "loss_targets": IDS[:, 1:].flatten()}


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name -> folder of an adapter with random numbers."""
    from peft import LoraConfig, get_peft_model

    found = {}
    for seed, name in enumerate(("maths", "poems", "law")):
        torch.manual_seed(seed)
        config = LoraConfig(r=3 + seed, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
        found[name] = str(tmp_path_factory.mktemp("experts") / name)
        get_peft_model(tiny("llama", None), config).save_pretrained(found[name])
    return found


def tuned(kind: str, settings: dict[str, Any], model: Any = None) -> Any:
    model = model or tiny("llama", None)
    install(model, "chunked", HeadFacts())
    config = MethodConfig(finetuning_type="peft", peft_type=kind, peft_settings=settings)
    torch.manual_seed(0)
    return METHODS.get("peft")(config).apply(model, Given(family_of("llama")))


def shaken(model: Any) -> Any:
    """With other numbers than it begins with."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    return model


# ---- X-LoRA ----


def test_a_mixture_without_an_opinion_is_the_mean_of_its_adapters(experts):
    """Each classifier output 0: each adapter counts one third. PEFT alone would take the names for no adapters."""
    mixture = tuned("xlora", {"adapters": experts}).eval()
    for weight in mixture.base_model.internal_xlora_classifier.parameters():
        torch.nn.init.zeros_(weight)
    plain = tiny("llama", None)
    before = {name: weight.clone() for name, weight in plain.state_dict().items()}
    mean = {name: weight.clone() for name, weight in before.items()}
    for folder in experts.values():
        whole = merge_adapters(tiny("llama", None), Adapters((folder,))).state_dict()
        for name in mean:
            mean[name] += (whole[name] - before[name]) / 3
    plain.load_state_dict(mean)
    torch.testing.assert_close(mixture(input_ids=IDS).logits, plain.eval()(IDS).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trainable", [False, True])
def test_the_loss_reaches_the_classifier(experts, trainable):
    """The loss in one forward has the gradient of the loss of all logits."""
    mixture = shaken(tuned("xlora", {"adapters": experts, "use_trainable_adapters": trainable})).eval()
    trained = {name: weight for name, weight in mixture.named_parameters() if weight.requires_grad}
    assert all("classifier" in name or ".lora_" in name for name in trained)
    assert any(".lora_" in name for name in trained) == trainable
    logits = mixture(input_ids=IDS).logits[:, :-1].flatten(0, 1)
    expected = torch.nn.functional.cross_entropy(logits, ASKED["loss_targets"], reduction="sum")
    theirs = torch.autograd.grad(expected, list(trained.values()))
    found = mixture(input_ids=IDS, **ASKED)["loss"]
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found, list(trained.values()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert any(one.abs().max() > 1e-3 for one in ours)


@pytest.mark.parametrize("trainable", [False, True])
def test_a_mixture_is_saved_whole(experts, tmp_path, trainable):
    """By PEFT where its adapters were, and by us where they are not any more."""
    from peft import PeftModel

    here = {name: str(tmp_path / name) for name in experts}
    for name, folder in experts.items():
        shutil.copytree(folder, here[name])
    mixture = shaken(tuned("xlora", {"adapters": here, "use_trainable_adapters": trainable, "xlora_depth": 2})).eval()
    expected = mixture(input_ids=IDS).logits
    mixture.save_pretrained(tmp_path / "saved")
    held = load_file(tmp_path / "saved" / "adapter_model.safetensors")
    assert sum("classifier" in name for name in held) == 4
    assert any("lora_A" in name for name in held) == trainable
    base = tiny("llama", None)
    base.config.use_cache = False
    theirs = PeftModel.from_pretrained(base, tmp_path / "saved").eval()
    torch.testing.assert_close(theirs(input_ids=IDS).logits, expected, rtol=0, atol=0)
    for folder in here.values():
        shutil.rmtree(folder)
    ours = attach_adapter(tiny("llama", None), str(shutil.move(tmp_path / "saved", tmp_path / "elsewhere"))).eval()
    torch.testing.assert_close(ours(input_ids=IDS).logits, expected, rtol=0, atol=0)
    alone = PeftModel.from_pretrained(tiny("llama", None), tmp_path / "elsewhere" / "experts" / "1")  # a plain LoRA
    first = load_file(Path(experts["poems"]) / "adapter_model.safetensors")
    now = load_file(tmp_path / "elsewhere" / "experts" / "1" / "adapter_model.safetensors")
    assert now.keys() == first.keys()
    assert all(torch.equal(now[name], first[name]) for name in first) != trainable
    assert alone.peft_config["default"].r == 4


def test_a_mixture_that_peft_saved_has_no_classifier(experts, tmp_path):
    from peft import XLoraConfig, get_peft_model

    base = tiny("llama", None)
    base.config.use_cache = False
    numbered = {str(number): folder for number, folder in enumerate(experts.values())}
    settings = XLoraConfig(task_type="CAUSAL_LM", hidden_size=base.config.hidden_size, adapters=numbered)
    get_peft_model(base, settings).save_pretrained(tmp_path)
    with pytest.raises(MissingInputError) as caught:
        attach_adapter(tiny("llama", None), str(tmp_path))
    assert caught.value.problems[0].code == "E-METHOD-021"


def test_adapters_that_cannot_be_mixed_are_told_before_the_weights_are_read(experts, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(experts["law"], other)
    told = json.loads((other / "adapter_config.json").read_text())
    (other / "adapter_config.json").write_text(json.dumps({**told, "use_dora": True}))
    cases = {str(tmp_path / "none"): "E-MODEL-001", "owner/name": "E-METHOD-020", str(other): "E-METHOD-020"}
    for path, code in cases.items():
        config = MethodConfig(finetuning_type="peft", peft_type="xlora", peft_settings={"adapters": {"one": path}})
        with pytest.raises((UsageError, MissingInputError)) as caught:
            METHODS.get("peft")(config).check()
        assert caught.value.problems[0].code == code
    for given in ({}, {"one": 1}, ["a"]):
        with pytest.raises(ConfigError) as wrong:
            tunesmith.load_config(
                {
                    "model_name_or_path": "m",
                    "dataset": "d",
                    "output_dir": "o",
                    "finetuning_type": "peft",
                    "peft_type": "xlora",
                    "peft_settings": {"adapters": given},
                }
            )
        assert [problem.code for problem in wrong.value.problems] == ["E-CONFIG-004"]


# ---- Shadow ----


def test_the_second_model_has_its_loss_in_training(tmp_path):
    """As much as PEFT adds where labels are given; none of it in evaluation."""
    shadow = shaken(tuned("shadow", {"r": 4, "shadow_dropout": 0.0, "auxiliary_loss_weight": 0.5}))
    mask = torch.ones_like(IDS)
    theirs = shadow.train()(input_ids=IDS, attention_mask=mask, labels=IDS).loss
    ours = shadow(input_ids=IDS, attention_mask=mask, **ASKED)["loss"] / 16
    torch.testing.assert_close(ours, theirs)
    trained = [weight for weight in shadow.parameters() if weight.requires_grad]
    assert {weight.dtype for weight in trained} == {torch.float32}
    gradients = [torch.autograd.grad(loss, trained, retain_graph=True, allow_unused=True) for loss in (ours, theirs)]
    for one, other in zip(*gradients, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    plain = torch.nn.functional.cross_entropy(
        shadow.eval()(input_ids=IDS).logits[:, :-1].flatten(0, 1), ASKED["loss_targets"]
    )
    torch.testing.assert_close(shadow(input_ids=IDS, **ASKED)["loss"] / 16, plain)
    assert float((theirs - plain).detach()) > 0.1
    shadow.save_pretrained(tmp_path)
    again = attach_adapter(tiny("llama", None), str(tmp_path)).eval()
    torch.testing.assert_close(again(input_ids=IDS).logits, shadow(input_ids=IDS).logits, rtol=0, atol=0)


# ---- both ----


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["xlora", "shadow"])
def test_requests_are_answered_as_peft_answers(kind, experts, tmp_path):
    settings = {"adapters": experts} if kind == "xlora" else {"r": 4}
    shaken(tuned(kind, settings)).save_pretrained(tmp_path)
    asked = prompts(4, 12, 97)
    theirs = attach_adapter(tiny("llama", None), str(tmp_path)).eval()
    said = [generated(theirs, prompt, 8) for prompt in asked]
    with engine_of(attach_adapter(tiny("llama", None), str(tmp_path)).eval()) as engine:
        assert not differing(answers(engine, [Request(prompt, greedy(8)) for prompt in asked]), said)
    with engine_of(tiny("llama", None).eval()) as engine, pytest.raises(UsageError) as caught:
        engine.load_adapter("one", str(tmp_path))
    assert caught.value.problems[0].code == "E-ENGINE-010"
    with pytest.raises(UsageError) as unmergeable:
        merge_adapters(tiny("llama", None), Adapters((str(tmp_path),)))
    assert unmergeable.value.problems[0].code == "E-METHOD-019"


def test_a_package_that_is_missing_is_told_before_the_weights_are_read(tiny_model, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr("tunesmith.methods.tuner.find_spec", lambda name: None)
    monkeypatch.setattr("tunesmith.models.load.load", lambda *_, **__: pytest.fail("the weights are read"))
    with pytest.raises(MachineError) as caught:
        tunesmith.train(
            {
                "model_name_or_path": str(tiny_model),
                "dataset": str(tiny_data / "new_openai.jsonl"),
                "output_dir": str(tmp_path / "out"),
                "finetuning_type": "peft",
                "peft_type": "adamss",
                "use_cpu": True,
            }
        )
    (problem,) = caught.value.problems
    assert (problem.code, problem.fix) == ("E-METHOD-014", "pip install scikit-learn")
