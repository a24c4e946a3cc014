"""Several adapters as one change of the weights."""

from __future__ import annotations

import pytest
import torch

import tunesmith
from tunesmith.core.errors import ConfigError, UsageError
from tunesmith.methods.combine import combine

pytestmark = pytest.mark.usefixtures("torch_one_thread")

ONE, TWO = torch.tensor([4.0, -1.0, 2.0, 0.5]), torch.tensor([-3.0, -2.0, 2.0, 0.25])


@pytest.mark.parametrize(
    ("method", "weights", "density", "expected"),
    [
        ("linear", (1.0, 1.0), 0.5, [1.0, -3.0, 4.0, 0.75]),
        ("linear", (0.5, 2.0), 0.5, [-4.0, -4.5, 5.0, 0.75]),
        # The three largest of each are left; of those that have the sign of the sum, the mean.
        ("ties", (1.0, 1.0), 0.75, [4.0, -1.5, 2.0, 0.0]),
        ("ties", (1.0, 2.0), 0.75, [4.0, -2.5, 3.0, 0.0]),  # signs are counted without the weights
    ],
)
def test_changes_are_combined_as_published(method, weights, density, expected):
    torch.testing.assert_close(combine([ONE, TWO], weights, method, density), torch.tensor(expected))


def test_ties_keeps_the_largest_part():
    found = combine([ONE, torch.zeros(4)], (1.0, 1.0), "ties", 0.5)
    torch.testing.assert_close(found, torch.tensor([4.0, 0.0, 2.0, 0.0]))


def test_dare_keeps_the_sum_on_the_average():
    torch.manual_seed(0)
    found = torch.stack([combine([ONE, TWO], (1.0, 1.0), "dare_linear", 0.5) for _ in range(4000)]).mean(0)
    torch.testing.assert_close(found, ONE + TWO, rtol=0, atol=0.2)


@pytest.fixture(scope="module")
def adapters(tiny_model, tmp_path_factory):
    """Two of different kinds, ranks and places."""
    from peft import LoraConfig, VeraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    found = []
    for number, settings in enumerate(
        (
            LoraConfig(r=3, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
            VeraConfig(r=8, target_modules=["q_proj"], init_weights=False),
        )
    ):
        base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        torch.manual_seed(number)
        folder = tmp_path_factory.mktemp(f"adapter{number}")
        get_peft_model(base, settings).save_pretrained(folder)
        found.append(str(folder))
    return found


def weights_of(folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return {name: weight.detach() for name, weight in model.named_parameters()}


def export(tiny_model, folder, **settings):
    return tunesmith.export_model(
        {"model_name_or_path": str(tiny_model), "export_dir": str(folder), "infer_dtype": "float32", **settings}
    )


def test_adapters_of_any_kinds_are_weighed(tiny_model, adapters, tmp_path):
    base = weights_of(tiny_model)
    alone = [
        weights_of(export(tiny_model, tmp_path / str(number), adapter_name_or_path=name))
        for number, name in enumerate(adapters)
    ]
    both = weights_of(
        export(
            tiny_model,
            tmp_path / "both",
            adapter_name_or_path=adapters,
            merge_method="linear",
            merge_weights=[0.5, -1.0],
        )
    )
    for name, weight in base.items():
        expected = weight + 0.5 * (alone[0][name] - weight) - (alone[1][name] - weight)
        torch.testing.assert_close(both[name], expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(both["model.layers.0.mlp.down_proj.weight"], base["model.layers.0.mlp.down_proj.weight"])


def test_what_dare_keeps_follows_from_the_seed(tiny_model, adapters, tmp_path):
    settings = {"adapter_name_or_path": adapters, "merge_method": "dare_ties", "merge_density": 0.4}
    found = [
        weights_of(export(tiny_model, tmp_path / str(number), seed=seed, **settings))
        for number, seed in enumerate((1, 1, 2))
    ]
    name = "model.layers.0.self_attn.q_proj.weight"
    assert torch.equal(found[0][name], found[1][name])
    assert not torch.equal(found[0][name], found[2][name])


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"adapter_name_or_path": ["one"], "merge_method": "ties"}, "E-CONFIG-022"),
        ({"adapter_name_or_path": ["a", "b"], "merge_method": "linear", "merge_weights": [1.0]}, "E-CONFIG-023"),
    ],
)
def test_weights_are_for_adapters(settings, code):
    with pytest.raises(ConfigError) as caught:
        tunesmith.load_config({"model_name_or_path": "m", "export_dir": "e", **settings}, verb="export")
    assert caught.value.code == code


def test_a_learnt_prompt_cannot_be_merged(tiny_model, tmp_path):
    from peft import PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    get_peft_model(base, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)).save_pretrained(tmp_path)
    with pytest.raises(UsageError) as caught:
        export(tiny_model, tmp_path / "merged", adapter_name_or_path=str(tmp_path))
    assert caught.value.code == "E-METHOD-019"
