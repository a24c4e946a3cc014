"""Which weights train under each method, compared with PEFT and with lists written out by hand."""

from __future__ import annotations

import pytest
import torch

from tests.tiny_models import tiny_model as tiny_model_of
from tunesmith.config.method import MethodConfig
from tunesmith.core.errors import MissingInputError, UsageError
from tunesmith.methods import METHODS
from tunesmith.methods.base import Adapters, Given, count_parameters
from tunesmith.methods.lora import adapter_inputs, linear_names
from tunesmith.models.family import family_of

pytestmark = pytest.mark.usefixtures("torch_one_thread")


@pytest.fixture
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)


def apply(model, keep_dtype=False, adapters=None, **settings):
    config = MethodConfig(**settings)
    method = METHODS.get(config.finetuning_type)(config)
    extra = {"adapters": adapters} if adapters else {}
    return method.apply(model, Given(family_of("llama"), keep_dtype, **extra))


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_full_trains_every_weight_in_float32(model):
    model = apply(model, finetuning_type="full")
    assert trained(model) == {name for name, _ in model.named_parameters()}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_pure_bf16_keeps_the_dtype(model):
    assert {p.dtype for p in apply(model, True, finetuning_type="full").parameters()} == {torch.bfloat16}


def layers_of(names):
    return {int(name.split(".")[2]) for name in names if name.startswith("model.layers.")}


def test_freeze_trains_the_last_layers(model):
    depth = model.config.num_hidden_layers
    names = trained(apply(model, finetuning_type="freeze", freeze_trainable_layers=2))
    assert layers_of(names) == {depth - 2, depth - 1}
    assert len(names) == 2 * 9  # four attention and three MLP matrices, two norms


def test_freeze_trains_the_first_layers_where_the_number_is_negative(model):
    assert layers_of(trained(apply(model, finetuning_type="freeze", freeze_trainable_layers=-1))) == {0}


def test_freeze_trains_named_parts_and_extra_modules(model):
    model = apply(
        model,
        finetuning_type="freeze",
        freeze_trainable_layers=1,
        freeze_trainable_modules=("mlp",),
        freeze_extra_modules=("norm",),
    )
    last = model.config.num_hidden_layers - 1
    expected = {f"model.layers.{last}.mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
    assert trained(model) == expected | {"model.norm.weight"}
    assert model.model.norm.weight.dtype == torch.float32
    assert model.model.embed_tokens.weight.dtype == torch.bfloat16


def test_freeze_refuses_experts_of_layers_that_are_dense() -> None:
    """DeepSeek V2's first layer has none; without an error nothing would train."""
    mixture = tiny_model_of("deepseek_v2", None)
    with pytest.raises(UsageError, match=r'no module is called "experts" in the layers that train \(0\)') as caught:
        apply(mixture, finetuning_type="freeze", freeze_trainable_layers=-1, freeze_trainable_modules=("experts",))
    assert "1 to 1 is where they are" in caught.value.problems[0].fix
    apply(mixture, finetuning_type="freeze", freeze_trainable_layers=-2, freeze_trainable_modules=("experts",))
    assert {name.split(".")[2] for name in trained(mixture)} == {"1"}


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"freeze_trainable_layers": 99}, "E-METHOD-002", "layers"),
        ({"freeze_trainable_layers": 0}, "E-METHOD-002", "layers"),
        ({"freeze_trainable_modules": ("mpl",)}, "E-METHOD-003", 'did you mean "mlp"'),
        ({"freeze_extra_modules": ("nrm",)}, "E-METHOD-003", 'did you mean "norm"'),
    ],
)
def test_freeze_refuses_what_the_model_does_not_have(model, settings, code, words):
    with pytest.raises(UsageError) as caught:
        apply(model, finetuning_type="freeze", **settings)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_lora_on_all_is_every_linear_layer_but_the_head(model):
    tuned = apply(model, finetuning_type="lora", lora_rank=4)
    config = tuned.peft_config["default"]
    assert config.r == 4
    assert config.lora_alpha == 8, "twice the rank where it is not given"
    assert set(config.target_modules) == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert all("lora_" in name for name in trained(tuned))
    assert {p.dtype for p in tuned.parameters() if p.requires_grad} == {torch.float32}
    counted = count_parameters(tuned)
    assert (counted.trained, counted.total) == tuned.get_nb_trainable_parameters()


def test_lora_starts_as_the_base_model(model):
    ids = torch.arange(20)[None]
    before = model(ids).logits
    torch.testing.assert_close(apply(model, finetuning_type="lora")(ids).logits, before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "scaling"),
    [({}, 2.0), ({"lora_alpha": 4}, 0.5), ({"use_rslora": True}, 16 / 8**0.5), ({"use_dora": True}, 2.0)],
)
def test_lora_scaling(model, settings, scaling):
    tuned = apply(model, finetuning_type="lora", lora_rank=8, **settings)
    layer = tuned.base_model.model.model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == pytest.approx(scaling)
    assert bool(layer.lora_magnitude_vector) == settings.get("use_dora", False)


def test_lora_dropout_and_additional_target(model):
    tuned = apply(
        model, finetuning_type="lora", lora_dropout=0.25, lora_target=("q_proj",), additional_target=("norm",)
    )
    assert tuned.base_model.model.model.layers[0].self_attn.q_proj.lora_dropout["default"].p == 0.25
    assert any("modules_to_save" in name for name in trained(tuned))


@pytest.mark.parametrize("key", ["lora_target", "additional_target"])
def test_lora_refuses_a_module_that_is_not_there(model, key):
    with pytest.raises(UsageError) as caught:
        apply(model, finetuning_type="lora", **{key: ("q_porj",)})
    assert caught.value.code == "E-METHOD-004"
    assert 'did you mean "q_proj"' in str(caught.value)


def save_random_adapter(model, folder, rank=4):
    """An adapter whose effect is not zero, saved by plain PEFT."""
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(model, LoraConfig(r=rank, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(rank)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    tuned.save_pretrained(folder)
    return tuned


@pytest.fixture
def adapter(tiny_model, tmp_path):
    from transformers import AutoModelForCausalLM

    save_random_adapter(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32), tmp_path / "adapter")
    return str(tmp_path / "adapter")


def test_training_goes_on_with_the_last_adapter(model, adapter):
    tuned = apply(model, finetuning_type="lora", lora_rank=99, adapters=Adapters((adapter,)))
    assert tuned.peft_config["default"].r == 4, "the adapter's own rank"
    assert len(trained(tuned)) == model.config.num_hidden_layers * 2 * 2


def test_create_new_adapter_merges_the_old_one(tiny_model, adapter):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    tuned = apply(base, finetuning_type="lora", lora_rank=2, create_new_adapter=True, adapters=Adapters((adapter,)))
    assert tuned.peft_config["default"].r == 2
    plain = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    reference = PeftModel.from_pretrained(plain, adapter)
    ids = torch.arange(30)[None]
    torch.testing.assert_close(tuned(ids).logits, reference(ids).logits, rtol=1e-4, atol=1e-4)


def test_an_adapter_that_is_a_whole_model_is_explained(model, tiny_model):
    with pytest.raises(MissingInputError) as caught:
        apply(model, finetuning_type="lora", adapters=Adapters((str(tiny_model),)))
    assert "name it in model_name_or_path" in str(caught.value)


def test_linear_names_leave_out_what_the_family_says(model):
    from tunesmith.models.family import Family

    assert "o_proj" not in linear_names(model, Family("x", adapter_exclude=("o_proj",)))
    assert "lm_head" not in linear_names(model, Family("x"))


def test_gpt2_transposed_linear_layers_are_found():
    from transformers import GPT2Config, GPT2LMHeadModel

    tiny = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20, n_positions=16))
    assert linear_names(tiny, family_of("gpt2")) == ["c_attn", "c_fc", "c_proj"]


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}])
def test_adapters_compute_the_same_without_float32_inputs(model, settings):
    """To the bit, loss and gradients, in fewer casts; DoRA is left as it is."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Casts(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.count = 0

        def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
            self.count += function is torch.ops.aten._to_copy.default
            return function(*arguments, **(keywords or {}))

    config = MethodConfig(finetuning_type="lora", **settings)
    tuned = METHODS.get("lora")(config).apply(model, Given(family_of("llama")))
    weights = [one for one in tuned.parameters() if one.requires_grad]
    torch.manual_seed(0)
    for one in weights:
        one.data += torch.randn_like(one) * 0.05
    found, casts = [], []
    for kind in (None, "bfloat16"):
        with adapter_inputs(tuned, config, kind), torch.autocast("cpu", torch.bfloat16), Casts() as counted:
            loss = tuned(torch.arange(20)[None]).logits.float().square().mean()
        found.append([loss, *torch.autograd.grad(loss, weights)])
        casts.append(counted.count)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
    assert (casts[1] < casts[0]) == (not settings)
