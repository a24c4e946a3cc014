"""FLOPs from the model's shapes: the count of PyTorch's own counter, for every way to train."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny_models import tiny_model
from tunesmith.data.collate import FlatCollator, PaddingCollator, sequence_lengths, tokens_before
from tunesmith.methods.lora import linear_names
from tunesmith.models.attention import VARLEN, attention_of, register
from tunesmith.models.family import family_of
from tunesmith.models.flops import TokenFlops, measure_flops, visible_pairs
from tunesmith.models.loss_forward import HeadFacts, install
from tunesmith.objectives.inputs import model_inputs
from tunesmith.objectives.sft import trained

TOLERANCE = 1e-3  # what docs/logs.md promises


def _full(model: Any) -> Any:
    return model


def _frozen(model: Any) -> Any:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".1." in name)  # the second of two layers
    return model


def _lora(model: Any, **more: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    targets = linear_names(model, family_of(model.config.model_type))
    transposed = model.config.model_type == "gpt2"
    return get_peft_model(model, LoraConfig(r=4, target_modules=targets, fan_in_fan_out=transposed, **more))


METHODS = {"full": _full, "frozen": _frozen, "lora": _lora}


def _model(kind: str, method: str, attention: str, way: Any = "kept", **changes: Any) -> Any:
    register()
    model = tiny_model(kind, attention, **changes)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the counter does not know grouped products
    install(model, way, HeadFacts.of(model, family_of(kind)))
    return METHODS[method](model)


def _rows(lengths: list[int]) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    rows = [{"input_ids": rng.integers(3, 90, size), "trained": np.arange(size) >= size // 2} for size in lengths]
    return [{**row, "trained": row["trained"].astype(bool)} for row in rows]


def _counted(model: Any, batch: dict[str, Any]) -> tuple[int, int]:
    """(FLOPs by PyTorch's counter, trained tokens) of forward and backward."""
    asked = trained(batch)

    def in_place(_sum: Any, one: Any, other: Any, **_more: Any) -> int:  # an operator that the counter leaves out
        return 2 * int(one[0] * one[1] * other[1])

    model.train()
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        model(**model_inputs(batch), **asked)["loss"].backward()
    return int(counter.get_total_flops()), len(asked["loss_targets"])


def _whole_squares(flops: TokenFlops, lengths: list[int]) -> float:
    """What plain attention computes: the pairs that are hidden by the mask too."""
    return sum(flops.attention.values()) * sum(length**2 for length in lengths)


QUICK = [(kind, way) for kind in ("llama", "qwen2", "gemma2", "gpt2", "phi", "qwen3_moe", "gpt_oss") for way in METHODS]
QUICK += [("dbrx", "full"), ("deepseek_v2", "frozen")]
# Types with experts of which all else is counted too: no convolutions, no recurrent layers.
_MIXTURES = """
    afmoe aria_text axk1 cohere2_moe deepseek_v3 dots1 ernie4_5_moe exaone_moe flex_olmo glm4_moe glm4_moe_lite
    granitemoe granitemoe_swa granitemoeshared hunyuan_v1_moe hy_v3 jetmoe kolibri1 laguna mellum mimo_v2_flash
    minimax_m2 mixtral olmoe phimoe qwen2_moe solar_open
"""


@pytest.mark.parametrize(
    ("kind", "method"), QUICK + [pytest.param(kind, "full", marks=pytest.mark.slow) for kind in _MIXTURES.split()]
)
def test_a_padded_batch_costs_what_the_counter_counts(kind: str, method: str, torch_one_thread: None) -> None:
    model = _model(kind, method, "eager")
    flops = measure_flops(model)
    lengths = [24, 24]
    found, count = _counted(model, PaddingCollator(0)(_rows(lengths)))
    without_attention = flops.of(np.asarray(lengths), count) - sum(
        each * visible_pairs(np.asarray(lengths), window) for window, each in flops.attention.items()
    )
    assert without_attention + _whole_squares(flops, lengths) == pytest.approx(found, rel=TOLERANCE)


# Not the adapted experts: PEFT multiplies the two matrices of every expert's adapter, which no token asks for.
FLAT = [(kind, way, method) for kind, way in (("llama", "chunked"), ("llama", "full")) for method in METHODS]
FLAT += [("deepseek_v3", "kept", "full"), ("deepseek_v3", "kept", "frozen")]


@pytest.mark.parametrize(("kind", "way", "method"), FLAT)
def test_a_flat_batch_costs_what_the_counter_counts(kind: str, way: str, method: str, torch_one_thread: None) -> None:
    model = _model(kind, method, VARLEN, way)
    flops = measure_flops(model)
    lengths = [12, 12, 12]  # equal ones are attended to together without padding, so the counter sees no more
    with sdpa_kernel(SDPBackend.MATH):  # the only kind on a processor that the counter knows
        found, count = _counted(model, FlatCollator(0)(_rows(lengths)))
    without_attention = TokenFlops(flops.layers, flops.head, {}, flops.head_everywhere)
    expected = without_attention.of(np.asarray(lengths), count) + _whole_squares(flops, lengths)
    assert expected == pytest.approx(found, rel=TOLERANCE)


def test_counts_are_those_of_the_formula_by_hand() -> None:
    """Llama of 2 layers: width 32, 4 heads of 8 (2 of keys and values), 48 within, 97 tokens."""
    flops = measure_flops(_model("llama", "full", "sdpa", "chunked"))
    layer = 32 * 32 * 2 + 2 * 32 * 16 + 3 * 32 * 48  # queries and output, keys and values, the three of the MLP
    assert flops.layers == 6 * 2 * layer
    assert flops.head == 6 * 32 * 97
    assert flops.attention == {None: 2 * 3 * 2 * 4 * (8 + 8)}
    assert flops.of(np.asarray([3, 2]), 4) == 5 * flops.layers + 4 * flops.head + (6 + 3) * flops.attention[None]


@pytest.mark.parametrize("window", [None, 1, 3, 8, 50])
def test_visible_pairs_are_those_of_the_mask(window: int | None) -> None:
    lengths = [1, 2, 3, 7, 8, 9, 20]
    expected = 0
    for length in lengths:
        distance = np.arange(length)[:, None] - np.arange(length)
        expected += int(((distance >= 0) & (distance < (window or length))).sum())
    assert visible_pairs(np.asarray(lengths, dtype=np.int32), window) == expected


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["llama", "gemma2", "qwen3_moe"])
def test_a_forward_alone_costs_what_the_counter_counts(kind: str, method: str, torch_one_thread: None) -> None:
    """A third of full training; of an adapter that is switched off, what the base costs."""
    model = _model(kind, method, "eager")
    flops = measure_flops(model, backward=False)
    lengths, batch = [24, 24], PaddingCollator(0)(_rows([24, 24]))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**model_inputs(batch), **trained(batch))
    found, count = int(counter.get_total_flops()), len(trained(batch)["loss_targets"])
    without_attention = TokenFlops(flops.layers, flops.head, {}, flops.head_everywhere)
    expected = without_attention.of(np.asarray(lengths), count) + _whole_squares(flops, lengths)
    assert expected == pytest.approx(found, rel=TOLERANCE)
    if method == "lora":
        with model.disable_adapter():
            assert measure_flops(model, backward=False) == measure_flops(_model(kind, "full", "eager"), backward=False)


@pytest.mark.parametrize("window", [None, 4])
def test_an_answer_sees_the_prompt_that_it_goes_on_behind(window: int | None) -> None:
    """A prompt of 5 with answers of 3 and 2 costs the pairs of both sequences, those within the prompt once."""
    flops = TokenFlops(layers=10.0, head=0.0, attention={window: 1.0}, head_everywhere=False)
    found = flops.of(np.array([8, 2]), 0, before=np.array([0, 5]))
    both, prompt = visible_pairs(np.array([8, 7]), window), visible_pairs(np.array([5]), window)
    assert found == 10 * 10.0 + both - prompt


def test_shared_prompts_cost_what_the_counter_counts(torch_one_thread: None) -> None:
    """Plain attention computes the pairs that a mask hides, too."""
    from tests.pairs import SIZES, token_pairs
    from tunesmith.losses.token import LogProbs
    from tunesmith.objectives.answers import answers_of

    model = _model("llama", "full", VARLEN, "chunked")
    flops, batch = measure_flops(model, backward=False), FlatCollator(0, shares=True)(token_pairs())
    answers = answers_of(batch)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(**model_inputs(batch), **answers.asked, loss_kind=LogProbs())
    lengths, before = sequence_lengths(batch), tokens_before(batch)
    assert before.tolist() == [of for prompt, *_ in SIZES for of in (0, prompt)]
    squares = int((lengths * (lengths + before)).sum()) * flops.attention[None]
    without_attention = TokenFlops(flops.layers, flops.head, {}, flops.head_everywhere)
    expected = without_attention.of(lengths, len(answers.targets), before) + squares
    assert expected == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)


def test_a_reward_is_one_position_of_a_sequence(torch_one_thread: None) -> None:
    from tests.pairs import classifier_of, token_pairs
    from tunesmith.objectives.rm import reward_ends

    model = classifier_of("chunked").train()
    flops, batch = measure_flops(model), FlatCollator(0)(token_pairs([(5, 4, 4)] * 3))
    assert flops.head == 6 * 32
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(**model_inputs(batch), reward_ends=reward_ends(batch))["rewards"].sum().backward()
    lengths = sequence_lengths(batch)
    without_attention = TokenFlops(flops.layers, flops.head, {}, flops.head_everywhere)
    expected = without_attention.of(lengths, len(lengths)) + _whole_squares(flops, lengths.tolist())
    assert expected == pytest.approx(counter.get_total_flops(), rel=TOLERANCE)


def test_nothing_is_left_behind() -> None:
    model = _model("gemma2", "lora", "eager").train()
    chance = torch.get_rng_state()
    measure_flops(model)
    assert torch.equal(torch.get_rng_state(), chance)
    assert model.training
    assert attention_of(model) == "eager"
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_how_dora_asks_for_weights_is_no_work_of_a_token() -> None:
    plain = tiny_model("llama", "sdpa")
    install(plain, "chunked", HeadFacts.of(plain, family_of("llama")))
    other = tiny_model("llama", "sdpa")
    install(other, "chunked", HeadFacts.of(other, family_of("llama")))
    assert measure_flops(_lora(plain)).layers == measure_flops(_lora(other, use_dora=True)).layers


@pytest.mark.filterwarnings(
    r"ignore:The following \w+ keys did not match:RuntimeWarning"
)  # of PEFT, for its own patterns
def test_experts_under_an_adapter_are_counted() -> None:
    """PEFT holds adapted experts in another place while the forward runs; they cost what they cost without it, but for
    the gradient of their weights, which is that of the adapter's product."""
    full = measure_flops(_model("deepseek_v3", "full", "eager"))
    adapted = measure_flops(_model("deepseek_v3", "lora", "eager"))
    assert 0.6 * full.layers < adapted.layers < 1.2 * full.layers


EXPERT = 3 * 32 * 48
"""Of the tiny types: the three matrices of an expert, or of a dense part, with 48 within."""


def test_experts_that_no_token_is_sent_to_are_no_work() -> None:
    """Llama 4 computes all 4 experts for each token, with zeros but for the 2 that are chosen."""
    attention = 32 * 32 * 2 + 2 * 32 * 16
    router, shared = 32 * 4, EXPERT
    flops = measure_flops(_model("llama4_text", "full", "eager"))
    assert flops.layers == 6 * 2 * (attention + router + shared + 2 * EXPERT)


def test_a_token_that_is_sent_nowhere_is_no_work() -> None:
    """LongCat has experts that do nothing: of 2 chosen ones out of 4 and another 4 of these, 1 works on average. The
    product of its router is made outside a module, and is not seen."""
    some, more = (_model("longcat_flash", "full", "eager", zero_expert_num=idle) for idle in (0, 4))
    expert = 3 * 32 * 16
    assert measure_flops(some).layers - measure_flops(more).layers == 6 * 2 * (2 - 1) * expert


def test_every_token_meets_all_shared_experts() -> None:
    one, two = (_model("inkling_text", "full", "eager", n_shared_experts=number) for number in (1, 2))
    router_row, expert = 32, 3 * 32 * 16
    assert measure_flops(two).layers - measure_flops(one).layers == pytest.approx(6 * 2 * (expert + router_row))


def test_weights_for_parts_of_the_input_are_multiplied_once() -> None:
    """DeepSeek V4 has a linear layer in groups, each of which reads its own part."""
    model = _model("deepseek_v4", "full", "eager")
    grouped = model.model.layers[0].self_attn.o_a_proj
    assert grouped.n_groups > 1
    weights = sum(
        one.numel() for name, one in model.named_parameters() if "embed" not in name and "lm_head" not in name
    )
    assert measure_flops(model).layers < 6 * weights


@pytest.mark.parametrize("kind", ["axk2", pytest.param("glm_moe_dsa", marks=pytest.mark.slow)])
def test_a_model_that_looks_into_its_mask_is_read_with_one(kind: str) -> None:
    assert measure_flops(_model(kind, "full", "eager")).layers > 0


def test_experts_need_no_numbers() -> None:
    """Which experts are computed is asked of numbers; what they cost is not."""
    with torch.device("meta"):
        shapes = _model("dbrx", "full", "eager")
    assert measure_flops(shapes, shapes_only=True) == measure_flops(_model("dbrx", "full", "eager"))
    assert "forward" not in vars(shapes.transformer.blocks[0].ffn.experts)


def test_attention_that_cannot_be_seen_is_left_out() -> None:
    flops = measure_flops(_model("bloom", "full", "eager"))
    assert flops.layers > 0
    assert flops.attention == {}
