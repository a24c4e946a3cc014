"""Kinds of adapters, how they begin and where they go, compared with PEFT's own and with sums by hand."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from tunesmith.config.method import MethodConfig
from tunesmith.core.errors import DataError, UsageError
from tunesmith.methods import METHODS
from tunesmith.methods.base import Calibration, Given
from tunesmith.models.family import family_of
from tunesmith.models.loss_forward import HeadFacts, LossForward, install

pytestmark = pytest.mark.usefixtures("torch_one_thread")

IDS = torch.arange(20)[None]


@pytest.fixture
def model(tiny_model):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)


def loss(model, batch):
    return model(input_ids=batch, labels=batch).loss


def rows(number=4, length=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(800, (1, length), generator=generator) for _ in range(number)]


def apply(model, batches=None, **settings):
    config = MethodConfig(**{"finetuning_type": "lora", "lora_rank": 4, **settings})
    install(model, "kept", HeadFacts())
    calibration = Calibration(lambda: batches if batches is not None else rows(), loss)
    method = METHODS.get(config.finetuning_type)(config)
    return method.apply(model, Given(family_of("llama"), calibration=calibration))


BEGINNINGS = ["default", "gaussian", "orthogonal", "pissa", "olora", "corda", "lora_ga", "eva"]


@pytest.mark.parametrize("begins", BEGINNINGS)
def test_an_adapter_begins_as_the_base_model(model, begins):
    before = model(IDS).logits
    tuned = apply(model, init_lora_weights=begins).eval()
    tolerance = 0.2 if begins == "orthogonal" else 1e-3  # PEFT's orthogonal A and B cancel in no layer but their own
    torch.testing.assert_close(tuned(IDS).logits, before, rtol=0, atol=tolerance)


def test_pissa_takes_the_largest_singular_vectors_out_of_the_base(model):
    weight = model.model.layers[0].self_attn.q_proj.weight.detach().clone()
    expected = torch.linalg.svdvals(weight)
    for settings in ({"pissa_iter": -1}, {"pissa_iter": 16}):
        fresh = model.__class__.from_pretrained(model.config.name_or_path, dtype=torch.float32)
        tuned = apply(fresh, pissa_init=True, **settings)
        layer = tuned.base_model.model.model.layers[0].self_attn.q_proj
        left = torch.linalg.svdvals(layer.base_layer.weight)
        torch.testing.assert_close(left[:8], expected[4:12], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("begins", ["pissa", "olora", "corda", "lora_ga"])
@pytest.mark.parametrize("rslora", [False, True])
def test_what_was_taken_out_of_the_base_is_saved_as_a_plain_adapter(model, tiny_model, tmp_path, begins, rslora):
    from peft import PeftModel

    tuned = apply(model, init_lora_weights=begins, use_rslora=rslora, rank_pattern={"v_proj": 2}).eval()
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))) * 0.02)
    expected, learnt = tuned(IDS).logits, {n: w.detach().clone() for n, w in tuned.named_parameters()}
    tuned.save_pretrained(tmp_path)

    base = model.__class__.from_pretrained(tiny_model, dtype=torch.float32)
    plain = PeftModel.from_pretrained(base, tmp_path).eval()
    assert plain.peft_config["default"].r == 8
    torch.testing.assert_close(plain(IDS).logits, expected, rtol=1e-3, atol=2e-3)

    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.requires_grad:
                weight.zero_()
    tuned.load_adapter(tmp_path, "default", is_trainable=True)
    for name, weight in tuned.named_parameters():
        assert torch.equal(weight, learnt[name]), name


def test_lora_ga_begins_with_the_gradient_of_the_rows(model):
    one = apply(model, rows(seed=1), init_lora_weights="lora_ga")
    other = apply(
        model.__class__.from_pretrained(model.config.name_or_path, dtype=torch.float32),
        rows(seed=2),
        init_lora_weights="lora_ga",
    )
    a, b = (m.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight for m in (one, other))
    assert not torch.allclose(a, b)
    assert all(weight.grad is None for weight in one.parameters())


def test_eva_gives_up_where_rows_do_not_tell_enough(model):
    with pytest.raises(DataError) as caught:
        apply(model, rows(1, length=3), init_lora_weights="eva")
    assert caught.value.code == "E-METHOD-016"


def test_layers_and_patterns(model):
    tuned = apply(
        model,
        lora_alpha=8,
        layers_to_transform=(1.0, 3.0),
        rank_pattern={"q_proj": 2},
        alpha_pattern={"q_proj": 6},
    )
    trained = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert {name.split(".layers.")[1][0] for name in trained} == {"1", "3"}
    attention = tuned.base_model.model.model.layers[1].self_attn
    assert (attention.q_proj.r["default"], attention.k_proj.r["default"]) == (2, 4)
    assert (attention.q_proj.scaling["default"], attention.k_proj.scaling["default"]) == (3.0, 2.0)


@pytest.fixture
def mixture():
    from transformers import AutoModelForCausalLM, Qwen3MoeConfig

    config = Qwen3MoeConfig(
        vocab_size=896,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        num_experts=4,
        num_experts_per_tok=2,
    )
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


EXPERTS = ("mlp.experts.gate_up_proj", "mlp.experts.down_proj")


def test_fused_experts_are_adapted_without_a_module(mixture):
    tuned = apply(mixture, target_parameters=EXPERTS)
    trained = {name for name, weight in tuned.named_parameters() if weight.requires_grad}
    assert trained
    assert all(".mlp.experts." in name for name in trained)
    tuned(input_ids=IDS, labels=IDS).loss.backward()
    with torch.no_grad():
        for weight in tuned.parameters():
            if weight.grad is not None:
                weight.sub_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel())))
    adapted = tuned.eval()(IDS).logits
    torch.testing.assert_close(tuned.merge_and_unload()(IDS).logits, adapted, rtol=1e-4, atol=1e-4)


def test_a_weight_that_is_not_there_is_told(mixture):
    with pytest.raises(UsageError) as caught:
        apply(mixture, target_parameters=("mlp.experts.gate_proj",))
    assert caught.value.code == "E-METHOD-013"


def test_oft_takes_blocks_or_a_number_of_them(model):
    tuned = apply(model, finetuning_type="oft", oft_block_size=8, oft_target=("q_proj",), module_dropout=0.25)
    layer = tuned.base_model.model.model.layers[0].self_attn.q_proj
    assert (layer.oft_block_size["default"], layer.r["default"]) == (8, 8)
    assert layer.oft_dropout["default"].p == 0.25
    assert {name.split(".")[-2] for name, weight in tuned.named_parameters() if weight.requires_grad} == {"default"}
    again = model.__class__.from_pretrained(model.config.name_or_path, dtype=torch.float32)
    tuned = apply(again, finetuning_type="oft", oft_rank=4, lora_target=("v_proj",))
    layer = tuned.base_model.model.model.layers[0].self_attn.v_proj
    assert (layer.oft_block_size["default"], layer.r["default"]) == (16, 4)


@pytest.mark.parametrize("noted", [True, False])
def test_added_blocks_alone_train(model, noted):
    if noted:
        model.config.llama_pro = {"expanded_layers": [1, 3]}
    frozen = apply(model, finetuning_type="freeze", use_llama_pro=True, freeze_trainable_layers=5)
    expected = {1, 3} if noted else {0, 1, 2, 3, 4}
    trained = {name for name, weight in frozen.named_parameters() if weight.requires_grad}
    assert {int(name.split(".")[2]) for name in trained} == expected
    with_lora = apply(model, use_llama_pro=True, freeze_trainable_layers=5)
    trained = {name for name, weight in with_lora.named_parameters() if weight.requires_grad}
    assert {int(name.split(".layers.")[1].split(".")[0]) for name in trained} == expected


def test_added_blocks_that_cannot_stand_evenly_are_told(model):
    with pytest.raises(UsageError) as caught:
        apply(model, finetuning_type="freeze", use_llama_pro=True, freeze_trainable_layers=2)
    assert caught.value.code == "E-METHOD-015"


def test_any_kind_of_adapter_by_its_name(model):
    tuned = apply(model, finetuning_type="peft", peft_type="IA3", lora_target=("k_proj",))
    assert {name.split(".")[-2] for name, weight in tuned.named_parameters() if weight.requires_grad} == {"ia3_l"}


def test_more_settings_go_to_peft_by_its_names(model):
    tuned = apply(model, peft_settings={"exclude_modules": ["q_proj"]})
    attention = tuned.base_model.model.model.layers[0].self_attn
    assert (hasattr(attention.q_proj, "lora_A"), hasattr(attention.k_proj, "lora_A")) == (False, True)


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"peft_settings": {"exclude_module": "q"}}, "E-METHOD-012", 'did you mean "exclude_modules"'),
        ({"peft_settings": {"r": 3}}, "E-METHOD-012", "has a key of its own"),
        ({"peft_settings": {"bias": "some"}}, "E-METHOD-010", "bias"),
        (
            {"finetuning_type": "peft", "peft_type": "adalora", "peft_settings": {"tinit": 5, "total_step": 3}},
            "E-METHOD-011",
            "schedule",
        ),
        (
            {"finetuning_type": "peft", "peft_type": "c3a", "peft_settings": {"block_size": 7}},
            "E-METHOD-010",
            "block",
        ),
    ],
)
def test_settings_that_peft_refuses_are_told(model, settings, code, words):
    with pytest.raises(UsageError) as caught:
        apply(model, **settings)
    assert caught.value.code == code
    assert words in str(caught.value)


def test_a_learnt_prompt_moves_the_places_of_the_loss(model):
    tuned = apply(model, finetuning_type="peft", peft_type="prompt_tuning", peft_settings={"num_virtual_tokens": 3})
    positions = torch.tensor([[0, position] for position in range(19)])
    asked = {"loss_positions": positions, "loss_targets": IDS[0, 1:]}
    mask = torch.ones_like(IDS)
    ours = tuned(input_ids=IDS, attention_mask=mask, **asked)["loss"]
    LossForward.within(tuned).way = "full"
    labels = IDS.clone()
    labels[0, 0] = -100  # the last vector of the prompt predicts it, which is trained nowhere else
    theirs = tuned(input_ids=IDS, attention_mask=mask, labels=labels).loss * 19
    torch.testing.assert_close(ours, theirs)


def test_adalora_adds_its_term_once_whatever_the_split(model):
    tuned = apply(model, finetuning_type="peft", peft_type="adalora").train()
    positions = torch.tensor([[0, position] for position in range(19)])
    plain, units = tuned(input_ids=IDS, labels=IDS).loss, 19
    whole = tuned(input_ids=IDS, loss_positions=positions, loss_targets=IDS[0, 1:])["loss"] / units
    halves = [
        tuned(input_ids=IDS, loss_positions=positions[part], loss_targets=IDS[0, 1:][part])["loss"]
        for part in (slice(0, 7), slice(7, 19))
    ]
    torch.testing.assert_close(whole, plain)  # PEFT adds the same to the loss of transformers
    torch.testing.assert_close(sum(halves) / units, plain)


def test_an_adapter_of_many_tasks_gets_the_first(model, tmp_path):
    tuned = apply(model, finetuning_type="peft", peft_type="poly").eval()
    expected = tuned.base_model(input_ids=IDS, task_ids=torch.zeros(1, dtype=torch.long)).logits
    torch.testing.assert_close(tuned(input_ids=IDS).logits, expected, rtol=0, atol=0)


def test_a_plain_adapter_is_saved_by_its_own_names(model, tmp_path):
    apply(model, init_lora_weights="pissa", peft_settings={}).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"], settings["init_lora_weights"]) == (8, 16, True)
    shapes = {tuple(value.shape) for name, value in load_file(tmp_path / "adapter_model.safetensors").items()}
    assert (8, 64) in shapes
